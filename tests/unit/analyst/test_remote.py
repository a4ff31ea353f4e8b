import keyword

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.analyst.magics import uncommented
from syft_lab.analyst.remote import as_frame, check_names, parameter, run_on_mock, undefined
from syft_lab.cell import Cell
from syft_lab.errors import UsageError
from syft_lab.kernel.executor import data


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("x = t.a", []),
        ("x = helper(t)", ["helper"]),
        ("def f(a):\n    return a + b\nx = f(t)", ["b"]),
        ("import numpy as np\nx = np.mean(t)", []),
        ("from os.path import join as j\nx = j", []),
        ("from math import *\nx = sqrt(whatever)", []),
        ("x = [i for i in t if i]", []),
        ("x = [i + k for i in t]", ["k"]),
        ("x = lambda a, *b, c=1, **d: (a, b, c, d)", []),
        ("class A:\n    y = 1\n    def m(self): return self.y + __class__.y\nx = A().m()", []),
        ("try:\n    x = 1\nexcept ValueError as e:\n    print(e)", []),
        ("with open(t) as f:\n    x = f", []),
        ("for i, (j, k) in t: x = i + j + k", []),
        ("def f():\n    global g\n    g = 1\nf()\nx = g", []),
        (
            "def outer():\n    z = 1\n    def inner():\n        nonlocal z\n        z += 1\n        return z\n    return inner\nx = outer()",
            [],
        ),
        ("if (n := len(t)) > 1: x = n", []),
        ("match t:\n    case {'a': v}: x = v", []),
        ("x: int = 1\ny: Other = 2", ["Other"]),
        ("@decorate\ndef f(): pass\nx = f", ["decorate"]),
        ("def f(a=default): return a\nx = f()", ["default"]),
        ("x = print, __name__, Exception", []),
        ("del gone\nx = 1", []),
        ("x = a; y = a; z = q", ["a", "q"]),
    ],
)
def test_names_that_nobody_defines_are_found(code, missing):
    assert undefined(code, ["t"]) == missing


NAMES = st.sampled_from(["t", "a", "b", "c", "len"])


@given(
    st.lists(
        st.tuples(NAMES, NAMES, st.sampled_from(["{0} = {1}", "def {0}(): return {1}", "for {0} in [{1}]: pass"])), max_size=6
    )
)
def test_code_without_undefined_names_raises_no_name_error_but_for_order(lines):
    code = "\n".join(shape.format(left, right) for left, right, shape in lines)
    assigned = {left for left, _, _ in lines}
    read = {right for _, right, _ in lines}
    assert undefined(code, ["t"]) == sorted(read - assigned - {"t", "len"})
    assert not any(keyword.iskeyword(n) for n in undefined(code, ["t"]))


def test_what_exists_in_the_notebook_only_is_said_so():
    cell = Cell("x = helper(t) + k", (("t", 1),), ("x",), {"k": 1})
    with pytest.raises(UsageError, match="helper exists only in this notebook"):
        check_names(cell, {"helper": len})
    with pytest.raises(UsageError, match="helper is not defined in the cell"):
        check_names(cell, {})


def test_the_mock_run_sees_nothing_of_the_notebook_and_leaves_nothing_there():
    cell = Cell("import os\nx = len(t) + k\nsecret = 1", (("t", 1),), ("x",), {"k": 2})
    assert run_on_mock(cell, {"t": [1, 2]})["x"].value() == 4
    assert "secret" not in globals()
    with pytest.raises(NameError):
        run_on_mock(Cell("x = cell", (("t", 1),), ("x",), {}), {"t": []})


@pytest.mark.parametrize(
    ("text", "found"),
    [("age=40", ("age", 40)), ("a=1.5", ("a", 1.5)), ("a=True", ("a", True)), ("a=er", ("a", "er")), ("a='40'", ("a", "40")),
     ("a=", ("a", "")), ("a=x=y", ("a", "x=y")), ("a=-3", ("a", -3))],
)  # fmt: skip
def test_parameters_are_numbers_truth_or_text(text, found):
    assert parameter(text) == found
    assert type(parameter(text)[1]) is type(found[1])


@pytest.mark.parametrize("text", ["age", "=3", "1a=3", "a=[1]", "a=(1,)", "a=None", "a={}"])
def test_other_parameters_are_refused(text):
    with pytest.raises(UsageError):
        parameter(text)


@given(
    st.lists(st.none() | st.integers(-(2**53), 2**53), max_size=8),
    st.sampled_from([pl.Int64, pl.Float64, pl.Boolean, pl.String]),
)
def test_the_mock_has_the_types_that_the_owner_gives(items, dtype):
    convert = {pl.Int64: int, pl.Float64: float, pl.Boolean: bool, pl.String: str}[dtype]
    series = pl.Series("c", [None if v is None else convert(v) for v in items], dtype=dtype)
    packed = data.pack_table({"c": series})
    theirs = data.unpack(packed.fd, packed.layout)
    packed.close()
    pd.testing.assert_frame_equal(as_frame(pl.DataFrame([series])), theirs)


@pytest.mark.parametrize(
    ("line", "left"),
    [("a --reason 'x #1' # note", "a --reason 'x #1' "), ("a # b", "a "), ("# all", ""), ('a "it\'s # in" b', 'a "it\'s # in" b'),
     ("a#b", "a#b"), ("", "")],
)  # fmt: skip
def test_a_comment_ends_a_line_but_not_inside_quotes(line, left):
    assert uncommented(line) == left
