"""Results of approved code as bytes: numbers, arrays, tensors, series and tables, and nothing else.

    blob    = b"SLV1" + header length (4 bytes, little-endian) + header + frames, without gaps
    header  = JSON list: one object a value, {"name", "kind", "dtype", "shape", "columns", "index", "label"}
    column  = {"name", "dtype", "bytes"}; a frame a column, index levels first

Numbers, arrays and tensors have one frame of raw little-endian data. A column of numbers, booleans or times is raw data
too; one of text is a JSON list of strings and nulls. `encode` runs inside the sandbox, next to hostile code; `decode`
trusts nothing in a blob, allocates no more than its size, and raises WireError. No pickle anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from syft_lab import canonical
from syft_lab.errors import UsageError, WireError

MAGIC = b"SLV1"
MAX_HEADER, MAX_VALUES, MAX_COLUMNS, MAX_NAME, MAX_LEVELS, MAX_DIMS = 1 << 20, 64, 2_000, 200, 8, 8
NUMERIC = tuple(
    f"{order}{kind}{size}"
    for order, kind, sizes in (("|", "b", (1,)), ("|", "i", (1,)), ("|", "u", (1,)), ("<", "i", (2, 4, 8)),
                               ("<", "u", (2, 4, 8)), ("<", "f", (2, 4, 8)), ("<", "c", (8, 16)))
    for size in sizes
)  # fmt: skip
TIMES = tuple(f"<{kind}8[{unit}]" for kind in "mM" for unit in ("s", "ms", "us", "ns"))
TEXT = "text"
KINDS = ("number", "array", "tensor", "series", "table")
WANTED = "a result is a number, a numpy array, a torch tensor, or a pandas Series or DataFrame"


@dataclass(frozen=True)
class Value:
    """One checked value: ``frames`` are views of its data. ``value()`` builds the Python object."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[tuple[str, str], ...]
    index: int
    label: str
    frames: tuple[memoryview, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return sum(f.nbytes for f in self.frames)

    def describe(self) -> dict[str, Any]:
        """What it is, without a value of it: for journals and lists."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind, "shape": list(self.shape), "bytes": self.nbytes}
        if self.columns:
            found["columns"] = [list(c) for c in self.columns[self.index :]]
        else:
            found["dtype"] = self.dtype
        return found

    def value(self) -> Any:
        """The number, array, tensor, Series or DataFrame; needs torch or pandas for theirs."""
        if self.kind in ("series", "table"):
            return self._frame()
        array = np.frombuffer(self.frames[0], np.dtype(self.dtype)).reshape(self.shape).copy()
        if self.kind == "number":
            return array.item()
        if self.kind == "tensor":
            try:
                import torch
            except ImportError:
                return array
            return torch.from_numpy(array)
        return array

    def _frame(self) -> Any:
        import pandas as pd

        columns = [
            (json.loads(bytes(f)) if dtype == TEXT else np.frombuffer(f, np.dtype(dtype)).copy())
            for (_, dtype), f in zip(self.columns, self.frames, strict=True)
        ]
        made = [pd.Series(c, dtype="str") if isinstance(c, list) else pd.Series(c) for c in columns]
        names = [name for name, _ in self.columns]
        if self.index == 0:
            index: pd.Index[Any] = pd.RangeIndex(self.shape[0])
        elif self.index == 1:
            index = pd.Index(made[0], name=names[0] or None)
        else:
            index = pd.MultiIndex.from_arrays(made[: self.index], names=[n or None for n in names[: self.index]])
        data = made[self.index :]
        for column in data:
            column.index = index
        if self.kind == "series":
            return data[0].rename(self.label or None)
        frame = pd.DataFrame(dict(enumerate(data)), index=index)
        frame.columns = pd.Index(names[self.index :])
        return frame


def encode(values: Mapping[str, Any]) -> bytes:
    """The blob of named values; raises UsageError in words for what is no result."""
    described, frames = [], []
    for name, value in values.items():
        description, data = _describe(name, value)
        described.append({"name": name, **description})
        frames += data
    header = canonical.dumps(described)
    return b"".join([MAGIC, len(header).to_bytes(4, "little"), header, *frames])


def of_tensors(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The blob of named tensors, from their numbers; needs no torch."""
    data = {name: _array(name, array) for name, array in arrays.items()}
    header = canonical.dumps([{"name": name, **_raw("tensor", array)} for name, array in data.items()])
    return b"".join([MAGIC, len(header).to_bytes(4, "little"), header, *(array.tobytes() for array in data.values())])


def _describe(name: str, value: Any) -> tuple[dict[str, Any], list[bytes]]:
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, bool | int | float | complex | np.generic) and not isinstance(value, np.str_ | np.bytes_):
        array = _array(name, value)
        return _raw("number", array), [array.tobytes()]
    if isinstance(value, np.ndarray):
        array = _array(name, value)
        return _raw("array", array), [array.tobytes()]
    if module == "torch" and hasattr(value, "detach"):
        try:
            array = _array(name, value.detach().cpu().resolve_conj().resolve_neg().numpy())
        except (TypeError, RuntimeError):
            raise UsageError(
                f"{name} is a {value.dtype} tensor of layout {value.layout}; results are dense: {name}.to_dense().float()"
            ) from None
        return _raw("tensor", array), [array.tobytes()]
    if module == "pandas" and hasattr(value, "index") and hasattr(value, "iloc"):
        return _table(name, value)
    hint = ""
    if isinstance(value, str | bytes):
        hint = "; text can't leave as a result"
    elif isinstance(value, list | tuple):
        hint = "; for a list, use numpy.array"
    elif isinstance(value, dict):
        hint = "; for a dict, use pandas.Series"
    elif value is None:
        hint = "; it is None"
    raise UsageError(f"{name} is a {type(value).__name__}: {WANTED}{hint}")


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except (OverflowError, ValueError):
        raise UsageError(f"{name} does not fit an array of numbers; {WANTED}") from None
    little = array.dtype.newbyteorder("<")
    if little.str not in NUMERIC:
        raise UsageError(f"{name} holds {array.dtype} values, which are no numbers; {WANTED}")
    if array.ndim > MAX_DIMS:
        raise UsageError(f"{name} has {array.ndim} dimensions; a result has at most {MAX_DIMS}")
    return np.array(array, dtype=little, order="C", copy=None).reshape(array.shape)


