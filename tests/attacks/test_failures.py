"""Failure tells nothing: no refusal, message, price, debit or lost value depends on a private value."""

import json
import signal

import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_flatten, tree_unflatten

import syft_lab as lab
from syft_lab import errors, ops
from syft_lab.kernel.executor import each, runner, total
from syft_lab.kernel.executor.runner import Quota
from syft_lab.labels import Label, rows
from syft_lab.plans import EACH, Body, Node, Plan, Ref
from syft_lab.record import Recorded
from tests.attacks import failing
from tests.attacks.apart import told
from tests.tensors import LocalTape

pytest.importorskip("expecttest", reason="torch's samples need expecttest (the extra `test`)")
aten = torch.ops.aten
PRIVATE = Label("private", ("d v1",))


@pytest.mark.slow
def test_no_operation_that_keeps_rows_fails_or_ends_the_process_on_any_value():
    found, last = told("failing")
    assert found == []
    assert last["overloads"] > 450 and last["kept"] > 15_000


def test_a_planted_fault_torch_is_trusted_to_have_a_result_is_caught():
    found, _ = told("failing", "--identity", "div", "embedding", "floor_divide", "lcm", "add")
    assert {line["op"].split(".")[1] for line in found} == {"div", "embedding", "floor_divide", "lcm"}
    assert ["died", int(signal.SIGFPE)] in [line["found"][0] for line in found]


# Two neighbours: torch fails on one of them


