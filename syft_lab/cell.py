"""A cell that asks to run at an owner: its terms, checked alike on both sides, and the digest that is approved. Pure."""

from __future__ import annotations

import hashlib
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from syft_lab import canonical, expr
from syft_lab.errors import UsageError, WireError

MAX_CODE, MAX_REASON, MAX_TEXT = 64 << 10, 2_000, 1_000
MAX_JSON = 192 << 10
MOCK_ROWS, MAX_MOCK = 64, 1 << 28
MAX_USED, MAX_RETURNS, MAX_PARAMS, MAX_COLUMNS = 64, 64, 64, 1000
NO_RESULT = "what it returned is no result: a result is a number, an array, a tensor, or a table"
RAISED = "the code raised an error on the real data"
CODE_FAILURES = (NO_RESULT, RAISED)  # what an analyst is told where the code is at fault: constants, whatever the data are
Param = bool | int | float | str


class Use(NamedTuple):
    """A dataset in one version, as a cell reads it: whole, or the rows that pass ``filter`` and some ``columns``.

    ``name`` is the variable in the cell (default: the dataset's name). No columns means all of them.
    """

    dataset: str
    version: int
    name: str = ""
    filter: expr.Node | None = None
    columns: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The Python name inside the cell."""
        return self.name or variable(self.dataset)

    def to_json(self) -> Any:
        """A pair for a whole dataset, an object for a part of one."""
        if self == Use(self.dataset, self.version):
            return [self.dataset, self.version]
        chosen = None if self.filter is None else self.filter.to_json()
        return {"dataset": self.dataset, "version": self.version, "name": self.variable, "filter": chosen,
                "columns": list(self.columns)}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """``use``: what it reads (or pairs of dataset and version); ``returns``: names that leave; ``params``: values given."""

    code: str
    use: tuple[Use, ...]
    returns: tuple[str, ...]
    params: Mapping[str, Param]
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "use", tuple(Use(*u) for u in self.use))

    def to_json(self) -> dict[str, Any]:
        """The terms as JSON; `parse` gives them back."""
        return {"code": self.code, "use": [u.to_json() for u in self.use], "returns": list(self.returns),
                "params": dict(self.params), "reason": self.reason}  # fmt: skip

    def digest(self, data: Sequence[str], environment: Mapping[str, str]) -> str:
        """What an approval is about: code, inputs, data versions (their commitments), outputs, parameters, environment."""
        covered = {**self.to_json(), "data": list(data), "environment": dict(environment)}
        del covered["reason"]
        return _sha256(covered)

    def template(self, environment: Mapping[str, str]) -> str:
        """What cells share that differ in the values of parameters, the versions of datasets, and the reason only."""
        use = [Use(u.dataset, 0, *u[2:]).to_json() for u in self.use]
        return _sha256({"template": self.code, "use": use, "returns": list(self.returns), "params": sorted(self.params),
                        "environment": dict(environment)})  # fmt: skip

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the datasets inside the cell, in the order of ``use``."""
        return tuple(u.variable for u in self.use)

    @property
    def filtered(self) -> bool:
        """Whether it reads chosen rows only."""
        return any(u.filter is not None for u in self.use)


def _sha256(content: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical.dumps(content)).hexdigest()


def variable(name: str) -> str:
    """The Python name for a dataset or an owner: ``my-data`` is ``my_data``."""
    found = re.sub(r"\W", "_", name)
    return f"_{found}" if found[:1].isdigit() else found


def parse(data: bytes, exists: bool = False) -> Cell:
    """The cell in JSON from a stranger; raises UsageError or WireError. ``exists``: its value does, and it may read nothing."""
    found = canonical.loads(data, limit=MAX_JSON)
    if not isinstance(found, dict) or set(found) != {"code", "use", "returns", "params", "reason"}:
        raise WireError("a cell has code, use, returns, params and reason")
    use, returns, params = found["use"], found["returns"], found["params"]
    if not isinstance(use, list) or len(use) > MAX_USED or not isinstance(params, dict):
        raise WireError(f"use lists up to {MAX_USED} datasets, and params is a mapping")
    if not isinstance(returns, list) or not all(isinstance(r, str) for r in returns):
        raise WireError("returns is a list of names")
    if not isinstance(found["code"], str) or not isinstance(found["reason"], str):
        raise WireError("code and reason are text")
    cell = Cell(found["code"], tuple(map(use_from_json, use)), tuple(returns), params, found["reason"])
    check(cell, exists)
    return cell


