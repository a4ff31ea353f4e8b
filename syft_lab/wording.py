"""A question in words, as cards, receipts and the owner's log show it: the whole expression, written as pandas would have it.

Made from the query alone, so it is the same text on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from keyword import iskeyword
from typing import Any

from syft_lab import canonical
from syft_lab.errors import LabError
from syft_lab.expr import Col, Lit, Node, Op, Query, infer, parse_query
from syft_lab.printable import printable
from syft_lab.schema import Schema

LONGEST, LONGEST_LITERAL = 270, 40
_SIGNS: Mapping[str, tuple[str, int]] = {  # and how tightly each binds, as in Python
    "or": ("|", 1), "xor": ("^", 2), "and": ("&", 3), "eq": ("==", 0), "ne": ("!=", 0), "lt": ("<", 0), "le": ("<=", 0),
    "gt": (">", 0), "ge": (">=", 0), "add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5), "truediv": ("/", 5),
    "floordiv": ("//", 5), "mod": ("%", 5),
}  # fmt: skip
_SIGN, _WHOLE = 6, 7
_METHODS = {"is_null": "isna", "fill_null": "fillna", "clip": "clip", "is_in": "isin", "between": "between", "cast": "astype"}


def question(query: Query, source: str) -> str:
    """Such as ``mean of age > 65 by ward where sex == 'f' in visits``; cut where it is very long."""
    what = f"{query.aggregate} of {'rows' if query.value is None else expression(query.value)}"
    by = f" by {', '.join(map(_name, query.by))}" if query.by else ""
    where = f" where {expression(query.filter)}" if query.filter is not None else ""
    text = what + by + where
    if len(text) > LONGEST:  # two that begin alike are still told apart
        text = f"{text[:LONGEST]}… [{query.digest[:32]}]"
    return f"{text} in {source}"


def asked(body: Mapping[str, Any]) -> str:
    """What an entry of a journal, or a receipt, asked: a question or a tensor in words; empty where it is about neither.

    Made from what was computed and not from words beside it, so that older entries and those of others are worded alike.
    """
    source = printable(body.get("dataset", ""))
    if isinstance(body.get("plan"), Mapping):
        return tensor(body["plan"], source)
    if "query" not in body:
        return ""
    try:
        return question(parse_query(canonical.dumps(body["query"])), source)
    except (LabError, TypeError, ValueError):  # what some other owner wrote
        return "a question that can't be read"


def tensor(plan: Mapping[str, Any], source: str) -> str:
    """Such as ``a tensor [] of p: %0 = dataset p v1['age']; %1 = aten.mean.default(%0)``; cut where it is very long.

    ``plan`` has a shape, the operations in lines, and a digest of both.
    """
    text = printable("; ".join(str(plan.get("text", "")).split("\n")))
    if len(text) > LONGEST:  # the first operation tells what is read, the last what is released
        half = LONGEST // 2
        text = f"{text[:half]} … {text[-half:]} [{printable(plan.get('digest', ''))[:32]}]"
    return f"a tensor {printable(plan.get('shape'))} of {source}" + (f": {text}" if text else "")


def expression(node: Node) -> str:
    """An expression as pandas would have it; names that are no identifiers stand in backticks. Raises nothing."""
    return _written(node)[0]


def notes(query: Query, schema: Schema) -> list[str]:
    """What an answer leaves out or moves, by its form alone: values beyond bounds, and rows of no declared category."""
    found = []
    value = query.value
    if value is not None and query.aggregate != "count" and infer(value, schema).kind != "bool":
        kind, columns = query.check(schema), dict.fromkeys(_columns(value))
        given = [(n, b) for n in columns if (b := schema.column(n).bounds) is not None]
        bounds = "(" + ", ".join(f"{_name(n)} {low:g} to {high:g}" for n, (low, high) in given) + ")"
        if isinstance(value, Col):
            found.append(f"values beyond the bounds {bounds} are clipped to them")
        elif given and not (isinstance(value, Op) and value.args[1:] == (Lit(kind.low), Lit(kind.high))):
            ends = f"{kind.low:g} to {kind.high:g}, which the bounds {bounds} allow,"
            found.append(f"values beyond {ends} are clipped to that")
    asked = [Op("is_null", (query.value,))] if query.value is not None else []
    texts = [n for node in (*asked, query.filter) if node is not None for n in _missed(node, schema)]
    if texts:
        told = ", ".join(map(_name, dict.fromkeys(texts)))
        found.append(f"other values of {told} than the declared categories count as missing")
    if query.by:
        found.append(f"rows with another {' or '.join(map(_name, query.by))}, or none, are in no group")
    return found


def _columns(node: Node) -> Iterable[str]:
    """The columns of an expression."""
    if isinstance(node, Col):
        yield node.name
    elif isinstance(node, Op):
        for arg in node.args:
            yield from _columns(arg)


def _missed(node: Node, schema: Schema) -> Iterable[str]:
    """Columns of text with categories of which an expression asks whether they are missing."""
    if not isinstance(node, Op):
        return
    for arg in node.args:
        if node.name == "is_null" and isinstance(arg, Col):
            column = schema.column(arg.name)
            if column.kind == "text" and column.categories is not None:
                yield arg.name
        yield from _missed(arg, schema)


def _written(node: Node) -> tuple[str, int]:
    """Text, and how tightly what is outermost in it binds."""
    if isinstance(node, Col):
        return _name(node.name), _WHOLE
    if isinstance(node, Lit):
        text = repr(node.value)
        if len(text) > LONGEST_LITERAL:
            text = f"{text[:LONGEST_LITERAL]}…' [{sha256(text.encode()).hexdigest()[:32]}]"
        return text, _WHOLE
    args = [_written(a) for a in node.args]
    if node.name in _SIGNS and len(args) == 2:
        sign, binds = _SIGNS[node.name]
        if node.name == "sub" and repr(node.args[0]) == repr(Lit(0)):  # 0.0, -0.0 and False are equal to 0
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