def observed(func, leaves, form, place, value, keep):
    """All that an analyst can learn of a program with one private value, whatever became of it."""
    torch.manual_seed(0)
    tape = LocalTape(Quota(memory=64 << 20))
    tape.keep = keep
    held = [tape.send(torch.zeros(1 << 20)) for _ in range(3)]
    given = [
        tape.asset(value.contiguous(), PRIVATE)
        if i == place
        else tape.send(leaf.contiguous())
        if isinstance(leaf, torch.Tensor)
        else leaf
        for i, leaf in enumerate(leaves)
    ]
    args, kwargs = tree_unflatten(given, form)
    before = held[0] * 2  # what comes again may be found, or computed anew
    tape.flush()
    try:
        outs = [t for t in tree_flatten(func(*args, **kwargs))[0] if isinstance(t, Recorded)]
    except (errors.LabError, RuntimeError, IndexError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    again = held[0] * 2
    told = [str(tape.flush())]
    later = [out * 1 if out.dtype is not torch.bool else out.logical_not() for out in outs] + [
        torch.zeros_like(out) for out in outs
    ]
    told.append(str(tape.flush()))
    for t in (*outs, *later, before, again):
        number = t.current.number
        about = tape.runner.describe(number)
        told.append(str([about[k] for k in ("shape", "dtype", "label", "digest", "text")]))
        for leave in (
            lambda n=number: bytes(tape.runner.fetch(n, 0, 1 << 20)),
            lambda n=number: tape.runner.aggregate(n)["label"],
        ):
            try:
                told.append(str(leave()))
            except errors.LabError as error:
                told.append(f"{type(error).__name__}: {error}")
    large = torch.zeros_like(held[0]).expand(100, 1 << 20) * 1
    told.append(str(tape.flush()))
    return [*told, str(tape.runner.stats()), large.shape]


def check_one_record(calls, found):
    """No operation of one record fails on a value, which would cost the others time."""
    refused, ran, wrong = [], 0, []
    for name, (i, j, k, _) in found.items():
        if ops.is_random(name):
            continue
        func, leaves, form, place, wild = failing.at(calls, name, i, j, k)
        at = sum(isinstance(leaf, torch.Tensor) for leaf in leaves[:place])
        lost, held = failing.each_of(func, *tree_unflatten(leaves, form), (at, wild))
        if lost:
            refused.append(ops.packet(name))
            continue
        ran += 1
        if any(h.why for h in held):
            wrong.append((name, [h.why for h in held]))
        counted = not total.is_made(name, {}) and ops.packet(name) not in (*total.INFO, *total._DIVISIONS)
        if counted and held[0].filled != 1:
            wrong.append((name, held[0].filled))
    assert wrong == []
    assert ran > 20 and "gather" not in refused, refused


@pytest.mark.slow
def test_no_operation_of_one_record_changes_a_bit_of_the_others():
    found, last = told("failing", "--apart")
    assert found == []
    assert len(last["ran"]) > 400 and {"index_fill", "embedding_dense_backward", "gather", "index_put"} <= {*last["ran"]}


def test_a_planted_fault_places_as_torch_has_them_under_vmap_is_caught():
    found, _ = told("failing", "--apart", "--unguarded", "index_fill", "embedding_dense_backward", "add")
    assert {line["op"].split(".")[1] for line in found} == {"index_fill", "embedding_dense_backward"}


@pytest.mark.slow
def test_whether_an_operation_failed_on_private_values_shows_in_nothing(monkeypatch):
    calls, found = failing.candidates(), told("failing", "--values")[1]
    names = {ops.packet(name) for name in found}
    print(f"{len(names)} operations fail on values: {' '.join(sorted(names))}")
    assert {
        "embedding",
        "index_select",
        "gather",
        "floor_divide",
        "remainder",
        "fmod",
        "div",
        "nll_loss_forward",
        "scatter",
    } <= names
    compared, apart = 0, []
    for name, (i, j, k, words) in found.items():
        func, leaves, form, place, wild = failing.at(calls, name, i, j, k)
        if words == "it ends the process" and not total.is_made(name, {}) and ops.packet(name) not in ("lcm", "div"):
            continue  # refused before it runs, if it can be: below
        for keep in (False, True):
            one, two = (observed(func, leaves, form, place, value, keep) for value in (leaves[place], wild))
            compared += isinstance(one, list)
            if one != two:
                apart.append((name, words, next(((a, b) for a, b in zip(one, two, strict=False) if a != b), (one, two))))
    assert apart == []
    assert compared > 2 * 20

    def apart(*args):
        raise AssertionError("records were asked one by one")

    monkeypatch.setattr(each, "_apart", apart)
    check_one_record(calls, found)


def test_results_of_each_record_have_memory_of_their_own():
    tape = LocalTape()
    x = tape.asset(torch.rand(5, 4), rows("d v1", 1))
    number, other = tape.new().number, tape.new().number
    body = Plan(1, (Node("aten.view.default", (Ref(0), [2, 2]), {}, (1,)),), (0, 1))
    plan = Plan(1, (Node(EACH, (Body(body), [0], [Ref(0)]), {}, (1, 2)),), (1, 2))
    tape.run(plan, [x.current.number], [number, other])
    places = {tape.runner.space.held[n].tensor.untyped_storage().data_ptr() for n in (x.current.number, number, other)}
    assert len(places) == 3


def test_what_ends_the_process_is_refused_or_made_whole():
    tape = LocalTape()
    big = tape.asset(torch.tensor([-(2**63), 3, 7]), rows("d v1", 1))
    assert tape.held(torch.lcm(big, tape.send(torch.tensor(7)))).tensor.tolist()[1:] == [21, 7]
    assert tape.held(torch.div(big, -1, rounding_mode="trunc")).tensor.tolist() == [-(2**63), -3, -7]
    assert tape.held(
        aten.avg_pool2d(big.reshape(3, 1, 1, 1), [1, 1], [1, 1], [0, 0], False, True, -1)
    ).tensor.flatten().tolist()[1:] == [-3, -7]
    number = tape.new().number
    plan = Plan.of([Node("aten.smooth_l1_loss_backward.default", (Ref(0), Ref(0), Ref(0), 1, 0.5), {}, (1,))], [0], [1])
    assert "no gradient" in tape.run(plan, [big.current.number], [number])["lost"]


EDGES = [[1.7e308, 1e-42, -1.7e308, 1e-42], [1.7e308, 1e-42, -1.7e308, 1e-42], [1.7e308, 1e-42, 1e-42, 1e-42], [1.7e308, 1e-42, -1.7e308, 1e-42]]  # fmt: skip


def eigenvalues(tape, times):
    """So often, of a matrix on which LAPACK's code writes beyond its memory, and of another."""
    x = tape.asset(torch.tensor([EDGES, torch.eye(4).tolist()], dtype=torch.float64), rows("d v1", 1))
    return [tape.held(torch.linalg.eig(x * ((i % 3 + 1) / 3))[0]).tensor for i in range(times)]


def test_eigenvalues_of_extreme_matrices_do_not_end_the_process():
    for found in eigenvalues(LocalTape(), 150):
        assert found[1].isfinite().all()
    exact = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 1e-200, 1e200):
        tape = LocalTape()
        found = tape.held(torch.linalg.eig(tape.asset(exact * scale, rows("d v1", 1)))[0]).tensor
        assert torch.allclose(found / scale, torch.linalg.eig(exact)[0], rtol=1e-12)
    tape = LocalTape()
    found = tape.held(torch.linalg.eig(tape.asset(exact, rows("d v1", 1)))[0]).tensor
    assert torch.equal(found, torch.linalg.eig(exact)[0])  # to the bit, where nothing is extreme


