"""The protocols one by one: values, bytes, rounds."""

import pytest
import torch

from syft_lab import errors
from syft_lab.mpc import bits, ring, sharing
from syft_lab.mpc.aby3 import aggregate, convert, decompose, input, vouch
from syft_lab.mpc.aby3.compare import sign
from syft_lab.mpc.aby3.input import enter
from syft_lab.mpc.aby3.multiply import double_part, multiply
from syft_lab.mpc.aby3.open import reveal, reveal_bits
from syft_lab.mpc.aby3.shares import constant
from syft_lab.mpc.aby3.truncate import truncate
from tests.parties import NAMES, opened, run

EDGES = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 2**62, -(2**62), 12345])
N = 1000


def anything(*shape):
    return torch.randint(-(2**63), 2**63 - 1, shape)


def counted(parties):
    return [p.online.bytes for p in parties], max(p.online.rounds for p in parties)


def test_products_wrap_as_the_ring_does():
    x, y = torch.cartesian_prod(EDGES, EDGES).T
    answers, parties = run(multiply, x.contiguous(), y.contiguous())
    assert torch.equal(opened(answers), x * y)
    assert counted(parties) == ([8 * 64] * 3, 1)


def test_a_product_of_matrices_costs_what_its_result_does():
    a, b = anything(6, 700), anything(700, 5)
    answers, parties = run(lambda p, x, y: multiply(p, x, y, ring.matmul), a, b)
    assert torch.equal(opened(answers), a @ b)
    assert counted(parties) == ([8 * 30] * 3, 1)


def test_twice_a_product_takes_one_product_of_each_party():
    x, y = torch.cartesian_prod(EDGES, EDGES).T
    done = []

    def counting(a, b):
        done.append(a)
        return a * b

    answers, parties = run(lambda p, *s: double_part(p, *s, counting), x.contiguous(), y.contiguous())
    assert torch.equal(sum(answers), 2 * x * y)
    assert (len(done), counted(parties)) == (3, ([0] * 3, 0))
    a, b = anything(6, 700), anything(700, 5)
    answers, _ = run(lambda p, *s: double_part(p, *s, ring.matmul), a, b)
    assert torch.equal(sum(answers), 2 * (a @ b))


