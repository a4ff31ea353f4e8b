"""The expression tree: parsing strangers' JSON, types and bounds, and messages made of public facts."""

import json
from functools import reduce
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.errors import LabError, QueryError, WireError
from syft_lab.expr import MAX_DEPTH, OPERATIONS, Col, Lit, Op, Query, columns_of, fitted, infer, parse_query
from syft_lab.schema import Column, Schema, schema_from_json, schema_to_json

SCHEMA = Schema(
    (
        Column("age", "int", (0, 110)),
        Column("los", "float", (0.0, 60.0)),
        Column("free", "float"),
        Column("ward", "text", None, ("er", "icu")),
        Column("flag", "bool", None, (False, True)),
        Column("note", "text"),
    ),
    3,
    10_000_000,
)
age, los, free, ward, flag, note = (Col(c.name) for c in SCHEMA.columns)

leaves = st.sampled_from([age, los, free, ward, flag, note, Lit(1), Lit(2.5), Lit(True), Lit("er"), Lit("both")])
nodes = st.recursive(
    leaves,
    lambda inner: st.builds(Op, st.sampled_from(sorted(OPERATIONS)), st.lists(inner, max_size=4).map(tuple)),
    max_leaves=12,
)


@given(nodes)
def test_any_tree_has_a_type_or_is_refused_in_words(node):
    try:
        found = infer(node, SCHEMA)
    except QueryError as error:
        assert str(error)
    else:
        assert found.low <= found.high


@given(
    st.sampled_from(["count", "sum", "mean"]), st.none() | nodes, st.none() | nodes, st.lists(st.text(max_size=5), max_size=3)
)
def test_a_query_survives_its_own_json(aggregate, value, chosen, by):
    query = Query(aggregate, value, chosen, tuple(by))
    again = parse_query(query.canonical())
    assert again.canonical() == query.canonical()
    assert again.digest == query.digest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["op", "args", "column", "literal", "aggregate", "value", "filter", "by"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_a_query_or_one_error(value):
    try:
        data = json.dumps(value, allow_nan=False).encode()
    except ValueError:
        return
    try:
        parse_query(data).check(SCHEMA)
    except LabError as error:
        assert str(error)


def test_deep_and_wide_trees_are_refused():
    deep = '{"op":"not","args":[' * (MAX_DEPTH + 2) + '{"literal":true}' + "]}" * (MAX_DEPTH + 2)
    wide = '{"op":"is_in","args":[' + ",".join(['{"literal":1}'] * 1200) + "]}"
    for tree in (deep, wide):
        with pytest.raises(WireError, match="at most"):
            parse_query(('{"aggregate":"count","value":null,"by":[],"filter":' + tree + "}").encode())


@pytest.mark.parametrize(
    ("node", "bounds"),
    [
        (Op("add", (age, Lit(5))), (5, 115)),
        (Op("sub", (age, los)), (-60, 110)),
        (Op("mul", (age, Lit(-2))), (-220, 0)),
        (Op("truediv", (los, Lit(2))), (0, 30)),
        (Op("floordiv", (age, Lit(10))), (0, 11)),
        (Op("mod", (age, Lit(7))), (0, 7)),
        (Op("clip", (free, Lit(0), Lit(9))), (0, 9)),
        (Op("clip", (age, Lit(200), Lit(300))), (200, 300)),
        (Op("cast", (los, Lit("int"))), (0, 60)),
        (Op("cast", (flag, Lit("int"))), (0, 1)),
        (Op("fill_null", (age, Lit(-1))), (-1, 110)),
    ],
)
def test_bounds_follow_the_operations(node, bounds):
    found = infer(node, SCHEMA)
    assert (found.low, found.high) == bounds


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (Col("nope"), "no column"),
        (Op("gt", (ward, Lit("er"))), "== and !="),
        (Op("eq", (ward, Lit("oncology"))), "no category"),
        (Op("eq", (age, Lit("er"))), "compared with"),
        (Op("add", (ward, Lit(1))), "needs numbers"),
        (Op("add", (flag, Lit(1))), "astype"),
        (Op("and", (age, flag)), "brackets"),
        (Op("mod", (age, los)), "positive constant"),
        (Op("floordiv", (age, Lit(0))), "positive constant"),
        (Op("cast", (note, Lit("int"))), "could fail on a private row"),
        (Op("cast", (age, Lit("text"))), "astype takes"),
        (Op("clip", (los, Lit(9), Lit(1))), "lower one first"),
        (Op("is_in", (age,)), "1 to 100"),
        (Op("fill_null", (note, Lit("x"))), "fillna"),
        (Op("launch", (age,)), "no operation"),
        (Op("mul", (Op("mul", (Op("mul", (age,) * 2),) * 2),) * 2), "2**53"),
    ],
)
def test_what_can_not_be_is_refused_by_name(node, word):
    with pytest.raises(QueryError, match=word.replace("*", r"\*")):
        infer(node, SCHEMA)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (Query("sum", free), "bounds, and there are none for free"),
        (Query("mean", Op("truediv", (age, los))), "needs bounds"),
        (Query("sum", note), "text has no meaning"),
        (Query("sum"), "needs a column"),
        (Query("count", None, age), "true or false"),
        (Query("count", None, None, ("age",)), "declare its categories"),
        (Query("count", None, None, ("ward", "ward")), "different columns"),
        (Query("count", None, None, ("ward", "flag", "age")), "one or two"),
        (Query("sum", Lit(3)), "same for every row"),
        (Query("count", None, Lit(True)), "same for every row"),
        (Query("sum", Op("add", (age, Op("mul", (Lit(2), Lit(3)))))), "same for every row"),
        (Query("sum", Op("floordiv", (los, Lit(1e-320)))), "bounds"),
        (
            Query("sum", Op("mul", (Op("mul", (los, Lit(1e308))), Op("cast", (Op("mul", (los, Lit(1e307))), Lit("int")))))),
            "bounds",
        ),
    ],
)
def test_a_query_that_can_not_be_made_private_says_which_part(query, word):
    with pytest.raises(QueryError, match=word):
        query.check(SCHEMA)


