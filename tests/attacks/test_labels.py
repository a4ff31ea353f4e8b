"""Labels of tensors under attack: random programs on neighbours, chains that try to lose a label, and planted unsound rules."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syft_lab import labels, ops, record
from syft_lab.errors import FailedError, LabError, PrivateValueError
from syft_lab.kernel.executor import grid
from syft_lab.labels import Label, rows
from tests.tensors import LocalTape

N, D, K = 7, 3, 2
ODD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3.4e38, -3.4e38, math.nan, math.inf, -math.inf, 1e16, 7.0])
VALUES = st.one_of(ODD, st.floats(-10, 10, width=32))
STEPS = {
    "relu": lambda x, _: x.relu(), "scale": lambda x, c: x * c, "shift": lambda x, c: x + c, "minus": lambda x, c: x - c, "neg": lambda x, _: -x,
    "clamp": lambda x, c: x.clamp(min(c, 1.0), max(c, 1.0)), "sigmoid": lambda x, _: x.sigmoid(), "tanh": lambda x, _: x.tanh(),
    "square": lambda x, _: x.square(), "abs": lambda x, _: x.abs(), "above": lambda x, c: x > c, "double": lambda x, _: x.double(),
    "columns": lambda x, _: x[..., :2], "column": lambda x, _: x[..., 0], "records": lambda x, _: x[1:], "before": lambda x, _: x[:-1],
    "flip": lambda x, _: x.flip(0), "t": lambda x, _: x.t() if x.dim() == 2 else x, "twice": lambda x, _: x + x, "product": lambda x, _: x * x,
    "softmax": lambda x, _: x.float().softmax(-1), "flat": lambda x, _: x.reshape(-1), "wide": lambda x, _: x.unsqueeze(-1), "narrow": lambda x, _: x.squeeze(-1),
    "mix": lambda x, _: x[1:] + x[:-1] if x.dim() and len(x) > 2 else x, "expand": lambda x, _: x.unsqueeze(0).expand(2, *x.shape), "rolled": lambda x, _: x + x.roll(1, 0) if x.dim() else x,
    "weights": lambda x, _: x.float() @ torch.ones(x.shape[-1], 2) if x.dim() == 2 else x, "sum last": lambda x, _: x.sum(-1) if x.dim() > 1 else x,
    "where": lambda x, c: torch.where(x > c, x, -x), "side": lambda x, _: torch.cat([x, x], -1) if x.dim() > 1 else x, "int": lambda x, _: x.clamp(-5, 5).nan_to_num().int(),
    "bits": lambda x, _: x.float().view(torch.int32), "half": lambda x, c: x / 2, "spread": lambda x, _: x.amax(-1) if x.dim() > 1 else x,
}  # fmt: skip
ENDS = {
    "sum": lambda x: x.sum(), "sum 0": lambda x: x.sum(0), "mean": lambda x: x.mean(), "mean 0": lambda x: x.mean(0), "sum keep": lambda x: x.sum(0, keepdim=True),
    "sum 1": lambda x: x.sum(1), "sum scaled": lambda x: (x.sum(0) * -3 + 2) / 7, "part": lambda x: x.sum(0)[..., :1],
    "bits": lambda x: x.sum(0).view(torch.int32), "long bits": lambda x: x.double().sum(0).view(torch.int32), "mean both": lambda x: x.mean((0, 1)),
}  # fmt: skip
STEP = st.tuples(st.sampled_from(sorted(STEPS)), st.floats(-4, 4, width=16))
BOUND = st.tuples(st.sampled_from(["clamp", "sigmoid", "above", "tanh", "relu"]), st.floats(-4, 4, width=16))
PROGRAM = st.tuples(st.builds(lambda steps, last, after: [*steps, last, *after], st.lists(STEP, max_size=4), BOUND, st.lists(STEP, max_size=2)),
                    st.sampled_from(sorted(ENDS)))  # fmt: skip
DATA = st.lists(st.lists(VALUES, min_size=D, max_size=D), min_size=N, max_size=N)


def outcome(program, data):
    """What a program makes of records: its label, and where it is an aggregate its integers and what the owner adds noise to."""
    steps, end = program
    tape = LocalTape()
    tape.keep = len(str(program)) % 2 == 0  # as a plan that comes once, or again
    x = tape.asset(torch.tensor(data, dtype=torch.float32), rows("d v1", K))
    try:
        for name, c in steps:
            x = STEPS[name](x, c)
        x = ENDS[end](x)
    except (RuntimeError, IndexError, LabError):
        return None
    if x._spec.label.kind != "aggregate":
        return x._spec.label.kind
    held = tape.held(x)
    if held.tensor is None:
        return "lost"
    found = tape.runner.aggregate(x.current.number)
    return x._spec.label, found


def distance(program, data, other):
    """How far apart two neighbours end, against what their label allows; None where it is no aggregate."""
    one, two = outcome(program, data), outcome(program, other)
    assert (type(one), one if isinstance(one, str) else None) == (
        type(two),
        two if isinstance(two, str) else None,
    )  # a label never tells
    if not isinstance(one, tuple):
        return None
    (label, a), (same, b) = one, two
    assert label == same
    assert (a["step"], a["offset"], a["l1"], a["l2"], a["shape"]) == (b["step"], b["offset"], b["l1"], b["l2"], b["shape"])
    gaps = [abs(p - q) for p, q in zip(a["ints"], b["ints"], strict=True)]
    in_units = abs(a["step"])
    assert sum(gaps) * in_units <= label.l1 * (1 + 1e-9)
    return sum(gaps) <= a["l1"] and math.sqrt(sum(g * g for g in gaps)) <= a["l2"] * (1 + 1e-12)


def neighbour(data, places, new):
    return [new[places.index(i)] if i in places else row for i, row in enumerate(data)]


@settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None)
@given(PROGRAM, DATA, st.permutations(range(N)), st.lists(st.lists(VALUES, min_size=D, max_size=D), min_size=K, max_size=K))
def test_neighbours_never_differ_by_more_than_the_label(program, data, order, new):
    assert distance(program, data, neighbour(data, order[:K], new)) in (True, None)


def worst(program):
    """Whether extreme neighbours of a program are further apart than its label allows."""
    for low, high in ((0.0, 1.0), (-1e30, 1e30), (0.0, math.nan), (math.nan, 1.0), (math.nan, math.inf), (-math.inf, math.inf)):
        data = [[low] * D for _ in range(N)]
        for places in ([3], [0, 1], [2, 5]):
            try:
                if distance(program, data, neighbour(data, places, [[high] * D] * 2)) is False:
                    return True
            except AssertionError:
                return True
    return False


def forget():
    record._CACHE.clear()


def test_a_planted_rule_that_lets_slices_keep_records_is_caught(monkeypatch):
    assert outcome(([("clamp", 0.0), ("mix", 0.0)], "sum 0"), [[0.0] * D] * N) == "private"
    forget()

    def slices(step):
        x = step.first
        return x.label if x.label.kind == "rows" else None

    def summed(step):
        label = labels._pointwise(step)
        return None if label is None else labels.replace(label, bounds=(0.0, 1.0))

    monkeypatch.setitem(labels._RULES, "slice", slices)
    monkeypatch.setitem(labels._RULES, "add", summed)
    x = LocalTape().asset(torch.zeros(N, 1), rows("d v1", 1)).clamp(0, 1)
    assert (x[1:] + x[:-1]).sum(0)._spec.label.kind == "private"  # for the number of records changed, whatever the rule says
    forget()
    monkeypatch.setattr(labels, "_judged", lambda rule, step: rule(step))
    try:
        # x[1:] + x[:-1]: each record is in two sums, and the label counts it once
        a, b = torch.zeros(N, 1), torch.zeros(N, 1)
        b[3] = 1.0
        found = []
        for data in (a, b):
            tape = LocalTape()
            x = tape.asset(data, rows("d v1", 1)).clamp(0, 1)
            y = (x[1:] + x[:-1]).sum(0)
            assert y._spec.label.kind == "aggregate"
            tape.held(y)
            with pytest.raises(PrivateValueError, match=r"aten\.slice.*other records"):  # the second wall
                tape.runner.aggregate(y.current.number)
            tape.runner.tried(tape.runner.owed(y.current.number))
            found.append(tape.runner.aggregate(y.current.number))
        assert sum(abs(p - q) for p, q in zip(found[0]["ints"], found[1]["ints"], strict=True)) > found[0]["l1"]
    finally:
        forget()


def test_a_planted_clamp_that_lets_nan_through_is_caught(monkeypatch):
    program = ([("clamp", 0.0)], "sum 0")
    assert not worst(program)
    real = grid.summed

    def careless(x, bounds, dims, axis, k, mean, keepdim):
        found = real(x, bounds, dims, axis, k, mean, keepdim)
        low, width = bounds[0], bounds[1] - bounds[0]
        ints = torch.round((x.to(torch.float64) - low) * (grid.STEPS / width)).to(torch.int64).sum(dims, keepdim=keepdim)
        return grid.Grid(ints, found.step, found.offset, found.l1, found.l2)

    monkeypatch.setattr(grid, "summed", careless)
    assert worst(program)


CHAINS = [
    lambda x: (x * 0), lambda x: torch.zeros_like(x) + x, lambda x: x.new_zeros(3, 3).copy_(x[:3, :3] if x.shape[1] >= 3 else x[:3]), lambda x: x.detach(),
    lambda x: x.clone().fill_(0) + x, lambda x: x.sum() * 0, lambda x: torch.where(x > 0, 1.0, 0.0), lambda x: torch.ones(4)[x[:, 0].long().clamp(0, 3)],
    lambda x: torch.full_like(x, 1).scatter(1, x.long().clamp(0, 2), 0.0), lambda x: torch.arange(5.0).index_select(0, x[:, 0].long().clamp(0, 4)),
    lambda x: torch.searchsorted(torch.arange(9.0), x), lambda x: x.argsort(0), lambda x: torch.topk(x, 1, 0).indices, lambda x: F_embedding(x), lambda x: torch.bernoulli(x.sigmoid()),
    lambda x: torch.normal(x, 1.0), lambda x: x.isnan(), lambda x: x.clamp(0, 1).mean(0).round(), lambda x: torch.stack([x.clamp(0, 1).sum(0), torch.zeros(3)]),
    lambda x: x.view(torch.int32), lambda x: torch.linalg.inv(torch.eye(3) * x[0, 0]), lambda x: torch.multinomial(x.abs() + 1, 1), lambda x: x.as_strided((3,), (1,)),
    lambda x: torch.zeros(N, 3).index_put((x[:, 0].long().clamp(0, 6),), torch.ones(())), lambda x: torch.native_dropout(x, 0.5, True)[1] * x,
]  # fmt: skip


def F_embedding(x):
    return torch.nn.functional.embedding(x.long().clamp(0, 4), torch.arange(10.0).reshape(5, 2))


@pytest.mark.parametrize("chain", CHAINS)
def test_no_chain_of_operations_makes_private_values_public(chain):
    tape = LocalTape()
    x = tape.asset(torch.rand(N, 3), rows("d v1", 1))
    try:
        found = chain(x)
    except (RuntimeError, LabError):
        return
    held = tape.held(found)
    assert found._spec.label.kind != "public"
    assert held.spec.label.kind == found._spec.label.kind
    with pytest.raises(PrivateValueError):
        tape.runner.fetch(found.current.number, 0, 1 << 20)


def test_whether_an_operation_failed_on_private_values_does_not_show():
    """An index out of range would be one exact bit about the data, for each question that an analyst likes."""
    told = []
    for data in (torch.zeros(N), torch.full((N,), 99.0)):
        tape = LocalTape()
        x = tape.asset(data, rows("d v1", 1))
        found = torch.arange(5.0).index_select(0, (x + 0).to(torch.int64))
        later = (found * 2).sum()
        told.append(tape.flush())
        held = tape.runner.space.held[later.current.number]
        assert held.spec.label.kind == "private"
        told[-1] = (told[-1], tape.runner.stats()["values"] > 0)
        assert bool(held.why) == bool(data[0] == 99)
    assert told[0] == told[1] == ({"lost": ""}, True)


def test_a_failure_on_public_values_is_told():
    tape = LocalTape()
    x = tape.send(torch.full((3,), 99))
    found = torch.arange(5.0).index_select(0, x)
    number = found.current.number
    assert "index" in tape.flush()["lost"]
    with pytest.raises(FailedError, match="index"):
        tape.runner.fetch(number, 0, 8)


def test_noise_never_comes_from_a_plan():
    """Two releases of the same integers under the same seed of torch differ: the noise is OpenDP's."""
    from syft_lab.budget import noise
    from syft_lab.budget.accountant import Cost

    made = noise.prepare(1 << 20, float(1 << 20), Cost(1_000_000))
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(tuple(made.draw([0] * 20)))
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("delta", [0, 10**6])
def test_each_number_has_noise_of_its_own_also_where_parts_are_drawn_beside_each_other(delta):
    from syft_lab.budget import noise
    from syft_lab.budget.accountant import Cost

    made, count = noise.prepare(1000, 1000.0, Cost(1_000_000, delta)), 4 * noise.PART
    drawn = torch.tensor(made.draw([i << 40 for i in range(count)]), dtype=torch.float64)
    left = drawn - torch.arange(count).double() * 2.0**40  # in its place, and nowhere near the next number
    parts = left.reshape(4, -1) / made.scale
    size, spread = (math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)) if delta else (1.0, 1.0)
    assert ((parts.abs().mean(1) - size).abs() < 6 * spread / math.sqrt(noise.PART)).all()
    assert (torch.corrcoef(parts) - torch.eye(4)).abs().max() < 6 / math.sqrt(noise.PART)
    assert len(set(left.tolist())) > count // 2


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(100_000, 0), (1_000_000, 0), (5_000_000, 0), (500_000, 10**6), (2_000_000, 10**6)]
)
def test_noise_costs_what_was_asked_and_not_much_less(epsilon, delta):
    from syft_lab.budget import noise
    from syft_lab.budget.accountant import Cost

    l1, l2 = 3 << 20, math.sqrt(3) * (1 << 20)
    made = noise.prepare(l1, l2, Cost(epsilon, delta))
    spent = made.make().map(l2 if delta else l1)
    spent = spent[0] if delta else spent
    assert 0.99 * epsilon / 1e6 <= spent <= epsilon / 1e6


