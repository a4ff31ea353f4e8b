"""A question in words, as cards, receipts and the owner's log show it: the whole expression, written as pandas would have it.

Made from the query alone, so it is the same text on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from keyword import iskeyword

from syft_lab.expr import Col, Lit, Node, Op, Query
from syft_lab.printable import printable
from syft_lab.schema import Schema

LONGEST, LONGEST_LITERAL = 300, 60
_SIGNS: Mapping[str, tuple[str, int]] = {  # and how tightly each binds, as in Python
    "or": ("|", 1), "xor": ("^", 2), "and": ("&", 3), "eq": ("==", 0), "ne": ("!=", 0), "lt": ("<", 0), "le": ("<=", 0),
    "gt": (">", 0), "ge": (">=", 0), "add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5), "truediv": ("/", 5),
    "floordiv": ("//", 5), "mod": ("%", 5),
}  # fmt: skip
_SIGN, _WHOLE = 6, 7
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "fill_null", "cast")
_METHODS = {"is_null": "isna", "fill_null": "fillna", "clip": "clip", "is_in": "isin", "between": "between", "cast": "astype"}


def question(query: Query, source: str) -> str:
    """Such as ``mean of age > 65 by ward where sex == 'f' in visits``; cut where it is very long."""
    what = f"{query.aggregate} of {'rows' if query.value is None else expression(query.value)}"
    by = f" by {', '.join(map(_name, query.by))}" if query.by else ""
    where = f" where {expression(query.filter)}" if query.filter is not None else ""
    text = what + by + where
    if len(text) > LONGEST:  # two that begin alike are still told apart
        text = f"{text[:LONGEST]}… [{query.digest[:8]}]"
    return f"{text} in {source}"


def expression(node: Node) -> str:
    """An expression as pandas would have it; names that are no identifiers stand in backticks. Raises nothing."""
    return _written(node)[0]


def notes(query: Query, schema: Schema) -> list[str]:
    """What an answer leaves out or moves, by its form alone: values beyond bounds, and rows of no declared category."""
    found = []
    names = list(dict.fromkeys(_relied_on(query.value))) if query.value is not None and query.aggregate != "count" else []
    bounded = [(n, b) for n in names if (b := schema.column(n).bounds) is not None]
    if bounded:
        told = ", ".join(f"{_name(n)} {low:g} to {high:g}" for n, (low, high) in bounded)
        found.append(f"values beyond the bounds ({told}) are clipped to them")
    declared = [n for n in query.by if schema.column(n).kind != "bool"]
    if declared:
        found.append(f"rows with another {' or '.join(map(_name, declared))}, or none, are in no group")
    return found


def _relied_on(node: Node) -> Iterable[str]:
    """Columns whose published bounds the bounds of an expression come from."""
    if isinstance(node, Col):
        yield node.name
    elif isinstance(node, Op) and node.name in _ARITHMETIC:
        for arg in node.args:
            yield from _relied_on(arg)


def _written(node: Node) -> tuple[str, int]:
    """Text, and how tightly what is outermost in it binds."""
    if isinstance(node, Col):
        return _name(node.name), _WHOLE
    if isinstance(node, Lit):
        text = repr(node.value)
        if len(text) > LONGEST_LITERAL:
            text = f"{text[:LONGEST_LITERAL]}…' [{sha256(text.encode()).hexdigest()[:8]}]"
        return text, _WHOLE
    args = [_written(a) for a in node.args]
    if node.name in _SIGNS and len(args) == 2:
        sign, binds = _SIGNS[node.name]
        if node.name == "sub" and node.args[0] == Lit(0):
            return f"-{_inside(args[1], _SIGN)}", _SIGN
        return f"{_inside(args[0], binds or 1)} {sign} {_inside(args[1], binds + 1)}", binds
    if node.name == "not" and len(args) == 1:
        inner = node.args[0]
        if isinstance(inner, Op) and inner.name == "is_null" and len(inner.args) == 1:
            return f"{_inside(_written(inner.args[0]), _WHOLE)}.notna()", _WHOLE
        return f"~{_inside(args[0], _SIGN)}", _SIGN
    subject, *others = args or [("", _WHOLE)]
    given = [text for text, _ in others]
    if node.name == "is_in":
        given = [f"[{', '.join(given)}]"]
    if node.name == "between" and given[2:] == ["'both'"]:
        given = given[:2]
    return f"{_inside(subject, _WHOLE)}.{_METHODS.get(node.name, node.name)}({', '.join(given)})", _WHOLE


def _inside(written: tuple[str, int], binds: int) -> str:
    text, bound = written
    return text if bound >= binds else f"({text})"


def _name(name: str) -> str:
    """A column's name; in backticks, and with what can't be seen or would deceive as its code, where it is no plain one."""
    if name.isidentifier() and name.isascii() and not iskeyword(name) and name != "rows":
        return name
    shown = "".join(ch if printable(ch) == ch and ch not in "`\\" else f"\\u{ord(ch):04x}" for ch in name)
    return f"`{shown}`"
