"""The arrows between a request's states, all of them: what a kill, a second click or a fault can't get around."""

import itertools
import sqlite3

import pytest

from syft_lab.kernel import views

BEFORE = ("filed", "seen", "partly")
ARROWS = {
    ("filed", "seen"): "seen",
    **{(state, "endorsed"): "partly" for state in BEFORE},
    **{(state, "approved"): "approved" for state in BEFORE},
    **{(state, "denied"): "denied" for state in BEFORE},
    **{(state, "expired"): "expired" for state in BEFORE},
    **{(state, "cancelled"): "cancelled" for state in BEFORE},
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
BODY = {"request": "r", "rule": None, "review": True, "why": "w", "populations": ["p"], "analyst": "alice", "by": "owner"}
FILED = {"request": "r", "number": 1, "analyst": "alice", "digest": "d", "template": "t", "follows": None}


def database(state, needed=1):
    db = sqlite3.connect(":memory:")
    views.create(db)
    views.apply(db, 1, "filed", {**FILED, "needed": needed})
    db.execute("UPDATE requests SET state = ?", (state,))
    db.commit()
    return db


@pytest.mark.parametrize(("state", "entry"), list(itertools.product(STATES, ENTRIES)))
def test_a_request_goes_only_where_an_arrow_leads(state, entry):
    db = database(state, 2 if entry == "endorsed" else 1)
    if (state, entry) in ARROWS:
        views.apply(db, 2, entry, BODY)
        assert db.execute("SELECT state, entry FROM requests").fetchall() == [(ARROWS[state, entry], 2)]
        return
    with pytest.raises(sqlite3.IntegrityError):
        views.apply(db, 2, entry, BODY)
    assert db.execute("SELECT state, entry FROM requests").fetchall() == [(state, 1)]


def test_approved_takes_as_many_different_people_as_are_needed_and_never_the_one_who_asks():
    db = database("filed", 2)
    for entry, by in (("approved", "owner"), ("endorsed", "alice")):
        with pytest.raises(sqlite3.IntegrityError), db:
            views.apply(db, 2, entry, {**BODY, "by": by})
    views.apply(db, 2, "endorsed", BODY)
    db.commit()
    for entry, by in (("approved", "owner"), ("endorsed", "sam"), ("approved", "alice")):
        with pytest.raises(sqlite3.IntegrityError), db:
            views.apply(db, 3, entry, {**BODY, "by": by})
    views.apply(db, 3, "approved", {**BODY, "by": "sam"})
    assert db.execute("SELECT state, review FROM requests").fetchall() == [("approved", 1)]


def test_a_result_is_reviewed_if_any_of_those_who_approved_wants_it():
    for first, second in ((True, False), (False, True)):
        db = database("filed", 2)
        views.apply(db, 2, "endorsed", {**BODY, "review": first, "rule": None if first else 3})
        views.apply(db, 3, "approved", {**BODY, "by": "sam", "review": second, "rule": None if second else 3})
        assert db.execute("SELECT review FROM requests").fetchall() == [(1,)]
    db = database("filed")
    views.apply(db, 2, "approved", {**BODY, "by": "rule 3", "review": False, "rule": 3})
    assert db.execute("SELECT review, rule FROM requests").fetchall() == [(0, 3)]


def test_an_error_is_released_once_and_counts_as_exact():
    db = database("failed")
    views.apply(db, 2, "explained", BODY)
    with pytest.raises(sqlite3.IntegrityError):
        views.apply(db, 3, "explained", BODY)
    assert db.execute("SELECT count FROM exact").fetchall() == [(1,)]
    with pytest.raises(sqlite3.IntegrityError):
        views.apply(database("review"), 2, "explained", BODY)


def test_every_way_to_a_release_goes_through_an_approval_and_one_run():
    paths, ends = [("filed", ())], []
    while paths:
        state, path = paths.pop()
        if path.count("endorsed") > 2:
            continue
        if state == "released":
            ends.append(path)
        paths += [(after, (*path, entry)) for (before, entry), after in ARROWS.items() if before == state]
    assert {path[-4:] for path in ends} == {("approved", "started", "ran", "exact")}
    assert {entry for path in ends for entry in path[:-4]} == {"seen", "endorsed"}


def test_an_exact_release_is_counted_for_its_analyst_and_population():
    db = database("review")
    views.apply(db, 2, "exact", {**BODY, "populations": ["p", "q"]})
    assert db.execute("SELECT * FROM exact ORDER BY population").fetchall() == [("alice", "p", 1), ("alice", "q", 1)]
