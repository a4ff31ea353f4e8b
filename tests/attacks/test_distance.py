"""Neighbours are never further apart than the price says: exact sums of random questions on hostile rows, no statistics needed.

A question is lowered as for a release and computed on a table and on its neighbour, which has one person more; the distance of
the two vectors is held against what the noise was made for. Each planted fault is found by the same test.
"""

import math
import random

import polars as pl
import pytest

from syft_lab.budget import engine, lowering, queries
from syft_lab.budget.accountant import cost
from syft_lab.budget.tables import encode
from syft_lab.errors import QueryError, StateError
from syft_lab.expr import Col, Lit, Op, Query
from syft_lab.schema import Column, Schema

K, QUESTIONS = 3, 2_500
SCHEMA = Schema(
    (
        Column("f", "float", (-1.0, 1.0)),
        Column("u", "float"),
        Column("i", "int", (0, 10)),
        Column("w", "int"),
        Column("l", "int", (-(2**50), 2**50)),
        Column("b", "bool", None, (False, True)),
        Column("g", "text", None, ("a", "b", "c")),
        Column("h", "int", None, (0, 7)),
    ),
    K,
    10_000_000,
)
TYPES = {c.name: {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean, "text": pl.String}[c.kind] for c in SCHEMA.columns}
FLOATS = [
    math.inf,
    -math.inf,
    math.nan,
    None,
    5e-324,
    -0.0,
    1.7e308,
    -1.7e308,
    0.5,
    2.0**63,
    -1.0,
    1.0,
    4.8,
    0.3,
    0.6,
    4.9,
    7.0,
    49.0,
    0.7,
    -7.1,
]
INTS = [2**63 - 1, -(2**63), 0, -1, None, 10, 2**53 + 1, 3, 7, -(2**50)]
POOLS = {"float": FLOATS, "int": INTS, "bool": [True, False, None], "text": ["a", "b", "c", "zz", "", None]}
NUMBERS = ("f", "u", "i", "w", "l", "h")
CONSTANTS = [1, 2, 3, 7, 0.1, 0.5, 49.0, 1e300, 5e-324, 2**62, -3, 0]


def row(draw):
    return tuple(draw.choice(POOLS[c.kind]) for c in SCHEMA.columns)


def table(rows):
    columns = {name: [r[j] for r in rows] for j, name in enumerate(TYPES)}
    return encode(SCHEMA, pl.DataFrame(columns, schema=TYPES).lazy()).collect()


def number(draw, depth):
    if depth == 0 or draw.random() < 0.2:
        return Col(draw.choice(NUMBERS))
    kind = draw.choice(
        ["add", "sub", "mul", "truediv", "floordiv", "mod", "floordiv", "mod", "clip", "fill_null", "cast", "count"]
    )
    constant = Lit(draw.choice(CONSTANTS))
    if kind == "clip":
        return Op(kind, (number(draw, depth - 1), Lit(draw.choice([-3.0, 0.0])), Lit(draw.choice([0.5, 9.0]))))
    if kind == "cast":
        return Op(kind, (number(draw, depth - 1), Lit(draw.choice(["int", "float"]))))
    if kind == "count":
        return Op("cast", (truth(draw, depth - 1), Lit("int")))
    if kind in ("floordiv", "mod", "fill_null"):
        return Op(kind, (number(draw, depth - 1), constant))
    pair = [number(draw, depth - 1), draw.choice([constant, number(draw, depth - 1)])]
    draw.shuffle(pair)
    return Op(kind, tuple(pair))


def truth(draw, depth):
    kind = draw.choice(
        ["lt", "ge", "eq", "ne", "is_null", "and", "or", "xor", "not", "is_in", "between", "b"] if depth else ["b"]
    )
    if kind == "b":
        return draw.choice(
            [Col("b"), Op("eq", (Col("g"), Lit("a"))), Op("is_null", (Col("g"),)), Op("fill_null", (Col("b"), Lit(True)))]
        )
    if kind == "is_null":
        return Op(kind, (number(draw, depth - 1),))
    if kind == "not":
        return Op(kind, (truth(draw, depth - 1),))
    if kind in ("and", "or", "xor"):
        return Op(kind, (truth(draw, depth - 1), truth(draw, depth - 1)))
    if kind == "is_in":
        return Op(kind, (number(draw, depth - 1), Lit(0), Lit(48)))
    if kind == "between":
        return Op(kind, (number(draw, depth - 1), Lit(-1), Lit(48.0), Lit(draw.choice(["both", "left"]))))
    return Op(kind, (number(draw, depth - 1), draw.choice([number(draw, depth - 1), Lit(draw.choice(CONSTANTS))])))


