"""Two exact results on cohorts that differ by a person tell about that person: the owner is shown, the analyst never."""

import numpy as np
import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.cell import Use
from syft_lab.kernel.executor import levels
from syft_lab.kernel.requests import cohorts
from tests.integration.deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


def hosted(people=300, oldest=1):
    """One row a person, ids of their own, one person of 100 (or ``oldest`` of them), the rest younger than 90."""
    age = np.r_[np.arange(people - oldest) % 60 + 20, np.full(oldest, 100)]
    return pd.DataFrame({"id": np.arange(people) * 7, "age": age, "sick": np.arange(people) % 3 == 0})


@pytest.fixture
def clinic(home):
    owner = lab.Owner.start("clinic")
    owner.publish(hosted(), "people", privacy_unit="id", bounds={"age": (0, 110)}, budget=lab.Budget(1))
    owner.invite("alice")
    with lab.connect("alice.syft") as session:
        yield owner, session
    owner.stop()


def ask(owner, session, frame, code="m = some.sick.mean()"):
    request = session.file(cell(code, use=(frame.use("some") if not isinstance(frame, Use) else frame,)))
    return until(owner, request.number, "checked")


def test_a_cohort_without_one_person_is_shown_with_the_request_it_clashes_with(clinic):
    owner, session = clinic
    people = session["people"]
    first = ask(owner, session, people[people.age > 40])
    assert first.cohorts == [next(iter(first.cohorts))]
    second = ask(owner, session, people[(people.age > 40) & (people.age < 100)])
    (line,) = [c for c in second.cohorts if "differs" in c]
    assert "differs from request 1 by 1 of the people" in line
    third = ask(owner, session, people[people.age > 60])
    assert not [c for c in third.cohorts if "differs" in c]


def test_all_but_one_person_clashes_with_the_whole(clinic):
    owner, session = clinic
    people = session["people"]
    found = ask(owner, session, people[people.age < 100])
    assert any("differs from all of people by 1 of the people" in c for c in found.cohorts)


def test_the_whole_after_all_but_one_clashes_too(clinic):
    owner, session = clinic
    people = session["people"]
    ask(owner, session, people[people.age < 100])
    whole = until(owner, session.file(cell("m = people.sick.mean()", use=(("people", 1),))).number, "checked")
    assert any("differs from request 1 by 1" in c for c in whole.cohorts)


def test_a_cohort_of_one_is_shown_as_small(clinic):
    owner, session = clinic
    people = session["people"]
    found = ask(owner, session, people[people.age == 100])
    assert any("1 of 300 people" in c and "fewer than 3" in c for c in found.cohorts)


def test_the_same_people_chosen_in_other_words_are_no_clash_and_another_dataset_about_them_is(clinic):
    owner, session = clinic
    people = session["people"]
    ask(owner, session, people[people.age > 40])
    again = ask(owner, session, people[~(people.age <= 40)])
    assert not [c for c in again.cohorts if "differs" in c]
    labs = hosted().rename(columns={"age": "years"}).drop(columns="sick")
    owner.publish(labs, "labs", population="people", privacy_unit="id", bounds={"years": (0, 110)})
    owner.invite("alice", datasets=["people", "labs"], path="again.syft")
    with lab.connect("again.syft", alias="again") as wider:
        frame = wider["labs"]
        found = ask(owner, wider, frame[(frame.years > 40) & (frame.years < 100)], "m = some.years.mean()")
        assert any("differs from request 1 by 1 of the people" in c for c in found.cohorts)


def test_requests_of_different_analysts_are_compared_for_they_may_collude(clinic):
    owner, session = clinic
    people = session["people"]
    ask(owner, session, people[people.age > 40])
    owner.invite("bob")
    with lab.connect("bob.syft", alias="bobs") as bob:
        frame = bob["people"]
        found = ask(owner, bob, frame[(frame.age > 40) & (frame.age < 100)])
        assert any("differs from request 1 by 1" in c for c in found.cohorts)


def test_what_was_denied_told_nothing_and_is_no_clash(clinic):
    owner, session = clinic
    people = session["people"]
    ask(owner, session, people[people.age > 40])
    folder = owner._runs._cohorts._folder
    assert len(list(folder.iterdir())) == 1
    owner.requests.number(1).deny("no")
    assert not list(folder.iterdir())  # whom it reads is kept for comparison alone
    found = ask(owner, session, people[(people.age > 40) & (people.age < 100)])
    assert not [c for c in found.cohorts if "differs" in c]
    (folder / f"{'0' * 32}-0.npy").write_bytes(b"of a request that was never filed")
    owner._runs._cohorts.tidy()
    assert [p.name[:32] for p in folder.iterdir()] == [owner._desk.find(2).request]


