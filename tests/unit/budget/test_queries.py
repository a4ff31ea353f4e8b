"""Lowering means what pandas means; preparing sees public facts only; running fails closed."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import expr
from syft_lab.budget import lowering, queries
from syft_lab.budget.accountant import Cost, cost
from syft_lab.budget.tables import encode
from syft_lab.errors import FailedError, QueryError
from syft_lab.expr import Col, Lit, Op, Query
from syft_lab.schema import Column, Schema

SCHEMA = Schema(
    (
        Column("a", "int", (-5, 9)),
        Column("x", "float", (-4.0, 6.0)),
        Column("b", "bool", None, (False, True)),
        Column("c", "text", None, ("u", "v", "w")),
        Column("t", "text"),
    ),
    2,
    10_000_000,
)
a, x, b, c, t = (Col(n) for n in "axbct")


def frame(rows):
    """The rows as polars, as publishing would have them, and as pandas."""
    table = pl.DataFrame(
        {"a": [r[0] for r in rows], "x": [r[1] for r in rows], "b": [r[2] for r in rows],
         "c": [r[3] for r in rows], "t": [r[4] for r in rows]},
        schema={"a": pl.Int64, "x": pl.Float64, "b": pl.Boolean, "c": pl.String, "t": pl.String},
    )  # fmt: skip
    return table, pd.DataFrame({"a": [float("nan") if r[0] is None else float(r[0]) for r in rows],
                                "x": [float("nan") if r[1] is None else r[1] for r in rows],
                                "b": [r[2] for r in rows], "c": [r[3] for r in rows], "t": [r[4] for r in rows]})  # fmt: skip


rows = st.lists(
    st.tuples(
        st.none() | st.integers(-5, 9),
        st.none() | st.sampled_from([-4.0, -1.5, 0.0, 2.0, 6.0, math.inf, -math.inf, math.nan]),
        st.booleans(),
        st.none() | st.sampled_from(["u", "v", "other"]),
        st.none() | st.sampled_from(["p", "q"]),
    ),
    min_size=1,
    max_size=12,
)
numbers = st.recursive(
    st.sampled_from([a, x]),
    lambda inner: st.one_of(
        st.builds(
            lambda n, l, r: Op(n, (l, r)), st.sampled_from(["add", "sub", "mul", "truediv"]), inner, inner | st.just(Lit(2))
        ),
        st.builds(lambda n, v, by: Op(n, (v, Lit(by))), st.sampled_from(["floordiv", "mod"]), inner, st.sampled_from([2, 3.5])),
        st.builds(lambda v: Op("fill_null", (v, Lit(1))), inner),
        st.builds(lambda v: Op("cast", (v, Lit("float"))), inner),
    ),
    max_leaves=4,
)
conditions = st.recursive(
    st.one_of(
        st.builds(
            lambda n, l, r: Op(n, (l, r)),
            st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]),
            numbers,
            numbers | st.sampled_from([Lit(0), Lit(1.5)]),
        ),
        st.builds(lambda n, r: Op(n, (c, r)), st.sampled_from(["eq", "ne"]), st.sampled_from([Lit("u"), Lit("w")])),
        st.builds(lambda n: Op(n, (t, Lit("p"))), st.sampled_from(["eq", "ne"])),
        st.builds(lambda v: Op("is_null", (v,)), numbers | st.sampled_from([c, t])),
        st.builds(lambda v: Op("is_in", (v, Lit(0), Lit(2))), numbers),
        st.builds(
            lambda v, s: Op("between", (v, Lit(-1), Lit(2), Lit(s))),
            numbers,
            st.sampled_from(["both", "left", "right", "neither"]),
        ),
        st.just(b),
    ),
    lambda inner: (
        st.builds(lambda v: Op("not", (v,)), inner)
        | st.builds(lambda n, l, r: Op(n, (l, r)), st.sampled_from(["and", "or", "xor"]), inner, inner)
    ),
    max_leaves=4,
)

_PANDAS = {"eq": "__eq__", "ne": "__ne__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__", "and": "__and__",
           "or": "__or__", "xor": "__xor__", "add": "__add__", "sub": "__sub__", "mul": "__mul__", "truediv": "__truediv__", "mod": "__mod__"}  # fmt: skip


def in_pandas(node, table):
    """The same expression by pandas itself: what an analyst expects."""
    if isinstance(node, Col):
        column = table[node.name]
        if node.name == "c":
            return column.where(column.isin(["u", "v", "w"]), None)
        return column
    if isinstance(node, Lit):
        return node.value
    first, *others = (in_pandas(n, table) for n in node.args)
    if node.name in _PANDAS:
        return getattr(first, _PANDAS[node.name])(*others)
    return {
        "not": lambda: ~first,
        "floordiv": lambda: np.floor(first / others[0]),  # an infinity stays one, where pandas makes NaN of it
        "is_null": lambda: first.isna(),
        "fill_null": lambda: first.fillna(others[0]),
        "is_in": lambda: first.isin(others),
        "between": lambda: first.between(others[0], others[1], inclusive=others[2]),
        "cast": lambda: first.astype(float),
    }[node.name]()


@given(rows, conditions)
def test_filters_choose_the_rows_that_pandas_chooses(rows, condition):
    table, frame_ = frame(rows)
    with np.errstate(all="ignore"):
        expected = int(in_pandas(condition, frame_).astype(bool).sum())
    _, (found,) = queries.exact(SCHEMA, Query("count", None, condition), table)
    assert found == expected


@given(rows, numbers, st.sampled_from(["count", "sum", "mean"]))
def test_aggregates_skip_nulls_and_move_values_into_bounds_as_promised(rows, value, aggregate):
    table, frame_ = frame(rows)
    query = Query(aggregate, Op("clip", (Op("cast", (value, Lit("float"))), Lit(-3.0), Lit(5.0))))
    with np.errstate(all="ignore"):
        promised = query.check(SCHEMA)  # what was published about the columns narrows the clip further
        assert -3 <= promised.low < promised.high <= 5
        expected = in_pandas(value, frame_).clip(promised.low, promised.high)
    _, (found,) = queries.exact(SCHEMA, query, table)
    if aggregate == "mean" and expected.notna().sum() == 0:
        assert found is None
    else:
        assert found == pytest.approx(getattr(expected, aggregate)())


@given(rows, st.sampled_from([("c",), ("b",), ("c", "b"), ("b", "c")]))
def test_groups_are_the_declared_ones_in_declared_order(rows, by):
    table, frame_ = frame(rows)
    keys, values = queries.exact(SCHEMA, Query("count", None, None, by), table)
    declared = {"c": ["u", "v", "w"], "b": [False, True]}
    assert list(keys) == list(pd.MultiIndex.from_product([declared[n] for n in by])) if len(by) > 1 else True
    counts = frame_.groupby(list(by)).size()
    for key, value in zip(keys, values, strict=True):
        assert value == counts.get(key if len(by) > 1 else key[0], 0)


@given(conditions, numbers, st.sampled_from(["count", "sum", "mean"]), st.sampled_from([(), ("c",), ("b", "c")]))
def test_everything_that_checks_can_be_made_private_and_costs_at_most_its_price(condition, value, aggregate, by):
    query = Query(aggregate, Op("clip", (Op("cast", (value, Lit("float"))), Lit(-3.0), Lit(5.0))), condition, by)
    prepared = queries.prepare(SCHEMA, query, cost(0.7))
    assert 0.69 < prepared.noise.spends(SCHEMA.max_contributions * prepared.grid.most) <= 0.7


def stored(n=200):
    draw = np.random.default_rng(1)
    table = pl.DataFrame({"a": draw.integers(-5, 9, n), "x": draw.uniform(-4, 6, n), "b": draw.random(n) < 0.5,
                          "c": draw.choice(["u", "v", "other"], n), "t": draw.choice(["p", "q"], n)})  # fmt: skip
    return table, encode(SCHEMA, table.lazy())


QUERIES = [
    Query("count"),
    Query("count", x, Op("gt", (a, Lit(1.5)))),
    Query("sum", a),
    Query("sum", x, b),
    Query("mean", Op("mul", (x, Lit(2)))),
    Query("mean", a, None, ("c",)),
    Query("sum", x, Op("eq", (c, Lit("u"))), ("b", "c")),
    Query("mean", b, None, ("b",)),
    Query("count", t, Op("ne", (t, Lit("p"))), ("c",)),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.canonical().decode()[:60])
def test_at_a_high_epsilon_the_noisy_answer_is_the_exact_one(query):
    plain, table = stored()
    answer = queries.run(queries.prepare(SCHEMA, query, cost(100)), table)
    keys, values = queries.exact(SCHEMA, query, plain)
    assert answer.keys == keys
    for noisy, true, error, low, high in zip(answer.values, values, answer.accuracy, answer.low, answer.high, strict=True):
        if true is not None:
            assert noisy == pytest.approx(true, abs=2.5)
            assert low <= noisy <= high and max(noisy - low, high - noisy) <= error + 1e-9


def test_integers_far_out_of_bounds_land_on_the_nearer_bound():
    schema = Schema((Column("a", "int", (10, 20)),), 1, 1000)
    prepared = queries.prepare(schema, Query("mean", Col("a")), cost(100))
    for far, bound in ((-(2**63), 10), (2**63 - 1, 20)):
        answer = queries.run(prepared, pl.LazyFrame({"v0": [far] * 500}))
        assert answer.values[0] == pytest.approx(bound, abs=0.1)


def test_a_cheaper_price_has_more_noise():
    scales = [queries.prepare(SCHEMA, Query("count"), cost(e)).scales["count"] for e in (1.0, 0.1)]
    assert scales[1] == pytest.approx(10 * scales[0], rel=1e-6)


def test_contributions_multiply_the_noise():
    one = Schema(SCHEMA.columns, 1, SCHEMA.max_rows)
    assert queries.prepare(SCHEMA, Query("sum", a), cost(1)).scales["sum"] == pytest.approx(
        2 * queries.prepare(one, Query("sum", a), cost(1)).scales["sum"], rel=1e-6
    )


@pytest.mark.parametrize("rows", [100, 10_000_000, 2**40])
def test_sums_are_exact_for_whole_numbers_and_as_fine_as_the_rows_allow(rows):
    schema = Schema((Column("n", "int", (-5, 9)), Column("x", "float", (0.0, 0.3))), 1, rows)
    whole, fine = (queries.prepare(schema, Query("sum", Col(name)), cost(1)) for name in "nx")
    assert whole.grid.exact and whole.rounding == 0 and whole.grid.most == 9
    assert rows * fine.grid.most < 2**62
    frame = pl.LazyFrame({"v0": [3] * 90, "v1": [0.1] * 90})
    assert queries._vector(schema, whole.query, whole.type, whole.grid, frame) == [270]
    (units,) = queries._vector(schema, fine.query, fine.type, fine.grid, frame)
    assert abs(units * fine.grid.step - 9) <= 90 * fine.grid.step / 2


def test_division_by_a_constant_is_true_division_in_each_row():
    schema = Schema((Column("x", "float", (0.0, 1000.0)), Column("n", "int", (0, 1000))), 1, 1000)
    values = [float(v) for v in range(1, 200)]
    for by in (49, 3.0, 0.1, 7):
        node = Op("truediv", (Col("x"), Lit(by)))
        found = (
            pl.LazyFrame({"v0": values, "v1": range(1, 200)})
            .select(lowering.lower(node, schema))
            .collect()
            .to_series()
            .to_list()
        )
        assert found == [v / by for v in values]


def chain(name, of, depth, right):
    node = of
    for _ in range(depth):
        node = Op(name, (Op("cast", (node, Lit("int"))) if name == "cast" else node, *right))
    return node


@pytest.mark.parametrize("of", [x, a], ids=["float", "int"])
@pytest.mark.parametrize("name", sorted(expr.OPERATIONS))
@pytest.mark.parametrize("twin", [False, True])
def test_no_operation_becomes_more_than_it_weighs(name, of, twin):
    """Else a short question fills the owner's memory while it is priced: 9 remainders of remainders were 4^9 divisions."""
    right = {"clip": (Lit(0), Lit(5)), "between": (Lit(0), Lit(5), Lit("both")), "is_in": (Lit(1), Lit(2)), "is_null": (),
             "not": (), "cast": (Lit("float"),), "fill_null": (Lit(1),)}.get(name, (of,) if twin else (Lit(7.5),))  # fmt: skip
    tried = 0
    for depth in range(1, 9):
        node = chain(name, of, depth, right)
        if expr.weight(node) > 600:
            break
        try:
            expr.infer(node, SCHEMA)
        except QueryError:
            continue
        tried += 1
        size = str(lowering.lower(node, SCHEMA)).count("col(")  # the leaves of what polars computes
        assert size <= expr.weight(node), (depth, size, expr.weight(node))
    assert tried > 2 or twin or name not in ("truediv", "mod", "floordiv", "add", "sub", "mul", "clip", "cast")