def test_ways_to_compute_that_torch_has_no_code_for_are_refused():
    tape = LocalTape()
    x = tape.asset(torch.rand(4, 3), rows("d v1", 1))
    for way in (-1, 3, 9):
        number = tape.new().number
        plan = Plan.of([Node("aten.mse_loss.default", (Ref(0), Ref(0), way), {}, (1,))], [0], [1])
        assert "reduction 0 to 2" in tape.run(plan, [x.current.number], [number])["lost"]


def test_zeta_functions_do_not_count_for_ever():
    tape = LocalTape()
    x = tape.asset(torch.tensor([-(2.0**51) - 0.5, 2.0]).double(), rows("d v1", 1))
    found = tape.held(torch.special.zeta(torch.tensor(3.0).double(), x)).tensor
    assert found[0].isnan() and found[1] == torch.special.zeta(torch.tensor(3.0).double(), torch.tensor(2.0).double())
    assert tape.held(torch.special.polygamma(2, x)).tensor[0].isnan()


def test_whole_numbers_are_divided_as_torch_does_where_it_can():
    a, b = torch.tensor([7, -7, 2**31 - 1, -128, 0, 5]), torch.tensor([2, -3, -5, 7, 3, -4])
    for dtype in (torch.int64, torch.int32, torch.int8):
        for call in (
            torch.floor_divide,
            torch.remainder,
            torch.fmod,
            torch.lcm,
            lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        ):
            tape = LocalTape()
            found = tape.held(call(tape.asset(a.to(dtype), rows("d v1", 1)), tape.asset(b.to(dtype), rows("d v1", 1))))
            assert torch.equal(found.tensor, call(a.to(dtype), b.to(dtype))) and found.filled == 0


def test_a_public_result_inherits_nothing_of_a_lost_private_value():
    tape = LocalTape()
    lost = torch.arange(5.0).index_select(0, tape.asset(torch.tensor([9, 0]), rows("d v1", 1)))
    zeros = torch.zeros_like(lost) + 1
    assert tape.held(lost).why
    assert tape.held(zeros).why == "" and tape.held(zeros).spec.label.kind == "public"
    assert torch.frombuffer(bytearray(tape.runner.fetch(zeros.current.number, 0, 8)), dtype=torch.float32).tolist() == [1, 1]


# What is public is told


@pytest.mark.parametrize("far", [False, True])
def test_reasons_of_types_and_of_public_values_are_told_and_are_the_same_for_both(far):
    tape = LocalTape()
    x = tape.asset(torch.tensor([[9, 3], [0, 1]]) if far else torch.tensor([[1, 2], [0, 1]]), rows("d v1", 1))
    told = []
    for call in (
        lambda: x.bool() @ torch.ones(2, 2, dtype=torch.bool),
        lambda: x.index_select(1, tape.send(torch.tensor([7]))),
        lambda: x // tape.send(torch.tensor([0, 1])),
    ):
        kept = call()
        told.append((tape.flush()["lost"], kept.shape))
    assert [words for words, _ in told] == [
        "aten.mm.default failed: \"addmm_impl_cpu_\" not implemented for 'Bool'",
        "aten.index_select.default failed: INDICES element is out of DATA bounds, id=7 axis_dim=2",
        "aten.floor_divide.default failed: ZeroDivisionError",
    ]


def test_a_failure_on_computed_public_values_is_told_once_what_they_rest_on_was_tried():
    tape = LocalTape()
    x, table = tape.send(torch.tensor([3.0, 1.0])), tape.send(torch.ones(4))
    places = (x.sort().values * 9).long()
    found = table.gather(0, places)
    later = found + 1
    assert tape.flush()["lost"] == ""  # whether it failed is of values that are only thought to be public
    for lost in (found, later):
        with pytest.raises(errors.FailedError, match="index 9 is out of bounds"):
            tape.runner.fetch(lost.current.number, 0, 8)
    again = tape.send(torch.zeros(3)).gather(0, places)
    assert again.shape == (2,)
    assert "index 9 is out of bounds" in tape.flush()["lost"]


# With a real owner and a session