def heard(asked, session):
    """All that an analyst can observe of a request: its facts, without what differs by construction."""
    session.requests  # noqa: B018
    return {k: v for k, v in asked.facts.items() if k not in ("request", "filed", "changed", "entry", "cell", "digest")}


def test_the_guard_decides_nothing_an_analyst_can_observe(home):
    """Two owners, equal but for one person: at one the second cohort clashes, at the other not. The analyst sees the same."""
    seen = []
    for name, table in (("one", hosted(oldest=1)), ("ten", hosted(oldest=10))):
        owner = lab.Owner.start(name)
        try:
            owner.publish(table, "people", privacy_unit="id", bounds={"age": (0, 110)}, budget=lab.Budget(1))
            owner.invite("alice", path=f"{name}.syft")
            owner.policy.allow("code", same=True, times=9, review=False)
            with lab.connect(f"{name}.syft", alias=name) as session:
                people = session["people"]
                told = []
                for frame in (people[people.age > 40], people[(people.age > 40) & (people.age < 100)]):
                    asked = session.file(cell("m = 1", use=(frame.use("some"),)))
                    until(owner, asked.number, "checked")
                    told.append(heard(asked, session))
                clash = any("differs" in c for c in owner.requests.number(2).cohorts)
                seen.append((clash, told))
        finally:
            owner.stop()
    assert [clash for clash, _ in seen] == [True, False]
    assert seen[0][1] == seen[1][1]


def test_code_on_chosen_rows_always_asks_unless_that_very_digest_was_approved(clinic):
    owner, session = clinic
    people = session["people"]
    frame = people[people.age > 40].use("some")
    first = session.file(cell("m = some.sick.mean() * k", use=(frame,), params={"k": 1}))
    owner.policy.allow("code", like=owner.requests[0], params={"k": (0, 9)}, review=False)
    assert session.file(cell("m = some.sick.mean() * k", use=(frame,), params={"k": 1})).state == "filed"
    owner.policy.allow("code", analyst="alice", digest=first.digest, times=2, review=False)
    assert session.file(cell("m = some.sick.mean() * k", use=(frame,), params={"k": 1})).results["m"].get(60) >= 0
    other = people[people.age > 41].use("some")
    assert session.file(cell("m = some.sick.mean() * k", use=(other,), params={"k": 1})).state == "filed"


def test_a_saved_notebook_and_the_analyst_hold_no_count(clinic):
    owner, session = clinic
    people = session["people"]
    asked = session.file(cell("m = some.sick.mean()", use=(people[people.age > 40].use("some"),)))
    request = until(owner, asked.number, "checked")
    count = str(owner._desk.noted(owner._desk.row(request.id), "cohorts")["cohorts"][0]["count"])
    for shown in (repr(request), request._repr_html_(), repr(owner.requests), str(owner.inbox.get_state())):
        assert f"{count} of 300" not in shown
    assert count not in str(heard(asked, session))
    assert "people v1 as some, (age > 40)" in repr(request)


def test_the_cell_gets_the_rows_that_pass_and_the_columns_it_named(clinic):
    owner, session = clinic
    people = session["people"]
    frame = people[people.age > 70][["age"]]
    asked = session.file(cell("m = some.age.min()\nn = len(some.columns)", ("m", "n"), use=(frame.use("some"),)))
    assert approved(owner, 1).state == "review"
    assert owner.requests[0].result == {"m": 71, "n": 1}
    assert asked.number == 1
    with pytest.raises(errors.UsageError, match="is computed"):
        people.assign(x=people.age + 1).use("some")


def test_a_filter_that_is_none_is_refused_at_the_owner(clinic):
    _, session = clinic
    from syft_lab.expr import Col, Lit, Op

    for node, columns, word in (
        (Col("age"), (), "true or false"),
        (Op("gt", (Col("nope"), Lit(1))), (), "nope"),
        (Lit(True), (), "same for every row"),
        (None, ("nope",), "nope"),
    ):
        with pytest.raises(errors.LabError, match=word):
            session.file(cell("m = 1", use=(Use("people", 1, "some", node, columns),)))


def test_planted_a_guard_that_looks_at_nothing_is_caught(clinic, monkeypatch):
    """The detector above must fail where the guard is blind."""
    monkeypatch.setattr(cohorts.Cohorts, "_clashes", lambda *_: [])
    with pytest.raises((AssertionError, ValueError)):
        test_a_cohort_without_one_person_is_shown_with_the_request_it_clashes_with(clinic)
