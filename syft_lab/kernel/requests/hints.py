"""What catches the eye in code, found without running it. Hints for an owner: code can hide what it does from all of this."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from syft_lab.cell import Cell

MAX_HINTS = 20
_REACHING = ("os", "sys", "socket", "subprocess", "ctypes", "shutil", "pathlib", "urllib", "requests", "http", "importlib",
             "multiprocessing", "threading", "signal", "gc", "inspect", "builtins", "pickle", "marshal")  # fmt: skip
_RUNNING = ("eval", "exec", "compile", "__import__", "getattr", "setattr", "globals", "locals", "vars", "open", "breakpoint")
_ROWS = {"iloc": "picks rows by position", "loc": "picks rows", "iat": "picks a single cell", "at": "picks a single cell",
         "head": "takes the first rows", "tail": "takes the last rows", "sample": "takes rows",
         "nlargest": "takes the largest rows", "nsmallest": "takes the smallest rows",
         "itertuples": "goes through rows", "iterrows": "goes through rows",
         "to_dict": "turns rows into Python objects", "tolist": "turns values into a list", "to_numpy": "takes raw values",
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
        "sort_values": "the first and the last rows are persons"}  # fmt: skip
_NAMED = ("agg", "aggregate", "apply", "transform", "pipe", "reduce")  # take what they do as an argument
_KEEPING = ("copy", "dropna", "fillna", "astype", "reset_index", "set_index", "sort_index", "sort_values", "abs", "round",
            "clip", "to_frame", "rename", "squeeze", "detach", "clone", "cpu", "numpy", "T", "loc", "iloc")  # fmt: skip
_CELLS = {"groupby": "groups can be small", "value_counts": "counts can be small", "crosstab": "cells can be small",
          "pivot_table": "cells can be small"}  # fmt: skip


def hints(cell: Cell) -> list[str]:
    """Hints on a cell, each with the line it is about; most telling first."""
    try:
        tree = ast.parse(cell.code)
    except (SystemError, RecursionError, MemoryError):  # the first: another thread built a tree at the same moment (3.11)
        return []
    found: dict[str, int | None] = {}
    for rank in (_reaches, _hides, _rows):
        for text, line in rank(tree, cell):
            found.setdefault(text, line)
    return [f"line {line}: {text}" if line else text for text, line in found.items()][:MAX_HINTS]


def _reaches(tree: ast.AST, cell: Cell) -> Iterable[tuple[str, int | None]]:
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


def _hides(tree: ast.AST, cell: Cell) -> Iterable[tuple[str, int | None]]:
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


def _rows(tree: ast.AST, cell: Cell) -> Iterable[tuple[str, int | None]]:
    holds = _holding(tree, cell)
    for name in cell.returns:
        if name in cell.variables:
            yield f"returns {name}, which is a dataset", None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            what = _what(node.value, holds)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if what in (_TABLE, _COLUMN) and isinstance(target, ast.Name) and target.id in cell.returns:
                    yield f"returns {target.id}, which is {what}", node.lineno
        if isinstance(node, ast.Attribute):
            yield from ((f".{node.attr}{hint}", node.lineno) for hint in _of_attribute(node.attr))
        elif isinstance(node, ast.Call):
            yield from ((text, node.lineno) for text in _of_call(node, holds))
        elif isinstance(node, ast.Compare) and any(isinstance(o, ast.Eq) for o in node.ops):
            right = node.comparators[0]
            value = right.value if isinstance(right, ast.Constant) else None
            if isinstance(value, int | float) and abs(value) > 1000:
                yield f"compares with {value}: perhaps one person", node.lineno


_TABLE, _COLUMN = "a dataset", "a whole column, each person's value"


def _of_attribute(name: str) -> Iterable[str]:
    if name in _ROWS:
        yield f" {_ROWS[name]}"
    for names in (_ONE, _CELLS):
        if name in names:
            yield f": {names[name]}"


def _of_call(node: ast.Call, holds: dict[str, str]) -> Iterable[str]:
    """What a call does by its name, also through another name, or by the names that it is given, as ``agg("max")`` is."""
    function = node.func
    name = holds.get(function.id, function.id) if isinstance(function, ast.Name) else ""
    if name in _BUILTIN and node.args:
        yield f"calls {name}: {_BUILTIN[name]}"
    if isinstance(function, ast.Attribute) and function.attr in _NAMED:
        given = [*node.args, *(k.value for k in node.keywords)]
        for part in [p for arg in given for p in ast.walk(arg)]:
            named = part.value if isinstance(part, ast.Constant) else part.id if isinstance(part, ast.Name) else None
            named = holds.get(named, named) if isinstance(named, str) else ""
            hint = _ONE.get(named) or _BUILTIN.get(named)
            if hint:
                yield f".{function.attr}({named}): {hint}"


_BUILTIN = {"max": "a maximum is one person's value", "min": "a minimum is one person's value",
            "sorted": "the first and the last are persons", "list": "turns values into a list"}  # fmt: skip


def _holding(tree: ast.AST, cell: Cell) -> dict[str, str]:
    """What names stand for, as far as assignments tell: a dataset, a column, or a function such as max."""
    holds = dict.fromkeys(cell.variables, _TABLE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            what = _what(node.value, holds)
            if what:
                holds.setdefault(node.targets[0].id, what)
    return holds


def _what(node: ast.AST, holds: dict[str, str]) -> str:
    """What an expression is: a dataset, a column of one, or a function; empty for all else."""
    if isinstance(node, ast.Name):
        return holds.get(node.id, node.id if node.id in _BUILTIN else "")
    if isinstance(node, ast.Attribute):
        of = _what(node.value, holds)
        if node.attr in _KEEPING:
            return of
        return _COLUMN if of == _TABLE else ""
    if isinstance(node, ast.Subscript):
        of = _what(node.value, holds)
        return _COLUMN if of in (_TABLE, _COLUMN) else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _KEEPING:
        return _what(node.func.value, holds)
    return ""
