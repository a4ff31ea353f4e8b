"""From the typed expression tree to polars, row by row: what a row gives depends on that row alone.

That is what the price of a question rests on (`queries`), so the list is closed and each entry was tried on frames of one row
and of many (`tests/attacks/test_distance.py`; `engine` tries some at every start). Division by a constant is the trap: polars
divides one row truly, and many rows by multiplying with the reciprocal (polars issue 20038), so that a row's value changes
when another joins it: here constants are columns when something is divided by them, and each row is divided truly.

Comparisons and logic give true or false, never null, as in pandas, but for the opposite of a missing flag, which is missing.
Floats: ``a // b`` is the floor of the quotient as a float has it, and ``a % b`` what that leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_
from typing import Any

import polars as pl

from syft_lab.budget.tables import STORED, stored_names
from syft_lab.expr import Col, Lit, Node, Op, infer
from syft_lab.schema import Kind, Schema


def lower(node: Node, schema: Schema) -> pl.Expr:
    """The polars expression of a checked node over the stored columns."""
    if isinstance(node, Col):
        return pl.col(stored_names(schema, schema.column(node.name))[0])
    if isinstance(node, Lit):
        return pl.lit(node.value)
    return _LOWER[node.name](node, schema)


def present(node: Node, schema: Schema) -> pl.Expr:
    """True where the value is neither null nor NaN."""
    value = lower(node, schema)
    return value.is_not_null() & value.is_not_nan() if infer(node, schema).may_be_nan else value.is_not_null()


def truth(node: Node, schema: Schema) -> pl.Expr:
    """True or false for each row; a null is false."""
    value = lower(node, schema)
    nullable = isinstance(node, Col) or (isinstance(node, Op) and node.name in ("fill_null", "not"))
    return value.fill_null(False) if nullable else value


def _pair(node: Op, schema: Schema) -> tuple[Any, Any]:
    """Both operands as expressions (constants as they are), with an integer made a float where they differ."""
    kinds = [infer(n, schema).kind for n in node.args]
    mixed = "float" in kinds and "int" in kinds
    left, right = (_operand(n, schema, mixed) for n in node.args)
    return left, right


def _operand(node: Node, schema: Schema, as_float: bool) -> Any:
    if isinstance(node, Lit):
        return float(node.value) if as_float else node.value
    value = lower(node, schema)
    return value.cast(pl.Float64, strict=False) if as_float and infer(node, schema).kind == "int" else value


def _compare(node: Op, schema: Schema) -> pl.Expr:
    if node.name == "ne":
        return ~_compare(Op("eq", node.args), schema)
    left, right = _pair(node, schema)
    column = node.args[0]
    if isinstance(column, Col) and infer(column, schema).kind == "text" and schema.column(column.name).categories:
        right = (schema.column(column.name).categories or ()).index(right)
    if not isinstance(left, pl.Expr):
        left = pl.lit(left)
    found: pl.Expr = getattr(left, f"__{node.name}__")(right)
    for operand in node.args:  # polars ranks NaN above all numbers; pandas compares it false
        if infer(operand, schema).may_be_nan:
            found = found & lower(operand, schema).is_not_nan()
    return found.fill_null(False)


def _logic(node: Op, schema: Schema) -> pl.Expr:
    if node.name == "not":
        inner = node.args[0]
        nullable = isinstance(inner, Col) or (isinstance(inner, Op) and inner.name == "not")
        return ~(lower(inner, schema) if nullable else truth(inner, schema))
    operands = [truth(a, schema) for a in node.args]
    if node.name == "xor":
        return (operands[0] | operands[1]) & ~(operands[0] & operands[1])
    return reduce(and_ if node.name == "and" else or_, operands)


def _arith(node: Op, schema: Schema) -> pl.Expr:
    left, right = _pair(node, schema)
    base: Any = left if isinstance(left, pl.Expr) else pl.lit(left)
    found: pl.Expr = getattr(base, f"__{node.name}__")(right)
    return found


def _divided(node: Op, schema: Schema) -> pl.Expr:
    if node.name != "truediv" and all(infer(n, schema).kind == "int" for n in node.args):
        return _arith(node, schema)  # of whole numbers, which is exact
    left, right = (_operand(a, schema, True) for a in node.args)
    if not isinstance(right, pl.Expr):
        right = each_row(right, pl.col(stored_names(schema, schema.columns[0])[0]))
    quotient: pl.Expr = (left if isinstance(left, pl.Expr) else pl.lit(left)) / right
    if node.name == "truediv":
        return quotient
    return quotient.floor() if node.name == "floordiv" else left - quotient.floor() * right


def each_row(constant: float, beside: pl.Expr) -> pl.Expr:
    """A constant as a column as long as ``beside``, which polars does not take for a constant; no row's value is in it."""
    return beside.is_null().cast(pl.Float64) * 0.0 + constant


def _is_null(node: Op, schema: Schema) -> pl.Expr:
    return ~present(node.args[0], schema)


def _fill(node: Op, schema: Schema) -> pl.Expr:
    value, filler = _pair(node, schema)
    filled: pl.Expr = value.fill_nan(filler) if infer(node.args[0], schema).may_be_nan else value
    return filled.fill_null(filler)


def _is_in(node: Op, schema: Schema) -> pl.Expr:
    return reduce(or_, (_compare(Op("eq", (node.args[0], a)), schema) for a in node.args[1:]))


def _between(node: Op, schema: Schema) -> pl.Expr:
    value, low, high, side = node.args
    inclusive = side.value if isinstance(side, Lit) else "both"
    above = Op("ge" if inclusive in ("both", "left") else "gt", (value, low))
    below = Op("le" if inclusive in ("both", "right") else "lt", (value, high))
    return _compare(above, schema) & _compare(below, schema)


def _clip(node: Op, schema: Schema) -> pl.Expr:
    value, low, high = node.args
    number = float if infer(value, schema).kind == "float" else int
    bounds = [number(a.value) if isinstance(a, Lit) else number(0) for a in (low, high)]
    return lower(value, schema).clip(*bounds)


def _cast(node: Op, schema: Schema) -> pl.Expr:
    target = node.args[1]
    # Never strict: a strict cast raises on a private row. What can't be cast becomes null.
    return lower(node.args[0], schema).cast(STORED["int" if target == Lit("int") else "float"], strict=False)


_LOWER: Mapping[str, Callable[[Op, Schema], pl.Expr]] = {
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compare),
    **dict.fromkeys(("and", "or", "xor", "not"), _logic),
    **dict.fromkeys(("add", "sub", "mul"), _arith),
    **dict.fromkeys(("truediv", "floordiv", "mod"), _divided),
    "is_null": _is_null,
    "fill_null": _fill,
    "is_in": _is_in,
    "between": _between,
    "clip": _clip,
    "cast": _cast,
}


def numbers(node: Node, schema: Schema, kind: Kind) -> pl.Expr:
    """The values of a checked node as numbers: true counts as 1."""
    value = lower(node, schema)
    return value.cast(pl.Int64, strict=False) if kind == "bool" else value
