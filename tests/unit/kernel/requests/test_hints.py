"""Hints see the common ways to take one person's value out, also by other names; and leave ordinary code alone."""

import time

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
        ("how = 'max'\nd = t.age.agg(how)", ".agg(max)"),
        ("how = ['max', 'min']\nd = t.agg(how)", ".agg(min)"),
        ("how = {'age': 'max'}\nd = t.agg(how)", ".agg(max)"),
        ("from numpy import max as biggest\nd = biggest(t.age)", "calls max"),
        ("a, b = max, min\nd = b(t.age)", "calls min"),
        ("d = (m := max)(t.age)", "calls max"),
        ("d = {'f': max}['f'](t.age)", "calls max"),
        ("def f(x, by): return by(x)\nd = f(t.age, max)", "calls max"),
        ("import numpy as np\nd = np.sort(t.age)[-1]", ".sort: the first and the last"),
        ("import torch\nd = torch.topk(x, 1)", ".topk"),
    ],
)
def test_a_way_to_take_one_value_is_hinted_at(code, word):
    assert any(word in hint for hint in of(code)), of(code)


KEEPING = """
d = {'a': t.age} ; d = [t.age, 3] ; d, e = t.age, 1 ; d: object = t ; d, *e = t, 2, 3 ; d = [*t.age] ; d = {**t}
d = t.age.map(str) ; d = t.filter(['age']) ; d = t.get('age') ; d = t.pop('age') ; d = t.assign(a=1) ; d = t.where(True) ; d = t.melt()
d = pd.DataFrame(t) ; d = pd.Series(t.age) ; d = pd.concat([t]) ; d = copy.copy(t) ; d = t if True else 0 ; d = None or t ; d = t.eval('age')
d = t.age.to_list() ; d = t.to_json() ; d = t.to_csv() ; d = t.to_records() ; d = t.to_string() ; d = str(t) ; d = f'{t.age}' ; d = np.array(t)
d = set(t.age) ; d = tuple(t.age) ; d = dict(t.age) ; d = [x for x in t.age] ; d = t.name ; d = t.type ; d = {k: v for k, v in t.items()} ; d = next(iter(t.age))
d = t.xs(0) ; d = t.take([0]) ; d = t[t.age > 99] ; d = t.age + 1 ; d = t.age > 65 ; d = ','.join(map(str, t.age)) ; d = (lambda x=t: x)()
d = 0 ; d += t.age ; d = {} ; d['a'] = t.age ; d = [] ; d.append(t) ; m = t.age.to_list ; d = m()
def f(x): return x ; d = f(t) ; d = t.pipe(f)
def g(): return t.age ; d = g()
"""


@pytest.mark.parametrize("line", KEEPING.strip().split("\n"))
def test_whatever_may_be_the_table_or_a_column_is_hinted_at(line):
    first, *rest = line.split(" ; ")
    before = "import numpy as np, pandas as pd, copy\n"
    together = first.startswith("def") or "d = {}" in rest
    for code in [line.replace(" ; ", "\n")] if together else [first, *rest]:
        assert any("returns d, which is" in hint for hint in of(before + code)), code


@pytest.mark.parametrize("head", ["for x in t.age:", "if x:", "while x:", "with x:", "try:", "match 1:\n  case 1:"])
def test_it_is_followed_into_blocks(head):
    tail = "\nfinally: pass" if head == "try:" else ""
    assert any("whole column" in hint for hint in of(f"{head}\n      d = t.age{tail}"))


AGGREGATES = """
d = t.age.mean()
d = t.groupby('ward').age.mean()
d = t[t.age > 65].los.sum()
d = (t.age > 65).mean()
d = np.mean(t.age)
d = len(t) + t.shape[0]
d = {'m': t.age.mean(), 'n': t.age.count()}
d = {c: t[c].mean() for c in t}
d = {c: s.mean() for c, s in t.items()}
d = {k: g.age.mean() for k, g in t.groupby('ward')}
d = t.groupby('ward').apply(lambda g: g.age.mean())
d = t.groupby('ward').agg(m=('age', 'mean'))
d = t.apply(np.mean)
d = [t.age.mean()] ; d.append(t.age.std())
d = t[t.age > 3] ; d = d.age.mean()
def f(x): return x.mean() ; d = f(t.age)
from statistics import mean ; d = mean(t.age)
from scipy.stats import ttest_ind ; d = ttest_ind(t.a, t.b).pvalue
from sklearn.linear_model import LinearRegression ; m = LinearRegression().fit(t[['a']], t.b) ; d = m.coef_
X = t[['a']].to_numpy() ; d = np.linalg.solve(X.T @ X, X.T @ t.b)
d = pd.Series({'m': t.age.mean()}) if len(t) > 3 else None
d = f'{t.age.mean():.2f}'
d = 'age' in t.columns
"""


@pytest.mark.parametrize("line", AGGREGATES.strip().split("\n"))
def test_plain_aggregates_are_not_said_to_return_people(line):
    code = "import numpy as np, pandas as pd\n" + line.replace(" ; ", "\n")
    assert not any("returns" in hint or "follow" in hint for hint in of(code)), of(code)


@pytest.mark.parametrize(
    "code",
    [
        "\n".join(
            ["def f0(x): return x", *(f"def f{i}(x): return f{i - 1}(x), f{i - 1}(x)" for i in range(1, 60)), "d = f59(t)"]
        ),
        "\n".join(" " * i + f"for x{i} in t:" for i in range(19)) + "\n" + " " * 19 + "d = t.age",
        "d = t" + "+1" * 900,
        "d = t" + "+1" * 9000,
    ],
)
def test_code_that_is_too_tangled_is_said_to_be_and_takes_no_time(code):
    begun = time.monotonic()
    found = of(code)
    assert any("returns d" in hint or "tangled" in hint or "could not read" in hint for hint in found)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("code", ["d = t.age.mean()", "d = float(t.age.sum())", "d = t.groupby('ward').age.mean() if False else 3", "lo, hi = 0, 9\nd = t.age.clip(lo, hi).mean()"])  # fmt: skip
def test_ordinary_code_is_not_said_to_return_a_column(code):
    assert not any("whole column" in hint or "maximum" in hint for hint in of(code))