def test_no_overload_of_an_operation_that_makes_shapes_takes_private_numbers():
    """Some have forms that take tensors for numbers: where to start, how high, what to fill with."""
    from syft_lab.plans import Node, Plan, Ref

    tried = 0
    for name in sorted(ops.SHAPE_ONLY | ops.RANDOM):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            schema = getattr(packet, overload)._schema
            values = [
                i
                for i, a in enumerate(schema.arguments)
                if "Tensor" in str(a.type) or "Scalar" in str(a.type) or str(a.type) in ("number", "float", "int")
            ]
            for at in values:
                if name in ops.LIKE and at == 0:
                    continue
                tape = LocalTape()
                secret = tape.asset(torch.tensor(7.0), Label("private", ("d v1",)))
                like = tape.send(torch.ones(3))
                args = []
                for i, a in enumerate(schema.arguments):
                    if a.kwarg_only:
                        break
                    kind = str(a.type)
                    args.append(
                        Ref(0) if i == at else Ref(1) if "Tensor" in kind else [3] if "[]" in kind or "List" in kind else 3
                    )
                extra = {"seed": 1} if name in ops.RANDOM else {}
                plan = Plan.of([Node(f"aten.{name}.{overload or 'default'}", tuple(args), extra, (2,))], [0, 1], [2])
                number = tape.new().number
                tape.run(plan, [secret.current.number, like.current.number], [number])
                held = tape.runner.space.held[number]
                tried += 1
                assert held.tensor is None or held.spec.label.kind != "public", (name, overload, at)
    assert tried > 40


