"""Plans as data: canonical, without dead code, and safe to read from strangers."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import plans
from syft_lab.errors import WireError
from syft_lab.plans import Constant, Mark, Node, Plan, Ref, Seed, parse

ADD = "aten.add.Tensor"


def test_a_plan_is_the_same_whatever_numbers_its_recording_used():
    one = Plan.of([Node(ADD, (Ref(7), Ref(9)), {}, (30,)), Node(ADD, (Ref(30), 2), {"alpha": 3}, (31,))], [7, 9], [31])
    other = Plan.of([Node(ADD, (Ref(1), Ref(2)), {}, (5,)), Node(ADD, (Ref(5), 2), {"alpha": 3}, (6,))], [1, 2], [6])
    assert one.canonical == other.canonical
    assert one.digest == other.digest
    assert one.text.splitlines() == [
        "inputs: %0, %1",
        "%2 = aten.add.Tensor(%0, %1)",
        "%3 = aten.add.Tensor(%2, 2, alpha=3)",
        "return %3",
    ]


def test_one_and_one_point_zero_and_true_are_three_plans():
    digests = {Plan.of([Node(ADD, (Ref(0), n), {}, (1,))], [0], [1]).digest for n in (1, 1.0, True)}
    assert len(digests) == 3


def test_what_nobody_asks_for_is_not_in_the_plan():
    nodes = [Node(ADD, (Ref(0), i), {}, (i,)) for i in range(1, 50)]
    assert Plan.of(nodes, [0], [7]).nodes == (Node(ADD, (Ref(0), 7), {}, (1,)),)


atoms = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.from_regex(r"\A[a-zA-Z0-9_]{0,12}\Z"), st.just(Ref(0)),
                  st.builds(Constant, st.integers(0, 9)), st.builds(Seed, st.integers(0, 9)), st.sampled_from([Mark("t", "float32"), Mark("d", "owner")]),
                  st.complex_numbers())  # fmt: skip


@given(st.lists(st.one_of(atoms, st.lists(atoms, max_size=4)), max_size=5))
def test_plans_survive_the_wire(args):
    made = Plan.of([Node(ADD, tuple(args), {}, (1, None, 2))], [0], [2, 1])
    back = parse(made.canonical)
    assert back.canonical == made.canonical
    assert repr(back.nodes) == repr(made.nodes)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
                    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.sampled_from(
                        ["inputs", "nodes", "outputs", "v", "c", "f", "z", "t", "d", "s"]), inner, max_size=4)), max_leaves=30))  # fmt: skip
def test_whatever_a_stranger_sends_is_a_plan_or_a_wire_error(found):
    try:
        data = json.dumps(found).encode()
        made = parse(data)
    except (WireError, ValueError) as error:
        assert isinstance(error, WireError) or "json" in str(error).lower()
        return
    assert parse(made.canonical).canonical == made.canonical


@pytest.mark.parametrize(
    "plan",
    [
        {"inputs": 1, "nodes": [[ADD, [{"v": 1}], {}, [1]]], "outputs": [1]},  # reads what it makes
        {"inputs": 1, "nodes": [[ADD, [{"v": 0}], {}, [5]]], "outputs": [5]},
        {"inputs": -1, "nodes": [], "outputs": []},
        {"inputs": 1, "nodes": [], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, [[[[[[1]]]]]], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, [2**64], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, ["x" * 201], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, ["%"], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, ["a\nvalue = 1"], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, [{"v": True}], {}, [1]]], "outputs": [1]},
        {"inputs": 1, "nodes": [[ADD, [], {}]], "outputs": []},
        {"inputs": 1, "nodes": [[ADD, [0] * 65, {}, [1]]], "outputs": [1]},
    ],
)
def test_a_malformed_plan_is_refused(plan):
    with pytest.raises(WireError):
        parse(json.dumps(plan).encode())


def test_numbers_that_json_does_not_have_travel():
    made = Plan.of([Node(ADD, (Ref(0), math.nan, math.inf, -math.inf, 1 + 2j), {}, (1,))], [0], [1])
    nan, inf, minus, number = parse(made.canonical).nodes[0].args[1:]
    assert math.isnan(nan)
    assert (inf, minus, number) == (math.inf, -math.inf, 1 + 2j)


def test_renaming_touches_only_what_is_named():
    node = Node(ADD, (Ref(1), [Ref(2), 3]), {"x": Ref(1)}, (4,))
    assert plans.renamed(node, {9: 8}) is node
    assert plans.renamed(node, {1: 8}) == Node(ADD, (Ref(8), [Ref(2), 3]), {"x": Ref(8)}, (4,))


def test_seeds_are_no_part_of_a_plan_but_come_with_it_in_order():
    def recorded(*seeds):
        nodes = [Node("aten.rand_like.default", (Ref(0),), {"seed": s}, (i + 1,)) for i, s in enumerate(seeds)]
        return Plan.of(nodes, [0], range(1, len(seeds) + 1))

    one, other = recorded(5, 6), recorded(7, 7)
    assert (one.seeds, other.seeds) == ((5, 6), (7, 7))
    assert one.digest == other.digest
    assert one == other
    assert parse(one.canonical).nodes == one.nodes
    assert "seed=#1" in one.text
