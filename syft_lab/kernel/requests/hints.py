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
        "last": "takes one row of a group", "nth": "takes one row of a group"}  # fmt: skip
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
    for name in cell.returns:
        if name in cell.variables:
            yield f"returns {name}, which is a dataset", None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in cell.variables:
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in cell.returns:
                    yield f"returns {target.id}, which is a dataset", node.lineno
        if isinstance(node, ast.Attribute):
            for names in (_ROWS, _ONE, _CELLS):
                if node.attr in names:
                    yield (
                        f".{node.attr} {names[node.attr]}" if names is _ROWS else f".{node.attr}: {names[node.attr]}",
                        node.lineno,
                    )
        elif isinstance(node, ast.Compare) and any(isinstance(o, ast.Eq) for o in node.ops):
            right = node.comparators[0]
            value = right.value if isinstance(right, ast.Constant) else None
            if isinstance(value, int | float) and abs(value) > 1000:
                yield f"compares with {value}: perhaps one person", node.lineno