def test_an_expression_that_grows_when_it_is_lowered_is_refused_at_once():
    node = los
    for _ in range(10):
        node = Op("add", (Op("cast", (Op("between", (node, Lit(0), Lit(1), Lit("both"))), Lit("float"))), los))
    with pytest.raises(QueryError, match="too large"):
        Query("count", None, Op("gt", (node, Lit(0)))).check(SCHEMA)


def test_long_sums_and_lists_are_not_too_large():
    total = los
    for _ in range(15):
        total = Op("mul", (Lit(1.0), Op("add", (los, total))))
    Query("count", None, Op("is_in", (age, *(Lit(i) for i in range(100))))).check(SCHEMA)
    Query("sum", Op("clip", (total, Lit(0.0), Lit(1.0)))).check(SCHEMA)


def test_the_columns_of_a_tree_come_in_reading_order():
    assert list(columns_of(Op("add", (age, Op("mul", (los, age)))))) == ["age", "los", "age"]


def test_a_schema_survives_json_and_odd_ones_are_refused():
    assert schema_from_json(json.loads(json.dumps(schema_to_json(SCHEMA)))) == SCHEMA
    for odd in (None, {}, {"columns": []}, {"columns": [{"name": 1}], "max_contributions": 1, "max_rows": 1}):
        with pytest.raises(WireError):
            schema_from_json(odd)


def chain(name, parts):
    return reduce(lambda a, b: Op(name, (a, b)), parts)


def holds(node, true):
    """Whether a condition on columns holds where the columns of ``true`` do."""
    if isinstance(node, Col):
        return node.name in true
    found = [holds(a, true) for a in node.args]
    return {"and": all, "or": any, "not": lambda args: not args[0]}[node.name](found)


@pytest.mark.parametrize("order", [lambda name, parts: chain(name, parts), lambda name, parts: reduce(lambda a, b: Op(name, (b, a)), parts)])  # fmt: skip
def test_long_chains_of_conditions_become_trees_of_the_same_value(order):
    flags = [Col(f"c{i}") for i in range(90)]
    several = order("or", [order("and", flags[:45]), Op("not", (order("and", flags[45:60]),)), *flags[60:]])
    tree = fitted(several)
    parse_query(Query("count", None, tree).canonical())
    assert sorted(columns_of(tree)) == sorted(columns_of(several))
    assert list(columns_of(tree)) == list(columns_of(several))
    random = Random(1)
    for _ in range(200):
        true = {f.name for f in flags if random.random() < random.choice((0.02, 0.5, 0.98))}
        assert holds(tree, true) == holds(several, true)


def test_what_an_owner_takes_stays_as_it_is_written():
    node = chain("and", [Col(f"c{i}") for i in range(MAX_DEPTH + 1)])
    assert fitted(node) is node


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (chain("add", [age] * 40), "in parts"),
        (chain("and", [flag] * 501), "dropna"),
        (chain("xor", [flag] * 40), "joins more than"),
    ],
)
def test_what_is_too_large_says_what_to_write_instead(node, words):
    with pytest.raises(QueryError, match=words):
        fitted(node)
