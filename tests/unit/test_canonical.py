"""Canonical JSON: one byte string a value, and a parser that takes nothing odd from strangers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import canonical
from syft_lab.errors import WireError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_again_and_written_the_same(value):
    data = canonical.dumps(value)
    assert canonical.loads(data) == value
    assert canonical.dumps(canonical.loads(data)) == data


def test_the_order_of_keys_does_not_matter():
    assert canonical.dumps({"b": 1, "a": 2}) == canonical.dumps({"a": 2, "b": 1}) == b'{"a":2,"b":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_not_written(value):
    with pytest.raises(ValueError):
        canonical.dumps(value)


@pytest.mark.parametrize("data", [b"NaN", b"[Infinity]", b'{"a":1,"a":2}', b"[" * 100_000, b"\xff", b"", b"1" * 5000])
def test_odd_bytes_are_refused_with_one_error(data):
    with pytest.raises(WireError):
        canonical.loads(data)


def test_more_than_the_limit_is_not_even_parsed():
    with pytest.raises(WireError, match="larger than the limit"):
        canonical.loads(b"[" * 2_000_000)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_wire_error(data):
    try:
        canonical.dumps(canonical.loads(data))
    except WireError:
        pass
