"""One record's program, for each record: rows by construction, whatever it is made of."""

import pytest
import torch
import torch.nn.functional as F

import syft_lab as lab
from syft_lab.errors import OtherOwnerError, RefusedOpError, UsageError, WireError
from syft_lab.kernel.executor import trial
from syft_lab.labels import Label
from syft_lab.plans import EACH, Body, Node, Plan, Ref, parse
from tests.tensors import LocalTape

N = 20
DATA = torch.rand(N, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def owner():
    (session,) = lab.virtual_owners("hospital")
    session.publish(DATA, "scans", bounds=(0, 1))
    yield session
    session.close()


PROGRAMS = {
    "largest singular value": lambda r: torch.linalg.svdvals(r)[0],
    "sorted": lambda r: r.sort(0).values,
    "median and rank": lambda r: r.median() + r.argmax(),
    "turned over": lambda r: r.flip(0),
    "cumulated": lambda r: r.cumsum(1),
    "batch norm over its own entries": lambda r: F.batch_norm(r, None, None, training=True),
    "looked up": lambda r: torch.ones(3)[(r[0, :1] * 6).long()],
    "gradient": lambda r: torch.func.grad(lambda v: (r @ v).square().sum())(torch.ones(4)),
    "written in place": lambda r: r.clone().mul_(2).add_(1),
    "inverse": lambda r: torch.linalg.inv(r + torch.eye(4)),
    "convolved with itself": lambda r: F.conv1d(r[None], r[:1, None, :2].expand(1, 4, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_one_record_gives_rows_whatever_it_is_made_of(name, owner):
    y = lab.each(PROGRAMS[name])(owner["scans"])
    assert (y.label.kind, y.label.axis, y.label.k) == ("rows", 0, 1)
    total = y.double().clamp(0, 1).sum()
    expected = torch.func.vmap(PROGRAMS[name])(DATA) if name != "looked up" else (DATA[:, 0, :1] * 6).long().lt(3)
    noisy = total.release(epsilon=5.0)
    assert abs(noisy.value - expected.double().nan_to_num(0).clamp(0, 1).sum()) < 40 * y[0].numel()
    assert "syft.each.default" in noisy.receipt.details["plan"]["text"]


def test_what_is_met_or_not_mapped_is_the_same_for_all(owner):
    weight = lab.send(WEIGHT, owner)
    y = lab.each(lambda r, t: {"a": r @ weight, "b": (r + t, 3)}, in_dims=(0, None))(owner["scans"], torch.ones(4))
    assert y["a"].shape == (N, 4, 4) and y["b"][0].label.kind == "rows" and y["b"][1] == 3
    public = lab.each(lambda r: (r * WEIGHT).sort().values)(lab.send(DATA, owner))
    assert torch.equal(public.get(), (DATA * WEIGHT).sort().values)
    both = lab.each(lambda r, s: r * s)(owner["scans"], torch.ones(N))
    assert both.label.kind == "rows"


def test_private_values_that_are_not_mapped_or_have_no_records_make_private_results(owner):
    x = owner["scans"]
    assert lab.each(lambda r, whole: r * whole.sum(), in_dims=(0, None))(x, x).label.kind == "private"
    assert lab.each(lambda r: r * x.mean())(lab.send(DATA, owner)).label.kind == "private"
    assert lab.each(lambda r: r + 1)(x.sort(0).values).label.kind == "private"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: lab.each(torch.rand_like)(x), RefusedOpError, "random"),
        (lambda x: lab.each(lambda r: r + 1)(torch.ones(3)), UsageError, "pointers"),
        (lambda x: lab.each(lambda r, s: r * s)(x, torch.ones(3)), UsageError, "same number of records"),
        (lambda x: lab.each(lambda r: torch.ones(3))(x), UsageError, "does not depend on a record"),
        (lambda x: lab.each(lambda r: r + 1)(x.movedim(0, 1)), UsageError, "first axis"),
        (lambda x: lab.each(lambda r: r if r.sum() > 0 else -r)(x), lab.errors.PrivateValueError, "neither true nor false"),
        (lambda x: lab.each(lambda r: r + 1, in_dims=1)(x), UsageError, "in_dims"),
    ],
)
def test_what_cannot_be_done_for_each_record_is_refused_in_words(call, error, words, owner):
    with pytest.raises(error, match=words):
        call(owner["scans"])


def test_two_owners_in_one_program_are_refused(owner):
    (other,) = lab.virtual_owners("other")
    try:
        there = lab.send(WEIGHT, other)
        with pytest.raises(OtherOwnerError, match=r"hospital.*other"):
            lab.each(lambda r: r @ there)(owner["scans"])
    finally:
        other.close()


# At the owner, whatever the analyst's side thought


def node(body, places=(0,), refs=(0,), outs=(1,)):
    return Plan(len(refs), (Node(EACH, (Body(body), list(places), [Ref(r) for r in refs]), {}, outs),), outs)


def ran(plan, tensor=DATA, label=None):
    tape = LocalTape()
    x = tape.asset(tensor, label or Label("rows", ("d v1",), 0, 1, (0.0, 1.0)))
    number = tape.new().number
    why = tape.run(plan, [x.current.number], [number])["lost"]
    return tape, tape.runner.space.held[number], why


SORT = Plan(1, (Node("aten.sort.default", (Ref(0), 0), {}, (1, 2)),), (1,))


def test_the_owner_knows_the_label_itself_and_the_wall_tries_it():
    tape, held, why = ran(node(SORT))
    assert why == "" and held.spec.label.kind == "rows"
    assert torch.equal(held.tensor, DATA.sort(1).values)
    (claim,) = (kind.claim for kind in held.behind)
    assert trial.tried(claim) == ""
    assert parse(node(SORT).canonical) == node(SORT)
    assert "$1, $2 = aten.sort.default($0, 0); return $1" in tape.runner.describe(1 + len(held.behind))["text"]


def test_records_on_which_a_program_fails_are_not_a_number_and_the_others_keep_every_bit():
    body = Plan(2, (Node("aten.index_select.default", (Ref(1), 0, Ref(0)), {}, (2,)),), (2,))
    tape = LocalTape()
    index = torch.zeros(N, 1, dtype=torch.int64)
    index[7] = 9
    x, table = tape.asset(index, Label("rows", ("d v1",), 0, 1)), tape.send(torch.rand(3))
    number = tape.new().number
    plan = Plan(2, (Node(EACH, (Body(body), [0, -1], [Ref(0), Ref(1)]), {}, (2,)),), (2,))
    assert tape.run(plan, [x.current.number, table.current.number], [number])["lost"] == ""
    held = tape.runner.space.held[number]
    assert held.spec.label.kind == "rows" and held.why == "" and held.filled == 1
    assert held.tensor.isnan().reshape(N, -1).all(1).nonzero().flatten().tolist() == [7]
    good = torch.arange(N) != 7
    assert torch.equal(held.tensor[good], tape.get(table)[0].expand(N - 1, 1))


@pytest.mark.parametrize(
    "plan",
    [
        Plan(1, (Node(EACH, (Ref(0),), {}, (1,)),), (1,)),
        Plan(1, (Node(EACH, (Body(SORT), [0], []), {}, (1,)),), (1,)),
        node(SORT, (0, 0)), node(SORT, (-1,)), node(SORT, (1,)), node(SORT, (True,)),
        Plan(1, (Node(EACH, (Body(SORT), [0], [Ref(0)]), {"other": 1}, (1,)),), (1,)),
    ],
)  # fmt: skip
def test_a_malformed_program_is_refused(plan):
    _, held, why = ran(plan)
    assert why and held.tensor is None


def test_a_program_within_a_program_does_not_travel():
    inner = Plan(1, (Node(EACH, (Body(SORT), [0], [Ref(0)]), {}, (1,)),), (1,))
    with pytest.raises(WireError):
        parse(node(inner).canonical)


def test_what_is_mapped_twice_stays_apart_in_any_layout():
    _, held, why = ran(node(SORT), DATA.transpose(1, 2))
    assert why == "" and torch.equal(held.tensor, DATA.transpose(1, 2).sort(1).values)
    _, held, why = ran(node(SORT), DATA, Label("rows", ("d v1",), 1, 1))
    assert held.spec.label.kind == "private"


def test_what_each_gives_can_be_asked_for(owner):
    made = lab.each(lambda r: r.sort(0).values)(owner["scans"])
    result = made.request(reason="a study of ranges")
    (request,) = [r for r in owner.host.requests if r.state == "filed"]
    assert "aten.sort.default($0" in request.code
    request.approve(digest=request.digest)
    request.wait()
    request.release()
    assert torch.equal(result.get(30), DATA.sort(1).values)


@pytest.mark.parametrize("place", [-1, -2, 5])
def test_a_place_before_the_first_is_not_the_neighbours_last(owner, place):
    """Under vmap torch lays records end to end: -1 in one record was the last place of the record before it."""
    places = torch.zeros(8, 2, dtype=torch.long)
    places[3, 0] = place
    owner.publish(places, f"places{place}".replace("-", "m"), bounds=(-2, 5), distinct=True, budget=lab.Budget(100.0))
    x = owner[f"places{place}".replace("-", "m")]
    look = torch.zeros(8)
    look[2] = 1  # at the record before it alone
    for body in (
        lambda r: torch.func.grad(lambda t: F.embedding(r, t).sum())(torch.zeros(5, 1))[4, 0],
        lambda r: torch.zeros(5).index_fill(0, r, 1.0)[4],
    ):
        told = (lab.each(body)(x) * look).clamp(0, 1).sum().release(epsilon=40.0).value
        assert abs(float(told)) < 0.3