def _raw(kind: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"kind": kind, "dtype": array.dtype.str, "shape": list(array.shape), "columns": [], "index": 0, "label": ""}


def _table(name: str, value: Any) -> tuple[dict[str, Any], list[bytes]]:
    import pandas as pd

    series = isinstance(value, pd.Series)
    frame = value.to_frame("value") if series else value
    plain_index = type(frame.index) is pd.RangeIndex and frame.index.name is None and (
        len(frame) == 0 or (frame.index.start, frame.index.step) == (0, 1)
    )  # fmt: skip
    levels = 0 if plain_index else frame.index.nlevels
    if levels > MAX_LEVELS or frame.shape[1] + levels > MAX_COLUMNS:
        raise UsageError(f"{name} has {frame.shape[1]} columns; a table has at most {MAX_COLUMNS}")
    parts = [(n, frame.index.get_level_values(i)) for i, n in enumerate(frame.index.names[:levels])]
    parts += [(frame.columns[i], frame.iloc[:, i]) for i in range(frame.shape[1])]
    columns, frames = [], []
    for label, column in parts:
        text = "" if label is None else "|".join(map(str, label)) if isinstance(label, tuple) else str(label)
        dtype, data = _column(name, text, column)
        columns.append({"name": text[:MAX_NAME], "dtype": dtype, "bytes": len(data)})
        frames.append(data)
    label = "" if not series or value.name is None else str(value.name)[:MAX_NAME]
    shape = [len(frame)] if series else list(frame.shape)
    kind = "series" if series else "table"
    return {"kind": kind, "dtype": "", "shape": shape, "columns": columns, "index": levels, "label": label}, frames


def _column(name: str, label: str, column: Any) -> tuple[str, bytes]:
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        column, dtype = column.astype(dtype.categories.dtype), dtype.categories.dtype
    if isinstance(dtype, pd.IntervalDtype):  # of pandas.cut: its labels are what people read
        column, dtype = column.astype("str"), pd.StringDtype(na_value=np.nan)
    if isinstance(dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None) if hasattr(column, "dt") else column.tz_convert(None)
    if pd.api.types.is_bool_dtype(dtype) and column.isna().any():
        array = column.to_numpy(dtype="float64", na_value=np.nan)
    elif pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_numeric_dtype(dtype):
        array = column.to_numpy(dtype="float64", na_value=np.nan) if column.isna().any() else column.to_numpy(dtype.numpy_dtype)
    else:
        array = column.to_numpy()
    little = array.dtype.newbyteorder("<")
    if little.str in NUMERIC or little.str in TIMES:
        return little.str, np.ascontiguousarray(array, dtype=little).tobytes()
    missing = pd.isna(array)
    texts = [None if gone else v for v, gone in zip(array.tolist(), missing, strict=True)]
    if not all(v is None or type(v) is str for v in texts):
        raise UsageError(
            f"the column {ascii(label)[:80]} of {name} mixes types; a table holds numbers, booleans, times and text"
        )
    return TEXT, json.dumps(texts, separators=(",", ":")).encode()