def question(draw):
    value = number(draw, 2)
    if draw.random() < 0.6:
        value = Op("clip", (value, Lit(-3.0), Lit(9.0)))
    aggregate = draw.choice(["mean", "sum", "count"])
    if aggregate == "count" and draw.random() < 0.5:
        value = None
    return Query(
        aggregate, value, truth(draw, 2) if draw.random() < 0.6 else None, draw.choice([(), ("g",), ("g", "b"), ("h",)])
    )


def sums(prepared, frame):
    """The exact sums of a question, or what kind of error came instead."""
    try:
        return queries._vector(prepared.schema, prepared.query, prepared.type, prepared.grid, frame.lazy())
    except queries.BROKEN as error:
        return type(error).__name__


def neighbours(draw):
    """A table without a person, the person's rows alone, and both together, encoded; and how many rows the person has."""
    base = [row(draw) for _ in range(draw.choice([0, 1, 1, 1, 2, 8]))]
    one = row(draw)
    person = [one] * draw.choice([1, K]) if draw.random() < 0.5 else [row(draw) for _ in range(K)]
    if base and draw.random() < 0.3:
        base[0] = one
    whole = table(base + person)
    return whole.slice(0, len(base)), whole.slice(len(base)), whole, len(person)


def wrong(prepared, without, person, whole, rows):
    """What is wrong with a question on these neighbours, '' for nothing, and their distance over what the noise was made for."""
    base, alone, both = (sums(prepared, frame.clone()) for frame in (without, person, whole))
    if not all(isinstance(s, list) for s in (base, alone, both)):
        return f"outcomes {[s for s in (base, alone, both) if isinstance(s, str)]}", 0.0
    if both != [a + b for a, b in zip(base, alone, strict=True)]:
        return "a row adds something else among others than alone", 0.0
    far = sum(map(abs, alone)) / prepared.grid.most
    return ("further apart than the price says" if far > rows else ""), far / K


def walked(seed, count, first=False):
    """How often the bound was reached, by aggregate, and what was wrong, of so many questions; of the ``first`` that is, at once.

    Each question is asked of some of 300 pairs of neighbours.
    """
    draw = random.Random(seed)
    reached, faults, asked, pairs = dict.fromkeys(("mean", "sum", "count"), 0), [], 0, []
    while asked < count and not (first and faults):
        query = question(draw)
        try:
            prepared = queries.prepare(SCHEMA, query, cost(1.0))
        except QueryError:
            continue
        asked += 1
        if len(pairs) < 300:
            pairs.append(neighbours(draw))
        why, far = wrong(prepared, *(pairs[-1] if asked < 300 else draw.choice(pairs)))
        if why:
            faults.append((why, query.to_json()))
        reached[query.aggregate] += far == 1
    return reached, faults


@pytest.mark.parametrize("part", range(4))
def test_no_question_tells_neighbours_further_apart_than_its_price(part):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    reached, faults = walked(seed, QUESTIONS)
    assert faults == []
    assert min(reached.values()) > 5, reached


def by_reciprocal(constant, beside):
    return constant


@pytest.mark.parametrize("seed", range(2))
def test_a_planted_fault_constants_as_polars_has_them_is_caught(seed, monkeypatch):
    monkeypatch.setattr(lowering, "each_row", by_reciprocal)
    assert walked(seed, QUESTIONS, first=True)[1]


def test_a_planted_fault_more_than_the_grid_says_is_caught(monkeypatch):
    monkeypatch.setattr(
        queries.Grid,
        "units",
        lambda grid, value, low, high: (
            (value.clip(low, high).cast(pl.Float64) * grid.scale).round().cast(pl.Int64, strict=False)
        ),
    )
    assert walked(0, 500, first=True)[1]


def test_a_planted_fault_rows_without_a_value_are_counted_is_caught(monkeypatch):
    monkeypatch.setattr(queries.Grid, "most", property(lambda grid: max(abs(grid.low), abs(grid.high)) - 1 or 1))
    assert walked(0, 500, first=True)[1]


def test_an_owner_does_not_start_with_a_polars_that_divides_otherwise(monkeypatch):
    engine.check.cache_clear()
    monkeypatch.setattr(lowering, "each_row", by_reciprocal)
    with pytest.raises(StateError, match="otherwise alone than among others"):
        engine.check()


@pytest.mark.parametrize("library", engine.TRIED)
def test_an_owner_does_not_start_with_other_libraries_than_were_tried(library, monkeypatch):
    engine.check.cache_clear()
    monkeypatch.setitem(engine.TRIED, library, "0.0.1")
    with pytest.raises(StateError, match=f"pip install '{library}==0.0.1'"):
        engine.check()
