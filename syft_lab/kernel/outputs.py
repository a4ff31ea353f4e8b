"""What results may look like to leave under a rule: `Outputs`, judged on runs on the mock, and again on the result itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from syft_lab import values
from syft_lab.errors import UsageError
from syft_lab.printable import printed

MIN_CELL = 3


@dataclass(frozen=True)
class Observed:
    """What runs on the mock gave: public facts, for nothing private went in.

    ``outputs`` as `values.Value.describe` has them; ``grows`` names those that grow when the mock has twice the rows
    (None: it could not be told); ``why`` says what went wrong, if anything.
    """

    outputs: Sequence[Mapping[str, Any]]
    grows: tuple[str, ...] | None
    why: str = ""


@dataclass(frozen=True)
class Outputs:
    """Bounds on results: ``max_bytes`` in all, ``kinds`` and ``dtypes`` allowed (none: any), ``levels`` rows or groups
    at most, ``min_cell`` the smallest count that may stand in a result, ``growth`` whether a result may have more rows
    where the data have more."""  # noqa: D209

    max_bytes: int = 1 << 20
    kinds: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    levels: int = 100
    min_cell: int = MIN_CELL
    growth: bool = False

    def __post_init__(self) -> None:
        for name in ("max_bytes", "levels", "min_cell"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UsageError(f"{name} of lab.Outputs is a whole number from 1 on")
        for name in ("kinds", "dtypes"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(g, str) for g in given):
                raise UsageError(f"{name} of lab.Outputs is a list of texts")
            object.__setattr__(self, name, tuple(given))
        unknown = [k for k in self.kinds if k not in values.KINDS]
        if unknown:
            raise UsageError(f"there is no kind of result {ascii(unknown[0])[:40]}; there are: {', '.join(values.KINDS)}")
        object.__setattr__(self, "growth", bool(self.growth))

    def to_json(self) -> dict[str, Any]:
        """As the journal and TOML keep it."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Outputs:
        """What `to_json` gave; raises UsageError."""
        known = {f.name for f in fields(cls)}
        if not isinstance(value, Mapping) or not set(value) <= known:
            raise UsageError(f"outputs has the settings {', '.join(sorted(known))}")
        return cls(**value)

    def judge_mock(self, observed: Observed | None) -> str:
        """Why runs on the mock do not fit; empty where they do."""
        if observed is None:
            return "its runs on the mock are not over"
        if observed.why:
            return f"it fails on the mock: {observed.why}"
        if not self.growth and observed.grows is None:
            return "whether its results grow with the data could not be told"
        if not self.growth and observed.grows:
            return f"{observed.grows[0]} grows with the number of rows"
        return self._form(observed.outputs)

    def judge_result(self, found: Iterable[values.Value]) -> str:
        """Why a result does not fit; empty where it does. It tells of private data: for the owner."""
        found = list(found)
        form = self._form([v.describe() for v in found])
        small = [v.name for v in found if small_cells(v, self.min_cell)]
        return form or (f"{small[0]} holds a count below {self.min_cell}" if small else "")

    def _form(self, outputs: Sequence[Mapping[str, Any]]) -> str:
        if sum(o["bytes"] for o in outputs) > self.max_bytes:
            return f"its results are larger than {self.max_bytes} bytes"
        for output in outputs:
            dtypes = {output["dtype"]} if "dtype" in output else {d for _, d in output["columns"]}
            if self.kinds and output["kind"] not in self.kinds:
                return f"{output['name']} is a {output['kind']}, and not of the kind {' or '.join(self.kinds)}"
            if self.dtypes and not dtypes <= set(self.dtypes):
                return f"{output['name']} is of type {', '.join(sorted(dtypes))}, and not {' or '.join(self.dtypes)}"
            if output["shape"] and max(output["shape"]) > self.levels:
                return f"{output['name']} has more than {self.levels} levels"
        return ""

    @printed
    def __str__(self) -> str:
        parts = [f"{self.max_bytes} bytes", f"{self.levels} levels", f"no count below {self.min_cell}"]
        parts += [" or ".join(self.kinds)] if self.kinds else []
        parts += [" or ".join(self.dtypes)] if self.dtypes else []
        return ", ".join([*parts, "may grow with the data" if self.growth else "no growth with the data"])


def small_cells(value: values.Value, least: int) -> int:
    """How many numbers of a value look like counts below ``least``: whole numbers in it, where all of them are whole."""
    import numpy as np

    shown = value.value()
    columns = [shown] if value.kind not in ("series", "table") else (
        [shown.to_numpy()] if value.kind == "series" else [shown.iloc[:, i].to_numpy() for i in range(shown.shape[1])]
    )  # fmt: skip
    found = 0
    for column in columns:
        array = np.asarray(column)
        if array.dtype.kind not in "iuf" or not array.size:
            continue
        numbers = array.astype(float).ravel()
        numbers = numbers[np.isfinite(numbers)]
        if (numbers == np.floor(numbers)).all() and (numbers >= 0).all():
            found += int(((numbers > 0) & (numbers < least)).sum())
    return found