def decode(blob: bytes | memoryview, expected: Sequence[str] | None = None) -> dict[str, Value]:
    """The checked values of a blob, in order; raises WireError. ``expected``: the names that must be there, no others."""
    view = memoryview(blob).cast("B").toreadonly()
    if view[:4] != MAGIC or view.nbytes < 8:
        raise WireError("the result does not begin as results do")
    length = int.from_bytes(view[4:8], "little")
    if length > MAX_HEADER or 8 + length > view.nbytes:
        raise WireError("the header of the result is too long")
    header = canonical.loads(bytes(view[8 : 8 + length]), limit=MAX_HEADER)
    if not isinstance(header, list) or len(header) > MAX_VALUES:
        raise WireError("the header of a result is a list of at most 64 values")
    at, found = 8 + length, {}
    for item in header:
        value, at = _take(item, view, at)
        if value.name in found:
            raise WireError("two values of a result have the same name")
        found[value.name] = value
    if at != view.nbytes:
        raise WireError("the result is longer than its header says")
    if expected is not None and list(found) != list(expected):
        raise WireError("the result has other values than were asked for")
    return found


def _take(item: Any, view: memoryview, at: int) -> tuple[Value, int]:
    bad = WireError("the header of the result is malformed")
    if not isinstance(item, dict) or set(item) != {"name", "kind", "dtype", "shape", "columns", "index", "label"}:
        raise bad
    name, kind, dtype, shape, columns, index, label = (
        item[k] for k in ("name", "kind", "dtype", "shape", "columns", "index", "label")
    )
    if not all(isinstance(t, str) and len(t) <= MAX_NAME for t in (name, kind, dtype, label)) or kind not in KINDS:
        raise bad
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise bad
    if not isinstance(columns, list) or len(columns) > MAX_COLUMNS or type(index) is not int:
        raise bad
    pairs, sizes = [], []
    for column in columns:
        if not isinstance(column, dict) or set(column) != {"name", "dtype", "bytes"}:
            raise bad
        each, its_dtype, size = column["name"], column["dtype"], column["bytes"]
        if not isinstance(each, str) or len(each) > MAX_NAME or not isinstance(its_dtype, str) or type(size) is not int:
            raise bad
        pairs.append((each, its_dtype))
        sizes.append(size)
    frames: list[memoryview] = []
    if kind in ("series", "table"):
        width = 1 if kind == "series" else shape[1] if len(shape) == 2 else -1
        if len(shape) != (1 if kind == "series" else 2) or not 0 <= index <= MAX_LEVELS or len(pairs) != index + width or dtype:
            raise bad
        for (_, its_dtype), size in zip(pairs, sizes, strict=True):
            frames.append(_column_frame(its_dtype, shape[0], _cut(view, at, size)))
            at += size
    else:
        if pairs or index or label or dtype not in NUMERIC or (kind == "number" and shape):
            raise bad
        size = math.prod(shape) * np.dtype(dtype).itemsize
        frames.append(_cut(view, at, size))
        at += size
        _check_booleans(frames[0], dtype)
    return Value(name, kind, dtype, tuple(shape), tuple(pairs), index, label, tuple(frames)), at


def _column_frame(dtype: str, rows: int, frame: memoryview) -> memoryview:
    if dtype == TEXT:
        values = canonical.loads(bytes(frame), limit=frame.nbytes)
        if not isinstance(values, list) or len(values) != rows or not all(v is None or isinstance(v, str) for v in values):
            raise WireError("a text column of the result is malformed")
        if any(v is not None and not v.isascii() and any("\ud800" <= c <= "\udfff" for c in v) for v in values):
            raise WireError("a text column of the result holds broken characters")
    elif (dtype not in NUMERIC and dtype not in TIMES) or frame.nbytes != rows * np.dtype(dtype).itemsize:
        raise WireError("a column of the result has a type or a size that results do not have")
    _check_booleans(frame, dtype)
    return frame


def _cut(view: memoryview, at: int, size: int) -> memoryview:
    if not 0 <= size <= view.nbytes - at:
        raise WireError("the result is shorter than its header says")
    return view[at : at + size]


def _check_booleans(frame: memoryview, dtype: str) -> None:
    if dtype == "|b1" and frame.nbytes and np.frombuffer(frame, np.uint8).max() > 1:
        raise WireError("a boolean of the result is neither true nor false")
