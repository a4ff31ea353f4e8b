"""Nothing private in a message, and the same message for data that differ."""

import numpy as np
import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import canonical, errors
from syft_lab.wire import messages as m

SECRET = "tuberculosis-4711"


def data(kind):
    """Two tables with one schema: an ordinary one, and one made to break things."""
    n = 60
    if kind == "ordinary":
        return pd.DataFrame({"id": np.arange(n), "x": np.arange(n), "y": np.linspace(0, 9, n), "z": np.ones(n), "empty": np.ones(n),
                             "g": ["a", "b"] * (n // 2), "note": ["17"] * n, "flag": [True, False] * (n // 2)})  # fmt: skip
    return pd.DataFrame({"id": [1] * n, "x": np.full(n, 2**62), "y": [np.inf, -np.inf, np.nan] * (n // 3), "z": np.zeros(n),
                         "empty": [np.nan] * n, "g": [SECRET] * n, "note": [SECRET] * n, "flag": [True] * n})  # fmt: skip


@pytest.fixture
def pair(home):
    """Alice connected to both tables, under the same name at two owners."""
    owners, sessions = [], []
    for kind in ("ordinary", "hostile"):
        owner = lab.Owner.start(f"owner-{kind}")
        owner.publish(data(kind), "d", privacy_unit="id", max_contributions=2, bounds={"x": (0, 50), "y": (0, 9), "z": (0, 1), "empty": (0, 1)},
                      categories={"g": ["a", "b"]}, kinds={"empty": "float"}, budget=lab.Budget(100))  # fmt: skip
        owner.policy.allow("dp", dataset="d", epsilon_per_query=5)
        owner.invite("alice", budgets={"d": 20.0}, path=f"{kind}.syft")
        owners.append(owner)
        sessions.append(lab.connect(f"{kind}.syft"))
    yield sessions
    for session, owner in zip(sessions, owners, strict=True):
        session.close()
        owner.stop()


BAD = {
    "unknown column": lambda f: f["nope"].sum(),
    "missing bound": lambda f: (f.z / f.y).sum(),
    "division by a column of zeros": lambda f: (f.y / f.z).mean(),
    "strict cast of text": lambda f: f.note.astype("int64").sum(),
    "sum of text": lambda f: f.note.sum(),
    "undeclared category": lambda f: f[f.g == SECRET[:3]].count(),
    "group by undeclared": lambda f: f.groupby("note").size(),
    "arithmetic on a flag": lambda f: (f.flag + 1).sum(),
    "the id column": lambda f: f["id"].count(),
    "overflow": lambda f: (f.x * 2**50).sum(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_query_that_can_not_run_says_the_same_whatever_the_rows(pair, name):
    said = []
    for session in pair:
        with pytest.raises((errors.QueryError, errors.PrivateValueError)) as caught:
            BAD[name](session["d"]).release(epsilon=1)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]
    assert SECRET not in said[0][1]


@pytest.mark.parametrize("epsilon", [0, -1, float("inf"), float("nan"), 1e9])
def test_an_odd_epsilon_says_the_same_whatever_the_rows(pair, epsilon):
    said = set()
    for session in pair:
        with pytest.raises(errors.UsageError) as caught:
            session["d"].count().release(epsilon=epsilon)
        said.add(str(caught.value))
    assert len(said) == 1


GOOD = {
    "all-null column, sum": lambda f: f.empty.sum(),
    "all-null column, mean": lambda f: f.empty.mean(),
    "all-null column, count": lambda f: f.empty.count(),
    "infinities and NaN": lambda f: f.y.sum(),
    "infinities and NaN, mean by group": lambda f: f.groupby("g")["y"].mean(),
    "an empty filter": lambda f: f[f.x > 10**9].y.mean(),
    "an empty filter by group": lambda f: f[f.x < -5].groupby("g").size(),
    "huge integers": lambda f: f.x.sum(),
    "division by zeros, clipped": lambda f: (f.y / f.z).clip(0.0, 5.0).sum(),
    "division by nothing, compared": lambda f: f[(f.y / f.z) > 1].count(),
    "a float that no integer holds": lambda f: (f.y * 1e300).astype("int64").clip(0, 5).sum(),
    "text compared": lambda f: f[f.note == "17"].count(),
    "overflowing products, compared": lambda f: f[f.x * f.x > 0].count(),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_data_are_answered_like_any_other(pair, name):
    for session in pair:
        result = GOOD[name](session["d"]).release(epsilon=1)
        values = result.value if hasattr(result.value, "index") else [result.value]
        assert all(v is None or np.isfinite(v) or np.isnan(v) for v in values)
        assert SECRET not in repr(result) + result._repr_html_() + str(result.receipt.details)


def test_over_budget_says_the_same_whatever_the_rows(pair):
    said = set()
    for session in pair:
        frame = session["d"]
        for i in range(4):
            frame[frame.x > i].count().release(epsilon=5)
        with pytest.raises(errors.BudgetError) as caught:
            frame.count().release(epsilon=5)
        said.add(str(caught.value))
    assert len(said) == 1


RAW = [
    b"{}",
    b"[]",
    b'{"aggregate":"max","by":[],"filter":null,"value":null}',
    b'{"aggregate":"count","by":["note"],"filter":null,"value":null}',
    b'{"aggregate":"sum","by":[],"filter":null,"value":{"column":"nope"}}',
    b'{"aggregate":"sum","by":[],"filter":null,"value":{"literal":NaN}}',
    b'{"aggregate":"sum","by":[],"filter":null,"value":{"literal":1e400}}',
    b'{"aggregate":"sum","by":[],"filter":null,"value":{"args":[{"column":"note"},{"literal":"int"}],"op":"cast"}}',
    b'{"aggregate":"count","by":[],"filter":{"args":[],"op":"__import__"},"value":null}',
    b'{"aggregate":"count","by":[],"filter":{"args":[{"column":"v0"}],"op":"is_null"},"value":null}',
]


@pytest.mark.parametrize("query", RAW, ids=range(len(RAW)))
def test_hostile_queries_past_our_own_client_are_refused_the_same_and_cost_nothing(pair, query):
    said = set()
    for session in pair:
        with pytest.raises(errors.LabError) as caught:
            session._ask(m.Release("0" * 32, "d", 1, query, 1_000_000, 0, 0), m.Released)
        said.add((type(caught.value), str(caught.value)))
        assert session.budget().spent == {"d": 0.0}
    assert len(said) == 1
    assert SECRET not in str(said)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0), (-5, 0), (10**12, 0), (2**63 - 1, 0), (1, -1), (1, 10**12)])
def test_hostile_costs_past_our_own_client_are_refused(pair, epsilon, delta):
    query = b'{"aggregate":"count","by":[],"filter":null,"value":null}'
    for kind in (m.Price("d", 1, query, epsilon, delta), m.Release("1" * 32, "d", 1, query, epsilon, delta, 0)):
        with pytest.raises(errors.UsageError, match="epsilon must be above 0"):
            pair[0]._ask(kind, m.Priced)


def test_what_analysts_can_see_of_a_dataset_holds_no_row(pair):
    for session in pair:
        shown = bytes(session._ask(m.Datasets(), m.Catalogue).payload[0]).decode()
        assert SECRET not in shown
        assert not {"salt", "digest", "file", "commitment"} & set(canonical.loads(shown)[0])
        assert SECRET not in session["d"].mock.to_csv()


def test_a_panic_of_the_engine_is_no_hang_and_no_leak(pair, monkeypatch):
    """A panic in Rust is a BaseException to Python: past `except Exception`, and so past an answer."""
    import polars as pl

    from syft_lab.budget import queries

    def panic(*args):
        raise pl.exceptions.PanicException(SECRET)

    monkeypatch.setattr(queries, "_answer", panic)
    for session in pair:
        with pytest.raises(errors.FailedError) as caught:
            session["d"].x.sum().release(epsilon=1, block=False).get(20)
        assert SECRET not in str(caught.value)
        assert "reserved 0," in repr(session.budget())
    monkeypatch.setattr(queries, "prepare", panic)
    with pytest.raises(errors.LabError) as caught:
        pair[0]["d"].x.mean().release(epsilon=1, block=False).get(20)
    assert SECRET not in str(caught.value)


def test_a_failure_inside_the_engine_is_told_in_the_same_words_and_counts_as_spent(pair, monkeypatch):
    import polars as pl

    from syft_lab.kernel.store import Store

    def broken(self, file):
        return pl.LazyFrame({"v0": [SECRET]}).select(pl.col("v0").str.to_integer(strict=True).alias("v0"))

    monkeypatch.setattr(Store, "table", broken)
    for session in pair:
        with pytest.raises(errors.FailedError) as caught:
            session["d"].x.sum().release(epsilon=1)
        assert str(caught.value) == "the owner's kernel could not compute this query; its cost counts as spent"
        assert session.budget().spent == {"d": 1.0}
