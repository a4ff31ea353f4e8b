"""The arrows between a request's states, all of them: what a kill, a second click or a fault can't get around."""

import itertools
import sqlite3

import pytest

from syft_lab.kernel import views

ARROWS = {
    ("filed", "approved"): "approved",
    ("filed", "denied"): "denied",
    ("filed", "cancelled"): "cancelled",
    ("approved", "started"): "running",
    ("approved", "cancelled"): "cancelled",
    ("approved", "broke"): "failed",
    ("running", "ran"): "review",
    ("running", "broke"): "failed",
    ("running", "cut_off"): "interrupted",
    ("running", "cancelled"): "cancelled",
    ("review", "exact"): "released",
    ("review", "withheld"): "withheld",
    ("review", "cancelled"): "cancelled",
}
ENTRIES = sorted({entry for _, entry in ARROWS})
STATES = sorted({state for state, _ in ARROWS} | set(ARROWS.values()))
BODY = {"request": "r", "rule": None, "review": True, "why": "w", "populations": ["p"], "analyst": "alice"}


def database(state):
    db = sqlite3.connect(":memory:")
    views.create(db)
    views.apply(db, 1, "filed", {"request": "r", "number": 1, "analyst": "alice", "digest": "d"})
    db.execute("UPDATE requests SET state = ?", (state,))
    return db


@pytest.mark.parametrize(("state", "entry"), list(itertools.product(STATES, ENTRIES)))
def test_a_request_goes_only_where_an_arrow_leads(state, entry):
    db = database(state)
    if (state, entry) in ARROWS:
        views.apply(db, 2, entry, BODY)
        assert db.execute("SELECT state, entry FROM requests").fetchall() == [(ARROWS[state, entry], 2)]
        return
    with pytest.raises(sqlite3.IntegrityError):
        views.apply(db, 2, entry, BODY)
    assert db.execute("SELECT state, entry FROM requests").fetchall() == [(state, 1)]


def test_every_way_to_a_release_goes_through_an_approval_and_one_run():
    paths, ends = [("filed", ())], []
    while paths:
        state, path = paths.pop()
        if state == "released":
            ends.append(path)
        paths += [(after, (*path, entry)) for (before, entry), after in ARROWS.items() if before == state]
    assert ends == [("approved", "started", "ran", "exact")]


def test_an_exact_release_is_counted_for_its_analyst_and_population():
    db = database("review")
    views.apply(db, 2, "exact", {**BODY, "populations": ["p", "q"]})
    assert db.execute("SELECT * FROM exact ORDER BY population").fetchall() == [("alice", "p", 1), ("alice", "q", 1)]
