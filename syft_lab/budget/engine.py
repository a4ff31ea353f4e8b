"""Whether polars and OpenDP are those that were tried: an owner that answers questions of tables does not start with others.

Which operations of polars compute each row by itself is nothing that polars promises, so it is tested for the versions below,
and some of it is tried again here, on the machine that computes (other processors run other code).
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.metadata import version

import polars as pl

from syft_lab.budget.lowering import lower
from syft_lab.errors import StateError
from syft_lab.expr import Col, Lit, Node, Op
from syft_lab.schema import Column, Schema

TRIED = {"polars": "1.36.1", "opendp": "0.16.0"}
_SCHEMA = Schema((Column("x", "float"), Column("n", "int")), 1, 100)
_FLOATS = [4.8, 0.3, 0.6, -7.1, 49.0, 1e300, 5e-324, -0.0, math.inf, -math.inf, 123.4567, None]
_WHOLES = [7, -7, 0, 1, 48, 49, 2**53 + 1, -(2**63), 2**63 - 1, None, 3, 10]


@lru_cache(maxsize=1)
def check() -> None:
    """Raises StateError where a library is another than was tried, or computes a row otherwise among others than alone."""
    for library, tried in TRIED.items():
        if version(library) != tried:
            raise StateError(
                f"{library} {version(library)} is installed, and questions of tables were tried with {tried}: "
                f"pip install '{library}=={tried}'"
            )
    x, n = Col("x"), Col("n")
    exprs = [lower(node, _SCHEMA) for node in _tried(x) + _tried(n) + [Op("truediv", (x, n)), Op("mul", (x, n))]]
    frame = pl.DataFrame({"v0": _FLOATS, "v1": _WHOLES}, schema={"v0": pl.Float64, "v1": pl.Int64})
    named = [e.alias(str(i)) for i, e in enumerate(exprs)]
    together = frame.lazy().select(named).collect()
    alone = pl.concat([frame.slice(i, 1).lazy().select(named).collect() for i in range(frame.height)])
    if not together.equals(alone):
        raise StateError(
            "polars computes a row otherwise alone than among others on this machine, so that no answer would be private; "
            "please report it with your processor's name"
        )


def _tried(column: Col) -> list[Node]:
    forms = [Op(name, (column, Lit(by))) for name in ("truediv", "floordiv", "mod", "mul", "add", "sub") for by in (0.1, 3, 7)]
    return [*forms, Op("ge", (column, Lit(0.3))), Op("clip", (Op("cast", (column, Lit("float"))), Lit(-3.0), Lit(9.0)))]
