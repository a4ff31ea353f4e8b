"""Hints see the common ways to take one person's value out, also by other names; and leave ordinary code alone."""

import pytest

from syft_lab.cell import Cell, Use
from syft_lab.kernel.requests.hints import hints


def of(code, returns=("d",)):
    return hints(Cell(code, (Use("t", 1),), tuple(returns), {}))


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("d = max(t.age)", "calls max"),
        ("d = sorted(t.age)[-1]", "calls sorted"),
        ("big = max\nd = big(t.age)", "calls max"),
        ("import numpy as np\nd = np.max(t.age)", ".max: a maximum"),
        ("import numpy as np\nd = np.nanpercentile(t.age, 100)", ".nanpercentile"),
        ("d = t.age.agg('max')", ".agg(max)"),
        ("d = t.agg({'age': ['min', 'max']})", ".agg(min)"),
        ("d = t.age.agg(max)", ".agg(max)"),
        ("d = t.groupby('ward').age.agg(top='first')", ".agg(first)"),
        ("d = t.describe()", ".describe"),
        ("d = t.age.quantile(1.0)", ".quantile"),
        ("d = t.age.nlargest(5)", ".nlargest"),
        ("d = t.age", "whole column"),
        ("d = t['age']", "whole column"),
        ("a = t\nb = a['age']\nd = b", "whole column"),
        ("d = t.age.dropna().copy()", "whole column"),
        ("x = t\nd = x", "which is a dataset"),
    ],
)
def test_a_way_to_take_one_value_is_hinted_at(code, word):
    assert any(word in hint for hint in of(code)), of(code)


@pytest.mark.parametrize("code", ["d = t.age.mean()", "d = float(t.age.sum())", "d = t.groupby('ward').age.mean() if False else 3", "lo, hi = 0, 9\nd = t.age.clip(lo, hi).mean()"])  # fmt: skip
def test_ordinary_code_is_not_said_to_return_a_column(code):
    assert not any("whole column" in hint or "maximum" in hint for hint in of(code))
