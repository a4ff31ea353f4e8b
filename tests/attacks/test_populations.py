"""More budget by another name: republishing, renaming, splitting, restating ids. And what merging populations leaves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import syft_lab as lab
from syft_lab import errors
from syft_lab.budget.accountant import Cost
from syft_lab.identity import Keys
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.ledger import Ledger, Question


@pytest.fixture
def spent(owner, session):
    """Alice has spent all she has on the clinic's people."""
    session["patients"].count().release(epsilon=0.5)
    session["patients"].age.sum().release(epsilon=0.5)
    owner.withdraw("patients")
    return owner


def left(owner):
    return {n: owner._ledger.account("alice", n).left.epsilon for n in owner._ledger.populations()}


def renamed(frame):
    return frame.rename(columns={"patient_id": "person", "age": "years", "los_days": "stay"})


TABLES = {
    "again": lambda p: p,
    "renamed columns": lambda p: renamed(p),
    "half of the rows": lambda p: p.iloc[::2],
    "half of the people": lambda p: p[p.patient_id < 600],
    "half of the columns": lambda p: p[["patient_id", "age"]],
    "shuffled": lambda p: p.sample(frac=1, random_state=1),
    "one row a person": lambda p: p.drop_duplicates("patient_id"),
    "ids as text": lambda p: p.assign(patient_id=p.patient_id.astype(str)),
    "ids as floats": lambda p: p.assign(patient_id=p.patient_id.astype(float)),
    "ids with spaces": lambda p: p.assign(patient_id=" " + p.patient_id.astype(str) + " "),
    "new ids": lambda p: p.assign(patient_id=p.patient_id + 10**6),
    "a few others among them": lambda p: p.assign(patient_id=p.patient_id.where(p.patient_id % 10 > 0, p.patient_id + 10**6)),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_same_people_under_another_name_bring_no_new_budget(spent, patients, table):
    data = table(patients)
    unit = "person" if "person" in data else "patient_id"
    before = left(spent)
    with pytest.raises(errors.UsageError, match="population='clinic'"):
        spent.publish(data, "fresh", privacy_unit=unit, max_contributions=3, budget=lab.Budget(3))
    with pytest.raises(errors.UsageError, match="population='clinic'"):
        spent.publish(data, "fresh", population="other", privacy_unit=unit, max_contributions=3, budget=lab.Budget(3))
    assert left(spent) == before
    spent.publish(data, "fresh", population="clinic", privacy_unit=unit, max_contributions=3)
    assert left(spent) == before


def test_it_is_noticed_after_a_restart_too(spent, patients):
    spent.stop()
    again = lab.Owner.start("hospital-a")
    try:
        with pytest.raises(errors.UsageError, match="population='clinic'"):
            again.publish(patients, "fresh", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(3))
    finally:
        again.stop()


def test_rows_published_again_as_rows_are_noticed(home):
    owner = lab.Owner.start("rows")
    try:
        draw = np.random.default_rng(3)
        table = pd.DataFrame({"a": draw.normal(size=400), "b": draw.integers(0, 9, 400)})
        owner.publish(table, "one", privacy_unit="row", budget=lab.Budget(1))
        with pytest.raises(errors.UsageError, match="population='one'"):
            owner.publish(table.iloc[:200], "two", privacy_unit="row", budget=lab.Budget(1))
        few = pd.DataFrame({"a": np.arange(400) % 3})  # equal by chance: nothing can be told
        owner.publish(few, "three", privacy_unit="row", budget=lab.Budget(1))
        owner.publish(few.iloc[:300], "four", privacy_unit="row", budget=lab.Budget(1))
        tensor = draw.normal(size=(50, 4))
        owner.publish(tensor, "t", privacy_unit="row", rows_public=True, budget=lab.Budget(1))
        with pytest.raises(errors.UsageError, match="population='t'"):
            owner.publish(tensor[:20], "u", privacy_unit="row", rows_public=True, budget=lab.Budget(1))
    finally:
        owner.stop()


def test_other_people_with_equal_ids_can_be_said_to_be_others(owner, patients):
    card = owner.publish(
        patients, "others", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(1), distinct=True
    )
    assert "others" in repr(card)
    body = next(e.body for e in owner._journal.entries() if e.kind == "published" and e.body["dataset"] == "others")
    assert body["meta"]["distinct"] is True  # journaled: an auditor sees who said so


def test_other_people_are_no_trouble(owner, patients):
    mixed = {name: patients[name].sample(frac=1, random_state=i).to_numpy() for i, name in enumerate(patients)}
    others = patients.assign(**{**mixed, "patient_id": patients.patient_id + 10**6})
    owner.publish(others, "others", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(1))


def test_the_message_tells_nothing_of_the_rows(spent, patients):
    said = []
    for data in (patients, patients[patients.patient_id < 900]):
        with pytest.raises(errors.UsageError) as caught:
            spent.publish(data, "fresh", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(3))
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_planted_without_the_check_a_new_name_brings_a_new_budget(spent, patients, monkeypatch):
    monkeypatch.setattr(type(spent), "_check_people", lambda *_: None)
    spent.publish(patients, "fresh", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(3))
    spent.invite("alice", budgets={"fresh": 1.0}, path="again.syft")
    assert left(spent)["fresh"] == 1_000_000  # which is what the tests above would catch


def test_two_populations_that_are_the_same_people_share_what_is_left(owner, session, patients):
    others = patients.assign(patient_id=patients.patient_id + 10**6)
    owner.publish(others, "lab", population="lab-people", privacy_unit="patient_id", max_contributions=3, budget=lab.Budget(2.0),
                  bounds={"age": (0, 110)}, distinct=True)  # fmt: skip
    owner.policy.allow("dp", dataset="lab", epsilon_per_query=0.5)
    owner.invite("alice", budgets={"clinic": 1.0, "lab-people": 0.9}, path="again.syft")
    with lab.connect("again.syft", alias="again") as wider:
        wider["patients"].count().release(epsilon=0.3)
        wider["lab"].count().release(epsilon=0.4)
        owner.merge_populations("lab-people", into="clinic")
        balance, account = owner._ledger.population("clinic"), owner._ledger.account("alice", "clinic")
        assert (balance.cap.epsilon, balance.spent.epsilon) == (2_000_000, 700_000)  # the smaller cap, all that was spent
        assert (account.cap.epsilon, account.spent.epsilon) == (900_000, 700_000)
        assert owner._ledger.populations() == ["clinic"]
        with pytest.raises(errors.BudgetError):
            wider["lab"].count().release(epsilon=0.25)
        wider["lab"].age.sum().release(epsilon=0.2)
        assert owner._ledger.account("alice", "clinic").left.epsilon == 0
        for name in ("fresh", "lab2"):
            with pytest.raises(errors.UsageError, match="merged into clinic"):
                owner.publish(others, name, population="lab-people", privacy_unit="patient_id", budget=lab.Budget(1))
    with pytest.raises(errors.UsageError, match="no population"):
        owner.top_up("lab-people", 1.0)
    with pytest.raises(errors.UsageError, match="no population"):
        owner.merge_populations("lab-people", into="clinic")
    with pytest.raises(errors.UsageError, match="two populations"):
        owner.merge_populations("clinic", into="clinic")
    owner.top_up("clinic", 0.5, analyst="alice")
    assert owner._ledger.account("alice", "clinic").left.epsilon == 500_000
    assert owner.audit.verify()
    kinds = [e.kind for e in owner._journal.entries()]
    assert "merged" in kinds
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again._ledger.populations() == ["clinic"]
        assert {d.population for d in again._catalogue.live()} == {"clinic"}
    finally:
        again.stop()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc"), st.sampled_from(["alice", "bob"]), st.integers(1, 400)),
        st.tuples(st.just("merge"), st.sampled_from("abc"), st.sampled_from("abc")),
        st.tuples(st.just("top_up"), st.sampled_from("abc"), st.integers(1, 300)),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=40)
