import os
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.kernel.executor import data

COLUMN = {
    "int": (st.integers(-(2**63), 2**63 - 1), pl.Int64),
    "float": (st.floats(allow_nan=False), pl.Float64),
    "bool": (st.booleans(), pl.Boolean),
    "text": (st.text(max_size=8), pl.String),
}


@given(
    st.sampled_from(sorted(COLUMN)).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.none() | COLUMN[k][0], max_size=20)))
)
def test_a_column_arrives_as_pandas_would_hold_it(case):
    kind, items = case
    packed = data.pack_table({"c": pl.Series(items, dtype=COLUMN[kind][1])})
    try:
        found = data.unpack(packed.fd, packed.layout)["c"]
    finally:
        packed.close()
    assert len(found) == len(items)
    assert [None if pd.isna(v) else v for v in found.tolist()] == items
    full = None not in items
    expected = {"int": "int64" if full else "Int64", "float": "float64", "bool": "bool" if full else "boolean", "text": "str"}
    assert str(found.dtype) == expected[kind]


def test_a_slice_of_text_arrives_whole():
    series = pl.Series([f"text {i}" if i % 3 else None for i in range(50)])[7:31]
    packed = data.pack_table({"c": series})
    found = data.unpack(packed.fd, packed.layout)["c"]
    assert [None if pd.isna(v) else v for v in found] == series.to_list()
    packed.close()


def test_a_job_may_change_its_copy_and_never_the_original():
    packed = data.pack_table({"x": pl.Series([1.0, 2.0, 3.0])})
    first = data.unpack(packed.fd, packed.layout)
    first.loc[0, "x"] = 99.0
    assert data.unpack(packed.fd, packed.layout)["x"].tolist() == [1.0, 2.0, 3.0]
    packed.close()


def test_the_file_is_sealed_and_read_only():
    packed = data.pack_table({"x": pl.Series([1.0])})
    with pytest.raises(OSError):
        os.write(packed.fd, b"x")
    with pytest.raises(OSError):
        os.truncate(packed.fd, 0)
    with pytest.raises(OSError):
        os.open(f"/proc/self/fd/{packed.fd}", os.O_WRONLY | os.O_TRUNC)
    packed.close()


def test_columns_and_tensors_are_used_in_place():
    """What the frame and the tensor hold is the mapping itself: nothing was copied."""
    packed = data.pack_table({"x": pl.Series(np.arange(4.0)), "n": pl.Series([1, 2, 3, 4])})
    frame = data.unpack(packed.fd, packed.layout)
    for name in frame:
        values = frame[name].array._ndarray
        assert not values.flags.owndata
        base = values.base
        while getattr(base, "base", None) is not None:
            base = base.base
        assert type(base).__name__ in ("mmap", "memoryview")
    packed.close()
    packed = data.pack_tensor(torch.arange(8.0))
    tensor = data.unpack(packed.fd, packed.layout)
    assert f"{tensor.data_ptr():x}" in mappings("syft-tensor")
    packed.close()


def mappings(name):
    """Where memory files of this name are mapped in this process."""
    return [line.split("-")[0] for line in Path("/proc/self/maps").read_text().splitlines() if name in line]


@pytest.mark.parametrize(
    "tensor", [torch.arange(24.0).reshape(2, 3, 4), torch.tensor(3), torch.zeros(0, 2), torch.ones(3, dtype=torch.bool)]
)
def test_a_tensor_arrives_with_shape_and_type(tensor):
    packed = data.pack_tensor(tensor)
    found = data.unpack(packed.fd, packed.layout)
    assert torch.equal(found, tensor)
    assert found.dtype == tensor.dtype
    packed.close()


def test_each_opening_has_a_position_of_its_own_and_leaves_no_time_of_access():
    packed = data.pack_table({"x": pl.Series(np.arange(5000.0))})
    with packed.opened() as first, packed.opened() as second:
        os.lseek(first, 1234, os.SEEK_SET)
        before = os.fstat(second).st_atime_ns
        os.read(first, 100)
        data.unpack(first, packed.layout)
        assert os.lseek(second, 0, os.SEEK_CUR) == os.lseek(packed.fd, 0, os.SEEK_CUR) == 0
        assert os.fstat(second).st_atime_ns == before
    with pytest.raises(OSError):
        os.fstat(first)
    packed.close()


def test_what_is_unpacked_keeps_no_descriptor():
    packed = data.pack_table({"x": pl.Series([1.0, 2.0]), "t": pl.Series(["a", "b"])})
    before = os.listdir("/proc/self/fd")
    found = data.unpack(packed.fd, packed.layout)
    assert os.listdir("/proc/self/fd") == before
    packed.close()
    assert found["x"].tolist() == [1.0, 2.0]
    assert found["t"].tolist() == ["a", "b"]
