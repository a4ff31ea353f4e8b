"""What catches the eye in code, found without running it. Hints for an owner: code can hide what it does from all of this."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from syft_lab.cell import Cell
from syft_lab.kernel.requests.flow import COLUMN, TABLE, Call, Flow

MAX_HINTS = 20
_REACHING = ("os", "sys", "socket", "subprocess", "ctypes", "shutil", "pathlib", "urllib", "requests", "http", "importlib",
             "multiprocessing", "threading", "signal", "gc", "inspect", "builtins", "pickle", "marshal")  # fmt: skip
_RUNNING = ("eval", "exec", "compile", "__import__", "getattr", "setattr", "globals", "locals", "vars", "open", "breakpoint")
_ROWS = {"iloc": "picks rows by position", "loc": "picks rows", "iat": "picks a single cell", "at": "picks a single cell",
         "head": "takes the first rows", "tail": "takes the last rows", "sample": "takes rows",
         "nlargest": "takes the largest rows", "nsmallest": "takes the smallest rows",
         "itertuples": "goes through rows", "iterrows": "goes through rows",
         "to_dict": "turns rows into Python objects", "tolist": "turns values into a list", "to_numpy": "takes raw values",
         "to_list": "turns values into a list", "to_records": "turns rows into Python objects", "xs": "picks rows",
         "take": "picks rows by position", "topk": "takes the largest values", "eval": "runs a text", "melt": "lists the cells",
         "values": "takes raw values", "query": "filters by a text", "unique": "lists the values there are"}  # fmt: skip
_ONE = {"min": "a minimum is one person's value", "max": "a maximum is one person's value", "idxmin": "names one row",
        "idxmax": "names one row", "mode": "a mode can be one person's value", "first": "takes one row of a group",
        "last": "takes one row of a group", "nth": "takes one row of a group", "describe": "its ends are one person's values",
        "quantile": "one near 0 or 1 is one person's value", "percentile": "one near 0 or 100 is one person's value",
        "nanpercentile": "one near 0 or 100 is one person's value", "nanquantile": "one near 0 or 1 is one person's value",
        "amax": "a maximum is one person's value", "amin": "a minimum is one person's value",
        "nanmax": "a maximum is one person's value", "nanmin": "a minimum is one person's value",
        "cummax": "a maximum is one person's value", "cummin": "a minimum is one person's value",
        "argmax": "names one row", "argmin": "names one row", "rank": "the first and the last are persons",
        "sort": "the first and the last are persons", "argsort": "the first and the last are persons",
        "sort_values": "the first and the last rows are persons"}  # fmt: skip
_NAMED = ("agg", "aggregate", "apply", "transform", "pipe", "reduce")  # take what they do as an argument
_CELLS = {"groupby": "groups can be small", "value_counts": "counts can be small", "crosstab": "cells can be small",
          "pivot_table": "cells can be small"}  # fmt: skip


def hints(cell: Cell) -> list[str]:
    """Hints on a cell, each with the line it is about; most telling first."""
    try:
        tree = ast.parse(cell.code)
    except (SystemError, RecursionError, MemoryError):  # the first: another thread built a tree at the same moment (3.11)
        return ["hints could not read this code: look closely"]
    found: dict[str, int | None] = {}
    for rank in (_reaches, _hides, _rows):
        for text, line in rank(tree, cell):
            found.setdefault(text, line)
    return [f"line {line}: {text}" if line else text for text, line in found.items()][:MAX_HINTS]


def _reaches(tree: ast.Module, cell: Cell) -> Iterable[tuple[str, int | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.partition(".")[0] in _REACHING:
                    yield f"imports {name}, which reaches beyond the data", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _RUNNING:
            yield f"calls {node.func.id}", node.lineno
        elif isinstance(node, ast.Attribute) and node.attr.startswith("__") and node.attr.endswith("__"):
            yield f"uses {node.attr}", node.lineno
        elif isinstance(node, ast.Attribute) and node.attr == "sleep":
            yield "sleeps: how long a run takes shows to the analyst", node.lineno


def _hides(tree: ast.Module, cell: Cell) -> Iterable[tuple[str, int | None]]:
    if not cell.code.isascii():
        line = next((i for i, text in enumerate(cell.code.split("\n"), 1) if not text.isascii()), None)
        yield "holds characters beyond ASCII, which can look like others", line
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            yield "catches errors: it may do something else on real data than on the mock", node.lineno
        elif isinstance(node, ast.Raise | ast.Assert):
            yield "raises on a condition: that a run fails shows to the analyst", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len":
            if any(isinstance(a, ast.Name) and a.id in cell.variables for a in node.args):
                yield "looks at the number of rows: it can tell the mock from the data", node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 400:
            yield "holds a long text", node.lineno


def _rows(tree: ast.Module, cell: Cell) -> Iterable[tuple[str, int | None]]:
    flow = Flow(cell.variables, _NAMES)
    if not flow.read(tree):
        yield "is too deep or too tangled to follow what it returns", None
    for name in cell.returns:
        what = flow.holds.get(name, frozenset())
        for kind in (TABLE, COLUMN):
            if kind in what:
                yield f"returns {name}, which is {kind} or holds it", flow.lines.get(name)
    for call in flow.calls:
        yield from ((text, call.node.lineno) for text in _of_call(call))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from ((f".{node.attr}{hint}", node.lineno) for hint in _of_attribute(node.attr))
        elif isinstance(node, ast.Compare) and any(isinstance(o, ast.Eq) for o in node.ops):
            right = node.comparators[0]
            value = right.value if isinstance(right, ast.Constant) else None
            if isinstance(value, int | float) and abs(value) > 1000:
                yield f"compares with {value}: perhaps one person", node.lineno


def _of_attribute(name: str) -> Iterable[str]:
    if name in _ROWS:
        yield f" {_ROWS[name]}"
    for names in (_ONE, _CELLS):
        if name in names:
            yield f": {names[name]}"


def _of_call(call: Call) -> Iterable[str]:
    """What a call does by its name, also through another name, or by the names that it is given, as ``agg("max")`` is."""
    if call.node.args:
        yield from (f"calls {name}: {_NAMES[name]}" for name in sorted(call.called & set(_NAMES)))
    if call.method in _NAMED:
        yield from (f".{call.method}({name}): {_NAMES[name]}" for name in sorted(call.given & set(_NAMES)))


_BUILTIN = {"max": "a maximum is one person's value", "min": "a minimum is one person's value",
            "sorted": "the first and the last are persons", "list": "turns values into a list"}  # fmt: skip
_NAMES = {**_BUILTIN, **_ONE}