def test_whatever_is_merged_nobody_gets_more_than_their_people_were_promised(tmp_path_factory, steps):
    """Kept by hand beside the ledger: for each original population the ε that its people lost, and what it was promised."""
    journal = Journal(tmp_path_factory.mktemp("j") / "journal.sqlite", Keys.generate())
    ledger = Ledger(journal)
    promised = dict.fromkeys("abc", 1000)
    lost = dict.fromkeys("abc", 0)
    home = {n: n for n in "abc"}
    for name in "abc":
        cap = {"epsilon_micro": 1000, "delta_pico": 0}
        journal.append("published", {"dataset": name, "version": 1, "population": name, "new_population": cap, "meta": {}})
    for who in ("alice", "bob"):
        caps = {n: {"epsilon_micro": 700, "delta_pico": 0} for n in "abc"}
        journal.append(
            "invited", {"invitation": who, "analyst": who, "role": "analyst", "datasets": [], "expires": "", "budgets": caps}
        )
    try:
        for i, step in enumerate(steps):
            if step[0] == "merge" and home[step[1]] != home[step[2]]:
                old, new = home[step[1]], home[step[2]]
                ledger.merge(old, new)
                home = {n: new if h == old else h for n, h in home.items()}
            elif step[0] == "top_up":
                journal.append(
                    "topped_up", {"population": home[step[1]], "analyst": None, "epsilon_micro": step[2], "delta_pico": 0}
                )
                promised |= {n: promised[n] + step[2] for n, h in home.items() if h == home[step[1]]}
            elif step[0] == "ask":
                question = Question(f"{i:032x}", step[2], step[1], 1, home[step[1]], f"{i}", Cost(step[3]))
                try:
                    ledger.reserve(question, {})
                except errors.BudgetError:
                    continue
                ledger.release(question, {})
                lost |= {n: lost[n] + step[3] for n, h in home.items() if h == home[step[1]]}
                # Whoever is in this population now can have lost at most what it was promised.
                assert lost[step[1]] <= promised[step[1]]
        for name in set(home.values()):
            members = [n for n, h in home.items() if h == name]
            balance = ledger.population(name)
            assert balance.spent.epsilon >= max(lost[n] for n in members)
            assert balance.cap.epsilon >= balance.spent.epsilon
        from syft_lab.kernel.journal import fold

        fold({"seq": e.seq, "kind": e.kind, "body": e.body} for e in journal.entries())
    finally:
        journal.close()
