"""On many releases: errors and intervals as promised, and neighbours that can't be told apart beyond ε.

Tables go through the real path: `store.prepare` (contributions, codes), `queries.prepare` and `queries.run`, and
`release.seal`. Each planted fault must be caught by the same detector that passes the real thing. How far apart the sums of
neighbours are before noise is the business of `test_distance`, without statistics.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from syft_lab.budget import noise, queries
from syft_lab.budget.accountant import cost
from syft_lab.errors import FailedError
from syft_lab.expr import Col, Lit, Op, Query
from syft_lab.kernel import release, store
from syft_lab.kernel.store import Terms

from .neighbours import epsilon_at_least, samples

EPSILON, RELEASES, K = 1.0, 1_200, 3
TERMS = Terms("id", K, {"x": (0, 10), "y": (-2.0, 4.0)}, {"g": ["a", "b", "rare"]})
x, y, g = Col("x"), Col("y"), Col("g")
QUERIES = {
    "count": Query("count"),
    "count where": Query("count", x, Op("ge", (x, Lit(8)))),
    "integer sum": Query("sum", x),
    "float sum": Query("sum", y, Op("ge", (x, Lit(8)))),
    "mean": Query("mean", y),
    "grouped count": Query("count", None, None, ("g",)),
    "grouped sum": Query("sum", x, None, ("g",)),
    "grouped mean": Query("mean", x, None, ("g",)),
}


def tables(contributions=K):
    """Two neighbours: the first has one person more, at the bounds, alone in the group "rare"."""
    n = 40
    base = pd.DataFrame({"id": np.arange(n), "x": np.arange(n) % 11, "y": np.linspace(-2, 4, n), "g": ["a", "b"] * (n // 2)})
    person = pd.DataFrame({"id": [999] * contributions, "x": 10, "y": 4.0, "g": "rare"})
    return pd.concat([base, person], ignore_index=True), base


def asker(frame, query, terms=TERMS):
    """A function that releases the query once: the last group's value, -inf for a failure or nothing left."""
    published = store.prepare(frame, terms, "generate")
    prepared = queries.prepare(published.schema, query, cost(EPSILON))
    table = published.table.lazy()

    def ask():
        try:
            value = release.seal(prepared, queries.run(prepared, table))["values"][-1]
        except FailedError:
            return -np.inf
        return -np.inf if value is None else value

    return ask


def told_apart(query, contributions=K):
    first, second = tables(contributions)
    return epsilon_at_least(samples(asker(first, query), RELEASES), samples(asker(second, query), RELEASES))


@pytest.mark.parametrize("name", ["grouped mean"])
def test_neighbours_are_not_told_apart_beyond_epsilon(name):
    assert told_apart(QUERIES[name]) <= EPSILON


@pytest.mark.parametrize("name", QUERIES)
def test_the_error_stays_within_the_promise_in_95_of_100_releases(name):
    query = QUERIES[name]
    frame, _ = tables()
    frame = pd.concat([frame] * 5, ignore_index=True)
    frame["id"] = np.arange(len(frame)) // K
    published = store.prepare(frame, TERMS, "generate")
    prepared = queries.prepare(published.schema, query, cost(EPSILON))
    import polars as pl

    _, truth = queries.exact(published.schema, query, pl.from_pandas(frame.drop(columns="id")))
    within, between, asked = 0, 0, 0
    for _ in range(RELEASES // 4):
        answer = release.seal(prepared, queries.run(prepared, published.table.lazy()))
        parts = (answer[k] for k in ("values", "accuracy", "low", "high"))
        for value, error, low, high, true in zip(*parts, truth, strict=True):
            asked += 1
            within += value is None or abs(value - true) <= error
            between += low <= true <= high
            assert query.aggregate != "mean" or -2 <= low <= high <= 10
    assert min(within, between) >= stats.binom.ppf(1e-6, asked, 0.95)


def halve_the_noise(monkeypatch):
    """The mechanism for twice the price, sold at the price, past the check that would stop it."""
    plain = queries.prepare
    monkeypatch.setattr(queries, "prepare", lambda schema, query, price: plain(schema, query, price + price))
    monkeypatch.setattr(queries, "affordable", lambda *_: True)


@pytest.mark.parametrize("name", ["count"])
def test_a_planted_fault_half_the_noise_is_caught(name, monkeypatch):
    halve_the_noise(monkeypatch)
    assert told_apart(QUERIES[name]) > EPSILON


@pytest.mark.parametrize("name", ["count"])
def test_a_planted_fault_contributions_not_enforced_is_caught(name, monkeypatch):
    assert told_apart(QUERIES[name], contributions=12) <= EPSILON
    monkeypatch.setattr(store, "_limit_contributions", lambda frame, ids, terms, key: ids.is_not_null())
    assert told_apart(QUERIES[name], contributions=12) > EPSILON


@pytest.mark.parametrize("name", ["grouped sum"])
def test_a_planted_fault_contributions_left_out_of_the_price_is_caught(name, monkeypatch):
    plain = queries.prepare

    def for_one_row(schema, query, price):
        made = plain(type(schema)(schema.columns, 1, schema.max_rows), query, price)
        return queries.Prepared(**{**made.__dict__})

    monkeypatch.setattr(queries, "prepare", for_one_row)
    assert told_apart(QUERIES[name]) > EPSILON


def test_half_the_noise_does_not_run_where_the_check_is_in_place():
    """The first line of defence: OpenDP's own map is held against the price before data is touched."""
    published = store.prepare(tables()[0], TERMS, "generate")
    prepared = queries.prepare(published.schema, QUERIES["count"], cost(2 * EPSILON))
    sold = queries.Prepared(**{**prepared.__dict__, "cost": cost(EPSILON)})
    with pytest.raises(FailedError, match="costs more than its price"):
        queries.run(sold, published.table.lazy())


def test_a_scale_computed_wrongly_is_corrected_by_the_map(monkeypatch):
    """OpenDP's own map decides, not our formula: noise is made until it is within the price."""
    made = noise.make_laplace
    monkeypatch.setattr(noise, "make_laplace", lambda *space, scale: made(*space, scale=scale / (1 + 1e-9)))
    published = store.prepare(tables()[0], TERMS, "generate")
    assert queries.affordable(queries.prepare(published.schema, QUERIES["count"], cost(EPSILON)))