def test_bounds_that_floats_have_no_grid_for_are_refused_from_public_facts():
    tiny = Op("clip", (x, Lit(0.0), Lit(5e-324)))
    with pytest.raises(QueryError, match="too narrow"):
        queries.prepare(SCHEMA, Query("mean", tiny), cost(1))
    for wide in (Op("mod", (a, Lit(1e308))), Op("mod", (a, Lit(1e272)))):  # whose noisy sums floats don't hold
        for aggregate in ("sum", "mean"):
            with pytest.raises(QueryError, match="too wide"):
                queries.prepare(SCHEMA, Query(aggregate, wide), cost(1))
    least = queries.prepare(SCHEMA, Query("sum", Op("mod", (a, Lit(1e270)))), Cost(1))
    assert all(map(math.isfinite, queries.run(least, stored()[1]).high))


def test_a_mechanism_that_costs_more_than_its_price_does_not_run():
    prepared = queries.prepare(SCHEMA, Query("count"), cost(1))
    cheap = queries.Prepared(**{**prepared.__dict__, "cost": Cost(prepared.cost.epsilon - 1)})
    with pytest.raises(FailedError, match="costs more than its price"):
        queries.run(cheap, stored()[1])


def test_a_failure_on_the_data_says_nothing_of_them():
    prepared = queries.prepare(SCHEMA, Query("sum", a), cost(1))
    broken = pl.LazyFrame({"v0": ["patient 17"]})
    with pytest.raises(FailedError) as caught:
        queries.run(prepared, broken)
    assert "17" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_preparing_never_touches_data_so_its_refusals_are_public():
    with pytest.raises(QueryError, match="no bounds|needs bounds"):
        queries.prepare(Schema((Column("z", "float"),), 1, 10), Query("sum", Col("z")), cost(1))


def test_the_opposite_of_a_missing_flag_is_missing():
    schema = Schema((Column("b", "bool", None, (False, True)),), 1, 100)
    table = pl.DataFrame({"b": [True, False, None, None]})
    opposite = Op("not", (Col("b"),))
    for condition, rows in ((opposite, 1), (Op("not", (opposite,)), 1), (Op("or", (opposite, Col("b"))), 2)):
        assert queries.exact(schema, Query("count", None, condition), table)[1] == (rows,)
    assert queries.exact(schema, Query("mean", opposite), table)[1] == (0.5,)


def test_a_mean_at_its_bound_does_not_pass_it_by_rounding():
    schema = Schema((Column("x", "float", (-5.0, -1.8)),), 1, 1000)
    prepared = queries.prepare(schema, Query("mean", Col("x")), cost(100.0))
    answer = queries.run(prepared, encode(schema, pl.DataFrame({"x": [-1.8] * 1000}).lazy()))
    assert answer.values[0] <= -1.8