def use_from_json(value: Any) -> Use:
    """What `Use.to_json` gave; raises WireError."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:
        return Use(value[0], value[1])
    wrong = WireError("use lists pairs of a dataset and a version, or objects with dataset, version, name, filter, columns")
    if not isinstance(value, dict) or set(value) != {"dataset", "version", "name", "filter", "columns"}:
        raise wrong
    columns, chosen = value["columns"], value["filter"]
    texts = [value["dataset"], value["name"]]
    if not all(isinstance(t, str) for t in texts) or type(value["version"]) is not int or not isinstance(columns, list):
        raise wrong
    if not all(isinstance(c, str) for c in columns) or len(columns) > MAX_COLUMNS:
        raise wrong
    node = None if chosen is None else expr.parse_node(chosen)
    return Use(value["dataset"], value["version"], value["name"], node, tuple(columns))


def check(cell: Cell, exists: bool = False) -> None:
    """Raises UsageError that says what is wrong with the terms, or UsageError with the line where Python can't read it."""
    if not cell.code.strip():
        raise UsageError("the cell is empty")
    for name, value in cell.params.items():
        if not _is_param(value):
            raise UsageError(f"the parameter {ascii(name)[:60]} must be a finite number, true, false or text to {MAX_TEXT}")
    if len(cell.code) > MAX_CODE or len(cell.reason) > MAX_REASON or len(canonical.dumps(cell.to_json())) > MAX_JSON:
        raise UsageError(f"a cell has at most {MAX_CODE >> 10} KiB of code, and its reason {MAX_REASON} characters")
    if not (cell.use or exists) or len(cell.use) > MAX_USED:
        raise UsageError(f"name 1 to {MAX_USED} datasets with --use")
    if not cell.returns or len(cell.returns) > MAX_RETURNS:
        raise UsageError(f"name 1 to {MAX_RETURNS} results with --return")
    if len(cell.params) > MAX_PARAMS:
        raise UsageError(f"a cell has at most {MAX_PARAMS} parameters")
    names = [*cell.variables, *cell.params]
    for name in (*names, *cell.returns):
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__") or len(name) > 100:
            raise UsageError(f"{ascii(name)[:60]} is no name that a variable can have")
    twice = [n for i, n in enumerate(names) if n in names[:i]] or [
        n for i, n in enumerate(cell.returns) if n in cell.returns[:i]
    ]
    if twice:
        raise UsageError(f"{twice[0]} is named twice")
    try:
        # Not ast.parse: Python 3.11 fails now and then when two threads build syntax trees at once.
        compile(cell.code, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise UsageError(f"line {error.lineno}: {error.msg}; a %%remote cell is plain Python, without magics") from None
    except (ValueError, RecursionError, MemoryError, OverflowError):
        raise UsageError("Python can't read this code: it is nested too deeply, or holds characters that code can't") from None


def tensor_mock(tensor: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """What stands for a published tensor in a run on the mock: its type and bounds, and up to 64 rows. Always the same."""
    draw = np.random.default_rng(0)  # nothing private goes in
    try:
        dtype, (first, *rest) = np.dtype(tensor["dtype"]), tensor["shape"]
        shape = [min(first, MOCK_ROWS), *rest]
        fits = dtype.kind in "biuf" and all(type(n) is int and n > 0 for n in shape) and math.prod(shape) <= MAX_MOCK
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise WireError("what the owner says of its tensor is malformed, or too large to make a mock of; tell the owner")
    if dtype.kind == "b":
        return draw.random(shape) < 0.5
    low, high = tensor["bounds"]
    if dtype.kind == "f":
        return draw.uniform(low, high, shape).astype(dtype)
    return draw.integers(int(low), int(high), shape, endpoint=True).astype(dtype)


def _is_param(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return isinstance(value, bool | int | float) and math.isfinite(value) and abs(value) < 2**63
