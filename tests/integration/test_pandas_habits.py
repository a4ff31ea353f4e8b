"""What people type at pandas: the same line on a pointer, seen on the mock, gives what pandas gives on the mock."""

import math
from functools import reduce
from operator import or_

import numpy as np
import pandas as pd
import pytest

from syft_lab import errors

COLUMNS = {
    "add": lambda f: f.age + 1,
    "radd": lambda f: 1 + f.age,
    "sub": lambda f: f.age - f.los_days,
    "rsub": lambda f: 100 - f.age,
    "mul": lambda f: f.los_days * f.age,
    "rmul": lambda f: 2.5 * f.los_days,
    "div": lambda f: f.los_days / 7,
    "rdiv": lambda f: 1 / (f.los_days + 1),
    "floordiv": lambda f: f.age // 10,
    "mod": lambda f: f.age % 10,
    "neg": lambda f: -f.age,
    "eq": lambda f: f.ward == "er",
    "ne": lambda f: f.ward != "er",
    "lt": lambda f: f.age < 40,
    "le": lambda f: f.age <= f.los_days,
    "gt": lambda f: f.age > np.float64(40.5),
    "ge": lambda f: f.age >= np.int64(40),
    "and": lambda f: (f.age > 40) & f.readmitted,
    "or": lambda f: (f.age > 40) | (f.sex == "f"),
    "xor": lambda f: (f.age > 40) ^ f.readmitted,
    "not": lambda f: ~(f.age > 40),
    "isna": lambda f: f.los_days.isna(),
    "notna": lambda f: f.los_days.notnull(),
    "fillna": lambda f: f.los_days.fillna(0.0),
    "isin": lambda f: f.ward.isin(["er", "icu"]),
    "between": lambda f: f.age.between(20, 40, inclusive="left"),
    "clip": lambda f: f.age.clip(30, 60),
    "to float": lambda f: f.age.astype("float64"),
    "to int": lambda f: f.los_days.astype("int64"),
    "flag to int": lambda f: f.readmitted.astype(int),
    "numpy scalars first": lambda f: (np.float64(100) - f.age) * (np.int64(2) <= f.age).astype(int),
    "numpy operators": lambda f: np.multiply(np.add(f.age, 1), 2),
    "numpy clip": lambda f: np.clip(f.age, 30, 60),
    "pos": lambda f: +f.age,
    "by name": lambda f: f["age"] * f["plan"],
}
FRAMES = {
    "filter": lambda f: f[f.age > 40],
    "filter twice": lambda f: f[f.age > 40][lambda g: g.age < 90] if isinstance(f, pd.DataFrame) else f[f.age > 40][f.age < 90],
    "columns": lambda f: f[["age", "ward"]],
    "assign": lambda f: f.assign(twice=f.age * 2, half=lambda g: g.age / 2),
    "dropna": lambda f: f.dropna(),
    "dropna of many": lambda f: f.dropna(subset=["los_days", "ward", "age", "sex"] * 12),
    "many filters": lambda f: reduce(lambda g, n: g[g.age != n], range(40), f),
    "many conditions": lambda f: f[reduce(or_, [f.age == n for n in range(20, 60)])],
    "dropna of some": lambda f: f.dropna(subset=["los_days", "ward"]),
    "fillna": lambda f: f.fillna({"los_days": 1.0}),
}
ANSWERS = {
    "sum": lambda f: f.age.sum(),
    "mean": lambda f: f[f.readmitted].age.mean(),
    "count": lambda f: f.los_days.count(),
    "grouped mean": lambda f: f.groupby("sex")["age"].mean(),
    "grouped sum by attribute": lambda f: f.groupby("plan").age.sum(),
    "options that change nothing": lambda f: f.age.sum(axis=0, skipna=True),
    "numpy mean": lambda f: np.mean(f.age),
    "numpy sum": lambda f: np.sum(f.age, 0),
    "grouped by a series": lambda f: f.groupby(f.sex)["age"].mean(),
    "grouped by a list of series": lambda f: f.groupby([f.sex, "plan"])["age"].count(),
    "grouped count": lambda f: f.groupby("sex")["age"].count(),
    "mean of a flag": lambda f: f.readmitted.astype("int64").mean(),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_compute_as_in_pandas(session, name):
    frame = session["patients"]
    found, expected = COLUMNS[name](frame).mock, COLUMNS[name](frame.mock)
    assert found.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", FRAMES)
def test_frames_filter_and_select_as_in_pandas(session, name):
    frame = session["patients"]
    found, expected = FRAMES[name](frame).mock, FRAMES[name](frame.mock)
    assert list(found.columns) == list(expected.columns)
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_as_in_pandas(session, name):
    frame = session["patients"]
    found, expected = ANSWERS[name](frame).mock(), ANSWERS[name](frame.mock)
    if isinstance(expected, pd.Series):
        assert found.to_dict() == pytest.approx(expected.to_dict())
        assert (found.name, found.index.name) == (expected.name, expected.index.name)
    else:
        assert found == pytest.approx(expected)


def test_what_a_frame_says_of_itself(session):
    frame = session["patients"]
    assert list(frame) == frame.columns
    assert "age" in frame
    assert dict(frame.dtypes)["age"] == "int64"
    assert frame.schema.loc["age", "bounds"] == (0, 110)
    assert len(frame.head(3)) == 3
    assert len(frame.age.head(2)) == 2
    assert "los_days" in dir(frame)


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (lambda f: f[3.5], errors.UsageError),
        (lambda f: f[["nope"]], errors.QueryError),
        (lambda f: f.assign(x=3), errors.UsageError),
        (lambda f: f.assign(x=f.age).groupby("x"), errors.QueryError),
        (lambda f: f.groupby("ward")[["age"]], errors.QueryError),
        (lambda f: f.groupby("ward").mean(), errors.QueryError),
        (lambda f: f.groupby("ward").median(), errors.UnsupportedError),
        (lambda f: f.ward.isin("er"), errors.UsageError),
        (lambda f: f.age.astype("datetime64[ns]"), errors.QueryError),
        (lambda f: f.age == pd.Timestamp("2024-01-01"), errors.QueryError),
        (lambda f: f.age == None, errors.QueryError),  # noqa: E711
        (lambda f: f[f.age], errors.QueryError),
        (lambda f: f.age.clip(1), errors.QueryError),
        (lambda f: f.age.clip(upper=50), errors.QueryError),
        (lambda f: f.age**2, errors.UnsupportedError),
        (lambda f: 2**f.age, errors.UnsupportedError),
        (lambda f: np.float64(2) ** f.age, errors.UnsupportedError),
        (lambda f: 5 // f.age, errors.UnsupportedError),
        (lambda f: 5 % f.age, errors.UnsupportedError),
        (lambda f: divmod(f.age, 2), errors.UnsupportedError),
        (lambda f: f.age @ f.age, errors.UnsupportedError),
        (lambda f: abs(f.age), errors.UnsupportedError),
        (lambda f: round(f.age), errors.UnsupportedError),
        (lambda f: math.floor(f.age), errors.UnsupportedError),
        (lambda f: np.abs(f.age), errors.UnsupportedError),
        (lambda f: np.log(f.age), errors.UnsupportedError),
        (lambda f: np.add.reduce(f.age), errors.UnsupportedError),
        (lambda f: np.add(1, f.age, out=np.zeros(1)), errors.UnsupportedError),
        (lambda f: np.max(f.age), errors.UnsupportedError),
        (lambda f: np.median(f.age), errors.UnsupportedError),
        (lambda f: np.where(f.age > 3, 1, 0), errors.UnsupportedError),
        (lambda f: np.isin(f.age, [1]), errors.UnsupportedError),
        (lambda f: np.clip(f.age, 1, None), errors.QueryError),
        (lambda f: np.arange(3) + f.age, errors.QueryError),
        (lambda f: f.age + np.arange(3), errors.QueryError),
        (lambda f: f.age.mean(axis=1), errors.UnsupportedError),
        (lambda f: f.age.mean(skipna=False), errors.UnsupportedError),
        (lambda f: f.age.sum(min_count=3), errors.UnsupportedError),
        (lambda f: f.age.sum(weights=np.arange(2)), errors.UnsupportedError),
        (lambda f: f.count(axis=1), errors.UnsupportedError),
        (lambda f: f.groupby("ward").age.mean(engine="numba"), errors.UnsupportedError),
        (lambda f: f.groupby(f.age + 1), errors.QueryError),
        (lambda f: f.groupby(3), errors.QueryError),
        (lambda f: f.loc[f.age > 1], errors.UnsupportedError),
        (lambda f: f.iloc[0], errors.UnsupportedError),
        (lambda f: f.ward.str.len(), errors.UnsupportedError),
        (lambda f: f.mean(), errors.UnsupportedError),
        (lambda f: f.isna(), errors.UnsupportedError),
        (lambda f: f[[]].mean(), errors.UnsupportedError),
        (lambda f: f + 1, errors.UnsupportedError),
        (lambda f: f > 3, errors.UnsupportedError),
        (lambda f: np.log(f), errors.UnsupportedError),
        (lambda f: np.mean(f), errors.UnsupportedError),
        (lambda f: f.__setitem__("x", f.age), errors.UnsupportedError),
        (lambda f: f.age.sum() / f.count(), errors.PrivateValueError),
        (lambda f: f.age.mean() > 40, errors.PrivateValueError),
        (lambda f: f.age.tolist(), errors.PrivateValueError),
        (lambda f: int(f.age.sum()), errors.PrivateValueError),
        (lambda f: f.age.values, errors.PrivateValueError),
    ],
)
def test_mistakes_are_one_clear_line(session, mistake, kind):
    with pytest.raises(kind) as caught:
        mistake(session["patients"])
    assert str(caught.value)
    assert "\n" not in str(caught.value)
