"""What happens to a ``%%remote`` cell before it travels: names checked, run here on the mock, results judged."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import linecache
import math
import symtable
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syft_lab import values
from syft_lab.cell import Cell
from syft_lab.errors import UsageError
from syft_lab.printable import printed

FILE = "<%%remote on the mock>"
RERUN_SECONDS = 10.0


def undefined(code: str, given: Iterable[str]) -> list[str]:
    """Names that the code reads and nobody defines: not the cell, not ``given``, not Python. Sorted."""
    tree = ast.parse(code)
    if any(isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names) for node in ast.walk(tree)):
        return []  # whatever the star brings
    top = symtable.symtable(code, FILE, "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    read: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            outside = table is top or symbol.is_global()
            if outside and symbol.is_referenced():
                read.add(symbol.get_name())
            if symbol.is_declared_global() and symbol.is_assigned():
                defined.add(symbol.get_name())
    known = defined | set(given) | set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    return sorted(read - known)


def check_names(cell: Cell, notebook: Mapping[str, Any]) -> None:
    """Raises UsageError for names that the owner will not know, saying which of them exist in this notebook only."""
    missing = undefined(cell.code, [*cell.variables, *cell.params])
    if not missing:
        return
    here = [n for n in missing if n in notebook]
    if here:
        raise UsageError(
            f"{', '.join(here)} exist{'s' if len(here) == 1 else ''} only in this notebook, not at the owner: define or import "
            f"{'it' if len(here) == 1 else 'them'} in the cell, or give a plain value with --param NAME=VALUE"
        )
    raise UsageError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not defined in the cell")


def as_frame(mock: Any) -> Any:
    """A mock in polars as the cell will see its table: the types that the owner's sandbox gives, nulls included."""
    import numpy as np
    import pandas as pd
    import polars as pl

    columns: dict[str, Any] = {}
    for series in mock.get_columns():
        items, nulls = series.to_list(), series.null_count()
        if series.dtype == pl.String:
            columns[series.name] = pd.array(items, dtype=pd.StringDtype("pyarrow", na_value=np.nan))
        elif series.dtype.is_float():
            columns[series.name] = np.array([math.nan if v is None else v for v in items], dtype="float64")
        elif series.dtype == pl.Boolean:
            columns[series.name] = pd.array(items, dtype="boolean") if nulls else np.array(items, dtype=bool)
        else:
            columns[series.name] = pd.array(items, dtype="Int64") if nulls else np.array(items, dtype="int64")
    return pd.DataFrame(columns)


def run_on_mock(cell: Cell, mocks: Mapping[str, Any]) -> dict[str, values.Value]:
    """Run the cell here, in a namespace of its own, on mocks; gives what it would return. Whatever it raises comes out.

    Raises UsageError where a result is missing, or is nothing that may leave.
    """
    __tracebackhide__ = True  # IPython shows the cell's own frames
    namespace: dict[str, Any] = {"__name__": "__main__", **mocks, **cell.params}
    linecache.cache[FILE] = (len(cell.code), None, cell.code.splitlines(True), FILE)
    exec(compile(cell.code, FILE, "exec"), namespace)  # noqa: S102 - the analyst's own cell, on their own machine
    missing = [n for n in cell.returns if n not in namespace]
    if missing:
        raise UsageError(f"the cell does not make {missing[0]}, which --return names")
    return values.decode(values.encode({n: namespace[n] for n in cell.returns}))


def parameter(text: str) -> tuple[str, Any]:
    """``age=40`` as a name and a number, truth value or text; raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"--param {ascii(text)[:60]}: write NAME=VALUE, such as age=40")
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = value
    if not isinstance(found, bool | int | float | str):
        raise UsageError(f"--param {name.strip()}: a parameter is a number, true or false, or text")
    return name.strip(), found


@dataclass(frozen=True)
class Rerun:
    """How a cell fared on the mock and on harder ones: pairs of what it ran on and its traceback, empty where it ran."""

    tries: tuple[tuple[str, str], ...]

    @property
    def traceback(self) -> str:
        """The first traceback; empty where nothing broke it."""
        return next((trace for _, trace in self.tries if trace), "")

    @printed
    def __repr__(self) -> str:
        broke = [(what, trace) for what, trace in self.tries if trace]
        ran = ", ".join(what for what, trace in self.tries if not trace)
        if not broke:
            return f"Run again here, it works ({ran}): something in the real data differs that no mock shows."
        what, trace = broke[0]
        also = f"; also {', '.join(w for w, _ in broke[1:])}" if broke[1:] else ""
        return f"Run again here, it breaks {what}{also}" + (f" (it works {ran})" if ran else "") + f":\n{trace}"


def harder(mock: Any) -> Iterator[tuple[str, Any]]:
    """A mock in polars, and others that are harder on code; nothing but public facts goes in."""
    import polars as pl

    third = pl.int_range(pl.len()) % 3 == 0
    yield "on the mock", mock
    yield (
        "on the mock with nulls",
        mock.select(pl.when(third).then(None).otherwise(pl.nth(i)).alias(n) for i, n in enumerate(mock.columns)),
    )
    yield "on one row of the mock", mock.head(1)
    yield "on the mock without rows", mock.head(0)
    yield (
        "on a mock whose rows are all alike",
        pl.concat([mock.head(1)] * max(1, min(mock.height, 20))) if mock.height else mock,
    )


def rerun(cell: Cell, mocks: Mapping[str, Sequence[tuple[str, Any]]]) -> Rerun:
    """Run a cell on each level of its mocks, in silence; ``mocks`` has the same levels for each variable."""
    tries: list[tuple[str, str]] = []
    begun = time.monotonic()
    for level in range(len(next(iter(mocks.values())))):
        given = {name: levels[level][1] for name, levels in mocks.items()}
        what = next(iter(mocks.values()))[level][0]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                run_on_mock(cell, given)
            tries.append((what, ""))
        except Exception as error:
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename != FILE:
                frames = frames.tb_next
            tries.append((what, "".join(traceback.format_exception(type(error), error, frames)).rstrip()))
        if time.monotonic() - begun > RERUN_SECONDS:
            break
    return Rerun(tuple(tries))
