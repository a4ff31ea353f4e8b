"""Any typed query, on a table made to break things, is answered or refused in words: nothing else comes out."""

import math

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from syft_lab.budget import queries
from syft_lab.budget.accountant import Cost
from syft_lab.errors import QueryError
from syft_lab.expr import OPERATIONS, Col, Lit, Op, Query
from syft_lab.kernel import release
from syft_lab.schema import Column, Schema

SCHEMA = Schema(
    (
        Column("a", "int", (-5, 9)),
        Column("big", "int", (-(2**52), 2**52)),
        Column("x", "float", (-4.0, 6.0)),
        Column("b", "bool", None, (False, True)),
        Column("c", "text", None, ("u", "v")),
        Column("t", "text"),
        Column("free", "float"),
    ),
    2,
    10_000_000,
)
TABLE = pl.DataFrame(
    {
        "v0": [1, None, -(2**63), 2**63 - 1],
        "v1": [2**63 - 1, -(2**63), 0, None],
        "v2": [math.inf, None, -math.inf, 0.0],
        "v3": [True, None, False, True],
        "g3": pl.Series([1, None, 0, 1], dtype=pl.UInt32),
        "g4": pl.Series([0, 1, None, 1], dtype=pl.UInt32),
        "v5": ["p", None, "", "x" * 5000],
        "v6": [1e-320, None, math.inf, -0.0],
    }
).lazy()
columns = st.sampled_from([Col(c.name) for c in SCHEMA.columns])
constants = st.sampled_from(
    [0, 1, -1, 2**63 - 1, -(2**63), 1e308, -1e308, 1e-320, 0.5, True, "u", "p", "both", "int", "float"]
).map(Lit)


def grown(inner):
    numbers = st.sampled_from([Lit(v) for v in (-5, 1, 0.0, 7.5, 1e308, -(2**63), 2**63 - 1, 1e-320)])
    return st.one_of(
        st.builds(lambda n, x, y: Op(n, (x, y)), st.sampled_from(sorted(OPERATIONS)), inner, inner | constants),
        st.builds(lambda x, low, high: Op("clip", (x, low, high)), inner, numbers, numbers),
        st.builds(lambda x, low, high: Op("between", (x, low, high, Lit("left"))), inner, numbers, inner | numbers),
        st.builds(lambda n, x, by: Op(n, (x, by)), st.sampled_from(["mod", "floordiv"]), inner, numbers),
        st.builds(lambda x, kind: Op("cast", (x, Lit(kind))), inner, st.sampled_from(["int", "float"])),
        st.builds(lambda n, x: Op(n, (x,)), st.sampled_from(["not", "is_null"]), inner),
    )


nodes = st.recursive(columns, grown, max_leaves=6)


@example("sum", Op("mod", (Col("a"), Lit(1e308))), None, (), 1)
@given(
    st.sampled_from(["count", "sum", "mean"]), nodes, st.none() | nodes, st.sampled_from([(), ("c",), ("b", "c")]),
    st.sampled_from([1, 100_000, 100_000_000]),
)  # fmt: skip
def test_every_query_is_answered_or_refused_before_it_costs_anything(aggregate, value, chosen, by, epsilon):
    try:
        prepared = queries.prepare(SCHEMA, Query(aggregate, value, chosen, by), Cost(epsilon))
    except QueryError as error:
        assert str(error)
    else:
        release.seal(prepared, queries.run(prepared, TABLE))
