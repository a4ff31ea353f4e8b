"""A table or a tensor in a sealed memory file, laid out so that a job uses it in place.

Every column lies as numpy or Arrow hold it in memory, at a multiple of 64 bytes; `layout` (JSON) says where. A job maps
the file privately: no byte is copied until it is changed, and no change reaches the owner. Each job gets an open file of its
own: a position that two of them shared would carry values from one analyst's code to another's. Columns come under their
published names: integers as int64 (Int64 where some are missing), floats as float64, booleans as bool (or boolean), text
as pandas' str.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from syft_lab.kernel.executor import mapping

ALIGN = 64
F_ADD_SEALS, ALL_SEALS = 1033, 0xF  # seal, shrink, grow, write


@dataclass(frozen=True)
class Data:
    """A sealed file, read-only, and its layout. ``close`` it when no job needs it any more."""

    fd: int
    layout: dict[str, Any]
    size: int

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor with a position of its own, for one job; reading through it leaves no time of access. Raises OSError."""
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        try:
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        """Free the memory, once the jobs that map it are gone."""
        os.close(self.fd)


@dataclass
class _Writer:
    fd: int
    at: int = 0
    columns: list[dict[str, Any]] = field(default_factory=list)

    def put(self, data: Any) -> int:
        """Write a buffer; gives its position."""
        start, whole = self.at, memoryview(data)
        view = whole.cast("B") if whole.nbytes else memoryview(b"")
        while view:
            written = os.pwrite(self.fd, view[: 1 << 28], self.at)
            self.at += written
            view = view[written:]
        self.at += -self.at % ALIGN
        return start


def sealed(content: bytes) -> int:
    """A read-only descriptor of a sealed memory file with ``content``."""
    fd = os.memfd_create("syft-job", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    _Writer(fd).put(content)
    os.truncate(fd, len(content))
    return _seal(fd)


def _seal(fd: int) -> int:
    import fcntl  # Unix only, as all of this; the module must import everywhere

    fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # a writable descriptor could still be chmod-ed
    os.close(fd)
    return reader


def pack_table(columns: dict[str, Any]) -> Data:
    """A table of polars Series, by published name."""
    fd = os.memfd_create("syft-table", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    out = _Writer(fd)
    rows = 0
    for name, series in columns.items():
        rows = len(series)
        out.columns.append({"name": name, **_column(out, series)})
    os.truncate(fd, max(out.at, 1))
    size = max(out.at, 1)
    return Data(_seal(fd), {"kind": "table", "size": size, "rows": rows, "columns": out.columns}, size)


def _column(out: _Writer, series: Any) -> dict[str, Any]:
    import polars as pl

    if series.dtype == pl.String:
        text = series.rechunk().to_arrow().cast("large_string")
        valid, offsets, data = text.buffers()
        return {
            "as": "text",
            "skip": text.offset,
            "valid": -1 if valid is None or not text.null_count else out.put(valid),
            "nulls": text.null_count,
            "offsets": out.put(offsets),
            "data": out.put(data if data is not None else b""),
            "bytes": 0 if data is None else data.size,
        }
    nulls = series.null_count()
    if series.dtype.is_float():
        return {"as": "array", "dtype": "<f8", "at": out.put(series.fill_null(float("nan")).to_numpy())}
    dtype = "|b1" if series.dtype == pl.Boolean else "<i8"
    values = np.ascontiguousarray(series.fill_null(False if dtype == "|b1" else 0).to_numpy()).astype(dtype, copy=False)
    found = {"as": "array", "dtype": dtype, "at": out.put(values.view(np.uint8))}
    return {**found, "mask": out.put(series.is_null().to_numpy().view(np.uint8))} if nulls else found


def pack_tensor(tensor: Any) -> Data:
    """A dense torch tensor or numpy array."""
    array = np.array(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor, order="C", copy=None)
    fd = os.memfd_create("syft-tensor", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    out = _Writer(fd)
    out.put(array.reshape(-1).view(np.uint8))
    size = max(out.at, 1)
    os.truncate(fd, size)
    layout = {"kind": "tensor", "size": size, "dtype": array.dtype.str, "shape": list(array.shape)}
    return Data(_seal(fd), layout, size)


def unpack(fd: int, layout: dict[str, Any]) -> Any:
    """The DataFrame or tensor in a file that `pack_table` or `pack_tensor` made; in place, and private to this process.

    ``fd`` can be closed then.
    """
    memory = mapping.private(fd, layout["size"])
    if layout["kind"] == "tensor":
        import torch

        count = int(np.prod(layout["shape"], dtype=np.int64))
        return torch.from_numpy(np.frombuffer(memory, layout["dtype"], count).reshape(layout["shape"]))
    import pandas as pd

    rows = layout["rows"]
    made = {c["name"]: pd.Series(_series(memory, c, rows), copy=False) for c in layout["columns"]}
    return pd.DataFrame(made, copy=False)


def _series(memory: memoryview, column: dict[str, Any], rows: int) -> Any:
    import pandas as pd

    if column["as"] == "text":
        import pyarrow as pa

        whole = pa.py_buffer(memory)
        skip, data = column["skip"], whole.slice(column["data"], column["bytes"])
        valid = None if column["valid"] < 0 else whole.slice(column["valid"], (rows + skip + 7) // 8)
        offsets = whole.slice(column["offsets"], 8 * (rows + skip + 1))
        text = pa.LargeStringArray.from_buffers(rows, offsets, data, valid, column["nulls"], skip)
        return pd.array(text, dtype=pd.StringDtype("pyarrow", na_value=np.nan))
    values = np.frombuffer(memory, column["dtype"], rows, column["at"])
    if "mask" not in column:
        return values
    mask = np.frombuffer(memory, "|b1", rows, column["mask"])
    if column["dtype"] == "|b1":
        return pd.arrays.BooleanArray(values, mask)
    return pd.arrays.IntegerArray(values, mask)