@pytest.mark.parametrize("f", [1, 2, 13, 18, 29, 40])
def test_truncation_rounds_up_or_down(f):
    z = torch.cat(
        [torch.randint(-(2**top), 2**top, (N,)) for top in (3, 20, 40, 60)] + [torch.tensor([0, 1, -1, 2**62 - 1, 1 - 2**62])]
    )
    answers, parties = run(lambda p, x: truncate(p, x.own, f), z)
    error = opened(answers) - (z >> f)
    assert set(error.tolist()) <= {0, 1}
    n, bit = z.numel(), bits.width(z.numel())
    assert counted(parties) == ([8 * n + bit, 8 * n + bit, 8 * n + -(-f // 8) * n], 3)
    answers, parties = run(lambda p, x: truncate(p, x, f), z)
    assert set((opened(answers) - (z >> f)).tolist()) <= {0, 1}
    assert counted(parties)[0] == [8 * n + bit, 8 * n + bit, -(-f // 8) * n]


def test_truncation_has_no_bias_and_is_exact_where_it_can_be():
    z = torch.full((1 << 20,), (-5 << 18) + (1 << 16))  # −5 and a quarter of a unit more
    answers, _ = run(lambda p, x: truncate(p, x, 18), z)
    found = opened(answers)
    assert set(found.tolist()) == {-5, -4}
    assert (found == -4).double().mean().item() == pytest.approx(0.25, abs=0.003)  # seven standard deviations
    even = torch.arange(1 << 18)  # half of them odd; the lowest bits of their shares, times 2^17, are no random ones
    for shares in (lambda p, x: x.map(lambda t: t << 17), lambda p, x: constant(p, even.to(p.device) << 17)):
        answers, _ = run(lambda p, x, shares=shares: truncate(p, shares(p, x), 18), even)
        assert (opened(answers) - even / 2).mean().abs() < 0.01
    answers, _ = run(lambda p, x: truncate(p, x, 18), z - (1 << 16))
    assert opened(answers).eq(-5).double().mean() > 0.9999  # one more where what is cut off a is 0: one in 2^18


def test_of_four_million_truncations_none_is_wrong():
    """Without the correction of the wrap one in 2^(64 − 62) would be, at this size."""
    z = torch.randint(-(2**62) + 1, 2**62, (1 << 22,))
    answers, _ = run(lambda p, x: truncate(p, x.own, 18), z, log=False)
    error = opened(answers) - (z >> 18)
    counts = [(error == e).sum().item() for e in (0, 1)]
    assert sum(counts) == z.numel()
    assert min(counts) > z.numel() // 100


def test_comparison_of_eight_bits_is_right_for_every_value_and_many_shares():
    z = torch.arange(-127, 128).repeat(400)
    answers, _ = run(lambda p, x: convert.negative(p, x, 8), z)
    assert torch.equal(opened(answers), (z < 0).long())


@pytest.mark.parametrize(("k", "gates", "levels"), [(8, 16, 3), (32, 86, 5), (40, 109, 6), (64, 181, 6)])
def test_comparison_sends_what_its_gates_need(k, gates, levels):
    top = 2 ** (k - 1)
    z = torch.cat([torch.randint(1 - top, top, (N,)) if k < 64 else anything(N), torch.tensor([0, 1, -1, top - 1, 1 - top])])
    answers, parties = run(lambda p, x: sign(p, x, k), z)
    plane = answers[0].own ^ answers[1].own ^ answers[2].own
    assert torch.equal(bits.unpack(plane[0], z.numel()), (z < 0).char())
    width = bits.width(z.numel())
    assert counted(parties) == ([(gates + k) * width, (gates + k) * width, gates * width], 2 + levels)


def test_random_bits_are_alike_in_both_forms_and_cost_64_bits():
    count = 4000

    def work(party):
        made = convert.dabits(party, count)
        return made.bit, made.number

    answers, parties = run(work)
    plane = answers[0][0].own ^ answers[1][0].own ^ answers[2][0].own
    number = opened([a[1] for a in answers])
    assert torch.equal(bits.unpack(plane[0], count), number.char())
    assert 1800 < number.sum() < 2200
    assert [p.prepared.bytes for p in parties] == [8 * count] * 3
    assert max(p.prepared.rounds for p in parties) == 2
    assert counted(parties) == ([0] * 3, 0)


def test_a_bit_chooses_among_several_values():
    z, a, b = torch.randint(-(2**31) + 1, 2**31, (N,)), anything(N), anything(N)
    answers, parties = run(lambda p, x, y, w: convert.choose(p, x, [y, w]), z, a, b)
    for i, value in enumerate((a, b)):
        assert torch.equal(opened([x[i] for x in answers]), torch.where(z < 0, value, 0))
    width = bits.width(N)
    assert counted(parties)[0] == [(85 + 32 + 2) * width + 2 * 8 * N] * 2 + [(85 + 2) * width + 2 * 8 * N]
    assert counted(parties)[1] == 7


def test_bits_of_numbers_and_the_highest_of_them():
    z = torch.cat([anything(N), torch.tensor([0, 1, -1])])

    def work(party, x):
        found = decompose.decompose(party, x, 32)
        above = decompose.any_above(party, found)
        return convert.numbers(party, found, len(z)), convert.numbers(party, above, len(z)), reveal_bits(party, found)

    answers, _ = run(work, z)
    expected = torch.stack([(z >> j) & 1 for j in range(32)])
    assert torch.equal(opened([a[0] for a in answers]), expected)
    assert torch.equal(opened([a[1] for a in answers]), expected.flip(0).cummax(0)[0].flip(0))
    assert torch.equal(torch.stack([bits.unpack(p, len(z)) for p in answers[1][2]]), expected.char())


def test_each_party_enters_and_all_open():
    xs = [anything(4, 3) for _ in range(3)]

    def work(party):
        made = [enter(party, owner, xs[owner].to(party.device) if party.index == owner else None, (4, 3)) for owner in range(3)]
        return made, [reveal(party, m) for m in made]

    answers, _ = run(work)
    for owner in range(3):
        assert torch.equal(opened([a[0][owner] for a in answers]), xs[owner])
        assert all(torch.equal(a[1][owner], xs[owner]) for a in answers)


@pytest.mark.parametrize("shape", [(8,), (2, 4), (0, 3)])
def test_parts_for_somebody_outside_are_the_value_and_one_message_of_nothing(shape):
    x = EDGES.reshape(shape) if shape[0] else torch.empty(shape, dtype=torch.int64)
    answers, parties = run(lambda p, s: vouch.give(p, s).to_bytes(), x)
    assert torch.equal(vouch.joined(answers, shape, NAMES), x)
    assert {len(a) for a in answers} == {4 * 32 + 8 * x.numel()}
    assert counted(parties) == ([0] * 3, 0)


def test_two_parts_of_one_value_have_nothing_in_common():
    def work(party, x):
        first = vouch.give(party, x)
        party.turn(b"again")
        return first, vouch.give(party, x)

    for first, second in run(work, EDGES)[0]:
        assert not (first.masked == second.masked).any()
        assert not {*first[1:]} & {*second[1:]}


def test_holders_of_a_share_compare_a_hash_of_it():
    answers, parties = run(lambda p, x: input.agree(p, x)(), anything(500))
    assert answers == [None] * 3
    assert counted(parties) == ([2 * 32] * 3, 1)


@pytest.mark.parametrize("holder", range(3))
@pytest.mark.parametrize("field", ["own", "other"])
def test_holders_of_a_share_that_differ_are_named_by_both(holder, field):
    def work(party, x):
        if party.index == holder:
            x = x._replace(**{field: getattr(x, field) + (1 << 63)})
        try:
            input.agree(party, x)()
        except errors.PartnerError as error:
            return str(error)
        finally:
            party.close()

    said, both = run(work, anything(5))[0], {holder, holder - 1 if field == "own" else holder + 1}
    for index in {i % 3 for i in both}:
        assert "hold different copies of one share" in said[index]
        assert all(NAMES[i % 3] in said[index] for i in both)


def summed(xs, owners, fraction=18):
    def work(party):
        mine = [x.to(party.device) if owner == party.index else None for x, owner in zip(xs, owners, strict=True)]
        return aggregate.aggregate(party, owners, mine, xs[0].shape, fraction)

    return run(work)


@pytest.mark.parametrize("owners", [[0, 1, 2], [2, 2, 0, 2], [1]])
@pytest.mark.parametrize("shape", [(7, 1111), (3,), (), (0, 4), (2000,)])
def test_the_sum_of_what_parties_know_is_opened_and_costs_half_a_word_each(owners, shape, monkeypatch):
    monkeypatch.setattr(aggregate, "PIECE", 1000)
    xs = [torch.randn(shape, dtype=torch.float64) * 100 for _ in owners]
    answers, parties = summed(xs, owners)
    expected = sum((x * 2**18).round() for x in xs) / 2**18
    assert all(torch.equal(a, expected) for a in answers)
    n = expected.numel()
    assert counted(parties)[0] == [4 * n * (owners.count(i) + 1) for i in range(3)]


def test_sums_are_right_up_to_their_limit():
    most = torch.tensor([2**31 // 3, -(2**31 // 3)]).double() / 2**18
    answers, _ = summed([most] * 3, [0, 1, 1])
    assert torch.equal(answers[2], most * 3)
    wide = torch.tensor([2.0**30, -(2.0**29)], dtype=torch.float64)
    assert torch.equal(summed([wide], [2], 0)[0][1], wide)
    assert torch.equal(summed([torch.tensor([60_000.0]).half()], [2], 10)[0][1], torch.tensor([60_000.0]).half().double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 2731.0, -2731.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_sum_can_not_hold_is_refused_without_telling_it(bad, dtype):
    xs = [torch.zeros(5, dtype=dtype) for _ in range(3)]
    xs[1][3] = bad
    with pytest.raises(errors.UsageError, match="below 2730.67") as raised:
        summed(xs, [0, 1, 2])
    assert "2731" not in str(raised.value)
    assert "1e" not in str(raised.value)


@pytest.mark.parametrize(("piece", "known"), [(0, "and nothing was opened"), (30, "and what was opened before stays known")])
def test_a_sum_that_ends_early_says_whether_something_was_opened(piece, known, monkeypatch):
    monkeypatch.setattr(aggregate, "PIECE", 10)
    enter = aggregate._Sum.enter

    def entered(self, now):
        if (self.party.index, now) == (1, piece):
            raise RuntimeError("it dies")
        enter(self, now)

    monkeypatch.setattr(aggregate._Sum, "enter", entered)

    def work(party):
        try:
            return aggregate.aggregate(party, [1], [torch.ones(400) if party.index == 1 else None], (400,), 18)
        except (RuntimeError, errors.PartnerError) as error:
            return str(error)

    said = run(work)[0]
    assert said[1] == "it dies"
    assert known in said[2], said  # it waits for what bob enters before it sends a share of the sum


def test_an_input_of_another_shape_or_kind_is_refused_before_anything_is_sent():
    with pytest.raises(ValueError, match="in the shape that all know"):
        summed([torch.zeros(3), torch.zeros(4)], [0, 1])
    with pytest.raises(errors.UsageError, match="real"):
        summed([torch.zeros(3, dtype=torch.complex64)], [0])


def test_nothing_of_nothing_is_nothing():
    answers, _ = run(lambda p, x: convert.choose(p, truncate(p, x.own, 18), [x])[0], torch.empty(0, dtype=torch.int64))
    assert opened(answers).shape == (0,)


@pytest.mark.parametrize(("bad", "said"), [
    (torch.tensor([1.0, float("nan")]), "NaN"), (torch.tensor([float("-inf")]), "inf"), (torch.tensor([4096.0]), "below 4096"),
    (torch.tensor([1e30]), "below 4096"), (torch.tensor([1j]), "real")])  # fmt: skip
def test_what_shares_can_not_hold_is_refused_without_telling_it(bad, said):
    with pytest.raises(errors.UsageError, match=said) as raised:
        sharing.encode(bad)
    assert "1e" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.bool])
def test_numbers_of_all_kinds_come_back(dtype):
    x = torch.tensor([0.5, -3.0, 1.0]).to(dtype)
    assert torch.equal(sharing.decode(sharing.join(sharing.split(sharing.encode(x)))), x.double())