def test_what_is_approved_names_its_random_numbers_and_all_of_its_past():
    tape = LocalTape()
    x = tape.asset(torch.rand(N, 3), rows("d v1", 1))
    one, two = x + torch.rand_like(x), x + torch.rand_like(x)
    tape.flush()
    assert tape.runner.describe(one.current.number)["digest"] != tape.runner.describe(two.current.number)["digest"]
    long, other = x, x
    for i in range(700):
        long, other = long + 1, other + (2 if i == 3 else 1)
    tape.flush()
    a, b = (tape.runner.describe(v.current.number) for v in (long, other))
    assert a["code"] != b["code"]
    assert compile(a["code"], "plan", "exec")


def test_arguments_in_odd_forms_do_not_fool_a_rule():
    """By name, as truths for numbers, or with sizes that are not those of the tensor."""
    from syft_lab.plans import Node, Plan, Ref

    def label_of(op, *args, shape=(N, 3), bounded=True, **kwargs):
        tape = LocalTape()
        x = tape.asset(torch.rand(*shape), rows("d v1", 1, (0.0, 1.0) if bounded else None))
        number = tape.new().number
        tape.run(Plan.of([Node(op, (Ref(0), *args), kwargs, (1,))], [0], [1]), [x.current.number], [number])
        held = tape.runner.space.held[number]
        return held.spec.label if held.tensor is not None else None

    assert label_of("aten.sum.dim_IntList", [False]) is None
    assert label_of("aten.sum.dim_IntList", dim=[0]).kind == "aggregate"
    assert label_of("aten.sum.dim_IntList", dim=[1]).kind == "rows"
    assert label_of("aten.sum.dim_IntList", [-2]).kind == "aggregate"
    assert label_of("aten.squeeze.dim", dim=1, shape=(N, 3)).axis == 0
    assert label_of("aten.squeeze.dim", dim=1, shape=(N, 1, 3)).axis == 0
    assert label_of("aten.transpose.int", dim0=0, dim1=1).axis == 1
    assert label_of("aten.slice.Tensor", dim=0, start=1).kind == "private"
    assert label_of("aten.slice.Tensor", dim=1, start=1).kind == "rows"
    assert label_of("aten.select.int", dim=0, index=1).kind == "private"
    assert label_of("aten.amax.default", dim=[0]).kind == "private"
    assert label_of("aten._softmax.default", dim=0, half_to_float=False).kind == "private"
    assert "native_group_norm" not in labels._RULES  # its sizes are arguments of their own


def test_no_operation_makes_a_private_value_public_whatever_place_it_takes():
    """Every overload of the table, with a private value at each place that takes a tensor."""
    from syft_lab.labels import infer
    from syft_lab.spec import Spec

    private, tried = Label("private", ("d v1",)), 0
    plain, secret = (Spec.of(torch.empty(3, 3, device="meta"), label) for label in (labels.PUBLIC, private))
    for name in sorted(ops.ALLOWED):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            schema = getattr(packet, overload)._schema
            kinds = [str(a.type) for a in schema.arguments]
            if schema.is_mutable:
                continue
            for at, taken in enumerate(kinds):
                if "Tensor" not in taken or (name in ops.LIKE and at == 0):
                    continue
                args = [(plain if i != at else secret) if "Tensor" in k else 1 for i, k in enumerate(kinds)]
                args = [[a] if "List" in k and "Tensor" in k else a for a, k in zip(args, kinds, strict=True)]
                found = infer(f"aten.{name}.{overload}", args, {}, [plain], Spec)
                assert found[0].kind != "public", (name, overload, at)
                tried += 1
    assert tried > 700
