import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from syft_lab import values
from syft_lab.errors import UsageError, WireError


def back(value):
    return values.decode(values.encode({"x": value}))["x"].value()


@pytest.mark.parametrize("value", [1, -(2**62), 0.5, True, 1 + 2j, np.float32(0.25), np.int16(-3), np.bool_(False)])
def test_numbers_come_back(value):
    assert back(value) == value


@given(hnp.arrays(st.sampled_from([np.dtype(d) for d in values.NUMERIC]), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_arrays_come_back_bit_for_bit(array):
    found = back(array)
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array", [np.arange(12).reshape(3, 4).T, np.arange(10)[::-2], np.ones(3, ">f8")], ids=["F", "step", "big-endian"]
)
def test_any_layout_comes_back_by_value(array):
    assert (back(array) == array).all()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float16]
)
def test_tensors_come_back(dtype):
    tensor = torch.tensor([[1, 0], [0, 1]]).to(dtype)
    assert torch.equal(back(tensor), tensor)
    assert torch.equal(back(torch.nn.Parameter(torch.ones(2))), torch.ones(2))


TABLE = pd.DataFrame(
    {
        "n": [1, 2, 3],
        "f": [0.5, np.nan, np.inf],
        "t": ["a", None, "žluť"],
        "b": [True, False, True],
        "when": pd.to_datetime(["2024-01-01", None, "2024-03-01"]),
    }
)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.set_index("t"),
        TABLE.set_index(["n", "b"]),
        TABLE.iloc[:0],
        TABLE[["n"]].iloc[1:],
        TABLE["f"],
        TABLE.groupby("b")["n"].sum(),
        TABLE["t"].value_counts(),
        pd.DataFrame(index=[3, 4]),
        pd.DataFrame({"a": [1]}, index=pd.date_range("2024", periods=1)),
    ],
)
def test_tables_come_back(table):
    found = back(table)
    if isinstance(table, pd.Series):
        pd.testing.assert_series_equal(found, table, check_index_type=False, check_freq=False)
    else:
        pd.testing.assert_frame_equal(found, table, check_index_type=False, check_column_type=False, check_freq=False)


def test_kinds_that_have_no_place_are_turned_into_their_nearest():
    frame = pd.DataFrame(
        {"c": pd.Categorical(["x", "y", "x"]), "i": pd.array([1, None, 3], "Int64"), "cut": pd.cut([1, 2, 3], 2)}
    )
    found = back(frame)
    assert list(found["c"]) == ["x", "y", "x"]
    assert found["i"].isna().tolist() == [False, True, False]
    assert back(TABLE[["n"]].describe())["n"]["mean"] == 2.0
    two = pd.DataFrame({"k": ["p", "q"], "v": [1, 2]}).groupby("k").agg({"v": ["min", "max"]})
    assert list(back(two).columns) == ["v|min", "v|max"]


@pytest.mark.parametrize(
    ("value", "word"),
    [("text", "text can't leave"), (b"x", "text can't leave"), ([1], "numpy.array"), ({"a": 1}, "pandas.Series"), (None, "None"),
     (object(), "object"), (print, "builtin_function"), (np.array(["a"]), "no numbers"), (np.array([object()]), "no numbers"),
     (pd.DataFrame({"a": [1, "x"]}), "mixes types"), (pd.DataFrame({"a": [[1]]}), "mixes types"), (torch.ones(2).to_sparse(), "dense"),
     (torch.ones(2, dtype=torch.bfloat16), "float()"), (2**70, "no numbers"), (np.str_("a"), "str_")],
)  # fmt: skip
def test_anything_else_is_refused_in_words(value, word):
    with pytest.raises(UsageError, match=r"x ") as caught:
        values.encode({"x": value})
    assert word.lower() in str(caught.value).lower()


BLOB = values.encode({"x": TABLE, "y": np.arange(3), "z": 1.5})


@given(st.integers(0, len(BLOB) - 1), st.integers(0, 255), st.sampled_from(["change", "cut", "insert", "add"]))
def test_a_damaged_blob_is_refused_or_still_well_formed(at, byte, how):
    damaged = {
        "change": BLOB[:at] + bytes([byte]) + BLOB[at + 1 :],
        "cut": BLOB[:at],
        "insert": BLOB[:at] + bytes([byte]) + BLOB[at:],
        "add": BLOB + bytes([byte]),
    }[how]
    try:
        found = values.decode(damaged)
    except WireError:
        return
    for value in found.values():
        value.describe(), value.value()


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_cleanly(noise):
    for blob in (noise, values.MAGIC + noise, values.MAGIC + len(noise).to_bytes(4, "little") + noise):
        try:
            values.decode(blob)
        except WireError:
            continue
        assert blob == values.MAGIC + b"\x02\0\0\0[]"


@pytest.mark.parametrize(
    "header",
    [
        '[{"columns":[],"dtype":"|O","index":0,"kind":"array","label":"","name":"x","shape":[1]}]',
        '[{"columns":[],"dtype":"<f8","index":0,"kind":"array","label":"","name":"x","shape":[1099511627775,1099511627775]}]',
        '[{"columns":[],"dtype":"<f8","index":0,"kind":"array","label":"","name":"x","shape":[-1]}]',
        '[{"columns":[{"bytes":-1,"dtype":"text","name":"a"}],"dtype":"","index":0,"kind":"table","label":"","name":"x","shape":[1,1]}]',
        '[{"columns":[{"bytes":8,"dtype":"<M8[D]","name":"a"}],"dtype":"","index":0,"kind":"series","label":"","name":"x","shape":[1]}]',
        '[{"columns":[],"dtype":"","index":9,"kind":"table","label":"","name":"x","shape":[1,0]}]',
    ],
)
def test_claims_beyond_the_format_are_refused(header):
    with pytest.raises(WireError):
        values.decode(values.MAGIC + len(header).to_bytes(4, "little") + header.encode() + bytes(8))


def test_other_names_than_asked_for_are_refused():
    with pytest.raises(WireError, match="other values"):
        values.decode(BLOB, ["x", "y"])
