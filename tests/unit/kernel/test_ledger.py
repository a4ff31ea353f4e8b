"""Reserve, settle, never give back: against a model, and from several threads at once."""

import secrets
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.budget.accountant import Cost
from syft_lab.errors import BudgetError, SuspendedError, UsageError
from syft_lab.identity import Keys
from syft_lab.kernel.journal import Journal, verify
from syft_lab.kernel.ledger import Ledger, Question

CAP = 1000


def opened(folder, analysts=("alice", "bob"), cap=CAP, each=CAP):
    keys = Keys.generate()
    journal = Journal(folder / "journal.sqlite", keys)
    journal.append("opened", {})
    body = {"dataset": "d", "version": 1, "population": "p", "meta": {}, "new_population": Cost(cap, 5).to_json()}
    journal.append("published", body)
    for name in analysts:
        terms = {"invitation": name, "analyst": name, "role": "analyst", "datasets": ["d"], "expires": "",
                 "budgets": {"p": Cost(each, 5).to_json()}}  # fmt: skip
        journal.append("invited", terms)
    return journal, Ledger(journal), keys


def question(analyst="alice", epsilon=100, delta=0, digest="q"):
    return Question(secrets.token_hex(16), analyst, "d", 1, "p", digest, Cost(epsilon, delta))


@pytest.fixture
def ledger(tmp_path):
    journal, made, _ = opened(tmp_path)
    yield made
    journal.close()


steps = st.lists(
    st.tuples(st.sampled_from(["alice", "bob"]), st.integers(1, 400), st.sampled_from(["release", "fail", "leave"])),
    max_size=12,
)


@given(steps)
def test_accounts_do_what_a_model_of_them_does(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("ledger")
    journal, ledger, keys = opened(folder, each=700)
    spent, reserved = {"alice": 0, "bob": 0}, {"alice": 0, "bob": 0}
    for analyst, epsilon, end in steps:
        asked = question(analyst, epsilon)
        fits = (
            spent[analyst] + reserved[analyst] + epsilon <= 700
            and sum(spent.values()) + sum(reserved.values()) + epsilon <= CAP
        )
        if not fits:
            with pytest.raises(BudgetError):
                ledger.reserve(asked, {})
            continue
        ledger.reserve(asked, {})
        if end == "leave":
            reserved[analyst] += epsilon
            continue
        spent[analyst] += epsilon
        if end == "release":
            ledger.release(asked, {"value": {}})
        else:
            ledger.fail(asked.request)
    for analyst in spent:
        balance = ledger.account(analyst, "p")
        assert (balance.spent.epsilon, balance.reserved.epsilon) == (spent[analyst], reserved[analyst])
    assert ledger.population("p").left.epsilon == CAP - sum(spent.values()) - sum(reserved.values())
    assert ledger.settle_interrupted() == sum(1 for *_, q in journal.read("SELECT * FROM queries WHERE state = 'interrupted'"))
    assert ledger.population("p").reserved == Cost(0)
    assert ledger.population("p").spent.epsilon == sum(spent.values()) + sum(reserved.values())
    verify(folder / "journal.sqlite", keys.public)
    journal.close()


def test_many_threads_stop_exactly_at_the_cap(tmp_path):
    journal, ledger, keys = opened(tmp_path)
    granted, barrier = [], threading.Barrier(8)

    def spend(analyst):
        barrier.wait()
        for _ in range(20):
            try:
                asked = question(analyst, 30)
                ledger.reserve(asked, {})
                ledger.release(asked, {"value": {}})
                granted.append(30)
            except BudgetError:
                return

    threads = [threading.Thread(target=spend, args=("alice" if i % 2 else "bob",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 990 == ledger.population("p").spent.epsilon
    verify(tmp_path / "journal.sqlite", keys.public)
    journal.close()


def test_delta_is_held_as_epsilon_is(ledger):
    ledger.reserve(question(delta=5), {})
    with pytest.raises(BudgetError):
        ledger.reserve(question(delta=1), {})


def test_who_has_no_account_has_nothing(ledger):
    with pytest.raises(BudgetError, match="ε = 0 is left"):
        ledger.reserve(question("eve", 1), {})


def test_a_request_id_is_for_one_question(ledger):
    asked = question()
    ledger.reserve(asked, {})
    with pytest.raises(UsageError, match="another question"):
        ledger.reserve(asked, {})
    assert ledger.known(asked) == "reserved"
    with pytest.raises(UsageError, match="another question"):
        ledger.known(replace(asked, analyst="bob"))
    with pytest.raises(UsageError, match="another question"):
        ledger.known(replace(asked, cost=Cost(1)))


def test_an_answer_is_found_again_for_the_same_analyst_question_and_cost_only(ledger):
    asked = question()
    ledger.reserve(asked, {})
    assert ledger.earlier(asked) is None
    entry = ledger.release(asked, {"value": {}})
    assert ledger.earlier(replace(asked, request="other")) == entry.seq
    for change in (
        {"analyst": "bob"},
        {"version": 2},
        {"digest": "r"},
        {"cost": Cost(99)},
        {"cost": Cost(100, 1)},
        {"dataset": "e"},
    ):
        assert ledger.earlier(replace(asked, **change)) is None


def test_a_receipt_shows_this_analysts_account_before_and_after_and_nobody_elses(ledger):
    other = question("bob", 300)
    ledger.reserve(other, {})
    ledger.release(other, {"value": {}})
    asked = question("alice", 100)
    ledger.reserve(asked, {})
    body = ledger.release(asked, {"value": {}}).body
    assert body["before"]["spent"]["epsilon_micro"] == 0
    assert body["after"]["spent"]["epsilon_micro"] == 100
    assert body["after"]["reserved"]["epsilon_micro"] == 0


def test_nothing_is_settled_twice(ledger):
    asked = question()
    ledger.reserve(asked, {})
    ledger.fail(asked.request)
    with pytest.raises(Exception, match="no such reservation"):
        ledger.release(asked, {"value": {}})
    assert ledger.account("alice", "p").spent == Cost(100)


def test_a_suspended_owner_reserves_nothing(ledger):
    ledger._journal.append("suspended", {"analyst": "alice", "head": {}})
    with pytest.raises(SuspendedError):
        ledger.reserve(question(), {})
    ledger._journal.append("restored", {"heads": [], "lost": {"p": Cost(900).to_json()}})
    ledger.reserve(question(epsilon=100), {})
    with pytest.raises(BudgetError):
        ledger.reserve(question(epsilon=1), {})