@pytest.fixture
def neighbours():
    """Two owners who differ in one record."""
    made = lab.virtual_owners("hospital", "other")
    data = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    for owner, top in zip(made, (0.4, 0.9), strict=True):
        data[0, 0] = top
        owner.publish(data.clone(), "scans", bounds=(0, 1))
    yield made
    for owner in made:
        owner.close()


ASKED = {
    "looked up": lambda x, h: F.embedding((x[:, 0] > 0.6).long() * 9, torch.zeros(2, 1)).clamp(0, 1).sum(0).release(epsilon=0.5).value.shape,
    "divided": lambda x, h: (torch.ones(30, dtype=torch.int32) // (x[:, 0] <= 0.6).int()).clamp(0, 1).sum(0).release(epsilon=0.5).value.shape,
    "chosen": lambda x, h: torch.ones(4).gather(0, (x[:, 0] * 6).long()).get(),
    "chosen, and noise": lambda x, h: torch.ones(4).gather(0, (x[:, 0] * 6).long()).release(epsilon=0.5).value,
    "shape of what was chosen": lambda x, h: torch.zeros_like(torch.ones(4).gather(0, (x[:, 0] * 6).long())).get().sum(),
    "asked for": lambda x, h: torch.ones(4).gather(0, (x[:, 0] * 6).long()).request(reason="a study") and [r.state for r in h.requests],
    "least by -1": lambda x, h: torch.div(torch.where(x > 0.6, -(2**63), 1), -1, rounding_mode="trunc").clamp(0, 1).sum(0).release(epsilon=0.5).value.shape,
    "loss": lambda x, h: F.binary_cross_entropy(x * 1.5, torch.ones(30, 3)).get(),
    "each that fails on 0 and 1": lambda x, h: torch.zeros_like(lab.each(lambda r: torch.ones(9).gather(0, torch.where((r.amax() > 0.6) | (r == 0).all() | (r == 1).all(), 99, 5).reshape(1)))(x)).get(),
    "each with others' memory": lambda x, h: torch.zeros_like(lab.each(lambda r: (r, torch.ones(9).gather(0, (r * 12).long())))(x)[0]).get(),
    "each": lambda x, h: lab.each(lambda r: torch.ones(4).gather(0, (r * 6).long()))(x).clamp(0, 1).mean(0).release(epsilon=0.5).value.shape,
}  # fmt: skip


def test_neighbours_are_answered_alike_in_words_prices_and_budgets(neighbours):
    answers = []
    for owner in neighbours:
        told = []
        for name, ask in ASKED.items():
            try:
                said = str(ask(owner["scans"], owner))
            except errors.LabError as error:
                said = f"{type(error).__name__}: {error}"
            told.append((name, said, str(owner.budget).partition(": ")[2]))
        answers.append(json.loads(json.dumps(told).replace("other", "hospital")))
    for one, two in zip(*answers, strict=True):
        assert one == two


def test_bisection_by_failures_finds_no_maximum(neighbours):
    def above(t):
        x = neighbours[1]["scans"]
        try:
            F.embedding((x[:, 0] > t).long() * 9, torch.zeros(2, 1)).clamp(0, 1).sum(0).release(epsilon=1e-6).value  # noqa: B018
        except errors.LabError:
            return True
        return False

    assert [above(t) for t in (0.0, 0.5, 0.89, 0.91, 1.0)] == [False] * 5


def test_a_planted_fault_a_failure_that_is_told_is_caught(monkeypatch):
    def told(spec, device):
        raise errors.FailedError("it failed")

    monkeypatch.setattr(runner, "_nothing", told)
    call = (aten.gather.default, *tree_flatten(([torch.ones(4), 0, torch.tensor([1, 2])], {})), 2)
    func, leaves, form, place = call
    assert observed(func, leaves, form, place, leaves[place], False) != observed(
        func, leaves, form, place, torch.tensor([9, 2]), False
    )


def test_a_planted_fault_lost_values_that_take_no_memory_is_caught(monkeypatch):
    monkeypatch.setattr(runner, "_nothing", lambda spec, device: torch.zeros(()).expand(spec.shape))
    monkeypatch.setattr(runner.Runner, "_fitted", staticmethod(lambda kind, tensor, spec: tensor))
    index = torch.zeros(1 << 20, dtype=torch.int64)
    func, leaves, form, place = (aten.gather.default, *tree_flatten(([torch.ones(4), 0, index], {})), 2)
    assert observed(func, leaves, form, place, index, False) != observed(func, leaves, form, place, index + 9, False)
