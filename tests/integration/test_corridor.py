"""An owner and an analyst in one process, over real sockets: everything the tour's first two sections say."""

import asyncio
import json
import math
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.receipt import Receipt


def test_an_answer_is_near_the_truth_and_its_receipt_verifies_offline(session, patients, owner):
    kept = patients.groupby("patient_id").head(3)
    question = session["patients"]
    result = question[question.age > 65].count().release(epsilon=0.5)
    truth = int((kept.age > 65).sum())
    assert abs(result.value - truth) <= 10 * result.accuracy
    owner.stop()  # offline from here on
    said = result.receipt.verify()
    assert said["guarantee"] == "0.5-differential privacy"
    assert said["neighbours"] == "add or remove one patient_id with all its rows (at most 3)"
    assert said["before"]["spent"]["epsilon_micro"] == 0
    assert said["after"]["spent"]["epsilon_micro"] == 500_000
    assert said["analyst"] == "alice"


def test_a_group_by_gives_a_series_in_declared_order(session):
    frame = session["patients"]
    one = frame.groupby("ward")["los_days"].mean().release(epsilon=0.2)
    assert list(one.value.index) == ["er", "icu", "ward", "none"]
    assert one.value.index.name == "ward"
    assert one.value.name == "los_days"
    two = frame.groupby(["ward", "sex"]).size().release(epsilon=0.2)
    assert two.value.index.names == ["ward", "sex"]
    assert two.value.shape == two.accuracy.shape == (8,)
    assert two.value.dtype == "int64"


def test_thousands_of_groups_and_of_columns_travel(owner, session, home):
    many = [f"category {i:04d}" for i in range(5_000)]
    frame = pd.DataFrame({"c": many * 2, "d": [0, 1] * 5_000, **{f"column {i}": 1.0 for i in range(2_000)}})
    owner.publish(frame, name="wide", population="clinic", privacy_unit="row", categories={"c": many, "d": [0, 1]})
    owner.policy.allow("dp", dataset="wide", epsilon_per_query=1)
    owner.invite("bob", budgets={"clinic": 1.0})
    with lab.connect("bob.syft", alias="as-bob") as bob:
        wide = bob["wide"]
        assert len(wide.columns) == 2_002
        result = wide.groupby(["c", "d"]).size().release(epsilon=0.5)
        assert result.value.shape == (10_000,)
        assert result.receipt.verify()
        one_of = wide[wide.c.is_in(many[:100])].count().release(epsilon=0.5)
        assert abs(one_of.value - 200) < 60
        assert "column 1999" in repr(wide)


def test_the_same_question_is_free_and_another_price_is_not(session):
    question = session["patients"].age.mean()
    first, again = question.release(epsilon=0.1), question.release(epsilon=0.1)
    assert first.value == again.value
    assert session.budget().spent == {"clinic": 0.1}
    question.release(epsilon=0.2)
    assert session.budget().spent == pytest.approx({"clinic": 0.3})


def test_the_same_question_asked_at_once_costs_once(session):
    question = session["patients"].age.sum()
    results = [question.release(epsilon=0.1, block=False) for _ in range(8)]
    assert len({r.value for r in results}) == 1
    assert session.budget().spent == {"clinic": 0.1}


def test_price_spends_nothing_and_says_what_release_will(session):
    question = session["patients"].age.sum()
    price = question.price(epsilon=0.5)
    assert price.epsilon == 0.5
    assert price.left == 1.0
    assert price.allowed
    assert session.budget().spent == {"clinic": 0.0}
    assert "the next question takes 0.5" in repr(session.budget())
    assert price.accuracy == pytest.approx(question.release(epsilon=0.5).accuracy)
    mean = session["patients"].age.mean().price(epsilon=0.1)
    assert list(mean.accuracy.index) == [100, 1000, 10000, 100000]
    assert mean.accuracy.is_monotonic_decreasing
    dear = session["patients"].age.mean().price(epsilon=0.9)
    assert not dear.allowed
    assert "owner.policy.allow" in dear.why


def test_what_no_policy_allows_is_refused_naming_the_line_that_would(session):
    with pytest.raises(errors.RefusedError, match=r'owner.policy.allow\("dp", dataset="patients", epsilon_per_query=0.9\)'):
        session["patients"].count().release(epsilon=0.9)
    assert session.budget().spent == {"clinic": 0.0}


def test_over_budget_is_refused_and_nothing_is_spent(session):
    frame = session["patients"]
    frame.count().release(epsilon=0.5)
    frame.age.count().release(epsilon=0.4)
    with pytest.raises(errors.BudgetError, match=r"ε = 0.2, and ε = 0.1, .* is left of yours in clinic"):
        frame.age.sum().release(epsilon=0.2)
    assert session.budget().left == pytest.approx({"clinic": 0.1})


def test_the_cap_of_the_population_holds_over_analysts_and_datasets(owner, patients, terms, home):
    owner.publish(patients, name="again", **terms)
    owner.policy.allow("dp", dataset="again", epsilon_per_query=3)
    for i in range(4):
        owner.invite(f"bob-{i}", budgets={"clinic": 1.0})
        with lab.connect(f"bob-{i}.syft", alias=f"as-bob-{i}") as bob:
            if i < 3:
                bob["again"].count().release(epsilon=1.0)
            else:
                with pytest.raises(errors.BudgetError, match="for all analysts of clinic"):
                    bob["patients"].count().release(epsilon=0.1)
    assert owner.audit.verify()


def test_what_others_spent_shows_only_where_the_cap_binds(owner, session):
    owner.invite("bob", budgets={"clinic": lab.Budget(2.9)})
    owner.policy.allow("dp", dataset="patients", epsilon_per_query=3)
    with lab.connect("bob.syft", alias="as-bob") as bob:
        before = repr(session.budget())
        bob["patients"].count().release(epsilon=1.5)
        assert repr(session.budget()) == before
        bob["patients"].age.count().release(epsilon=1.4)
        assert "all analysts together have 0.1 left" in repr(session.budget())
        assert session["patients"].count().price(0.2).left == 0.1


def test_a_delta_that_is_offered_is_not_taken_by_a_pure_mechanism(session):
    question = session["patients"].count()
    assert question.price(0.1, delta=1e-7).delta == 0
    said = question.release(epsilon=0.1, delta=1e-7).receipt.details
    assert (said["delta_pico"], said["after"]["spent"]["delta_pico"]) == (0, 0)


def test_a_top_up_is_journaled_and_opens_the_account_again(owner, session):
    frame = session["patients"]
    frame.count().release(epsilon=0.5)
    frame.age.count().release(epsilon=0.5)
    with pytest.raises(errors.BudgetError):
        frame.age.sum().release(epsilon=0.1)
    owner.top_up("clinic", 0.1, analyst="alice")
    frame.age.sum().release(epsilon=0.1)
    assert "topped_up" in set(owner.audit.log().kind)


def test_publishing_again_never_resets_a_budget(owner, session, patients, terms):
    session["patients"].count().release(epsilon=0.5)
    owner.withdraw("patients")
    with pytest.raises(errors.UsageError, match="only owner.top_up"):
        owner.publish(patients.head(100), name="patients", budget=lab.Budget(5.0), **terms)
    owner.publish(patients.head(100), name="patients", **terms)
    assert session["patients"]._source.version == 2
    assert session.budget().spent == {"clinic": 0.5}


def test_a_withdrawn_version_answers_no_more_and_says_so(owner, session, patients, terms):
    old = session["patients"]
    owner.withdraw("patients")
    with pytest.raises(errors.RefusedError, match="withdrawn"):
        old.count().release(epsilon=0.1)
    with pytest.raises(errors.UsageError, match="open are: none"):
        session["patients"]
    owner.publish(patients, name="patients", **terms)
    with pytest.raises(errors.RefusedError, match="version 1 of patients was withdrawn"):
        old.count().release(epsilon=0.1)


def test_publishing_the_same_again_is_a_no_op_and_something_else_an_error(owner, patients, terms):
    assert "unchanged" in repr(owner.publish(patients, name="patients", **terms))
    with pytest.raises(errors.UsageError, match="withdraw"):
        owner.publish(patients.head(50), name="patients", **terms)
    assert len(list((owner._folder / "tables").iterdir())) == 2


def test_results_are_futures(session):
    result = session["patients"].count().release(epsilon=0.1, block=False)

    async def wait():
        return await result

    assert asyncio.run(wait()) == result.value == result.get(timeout=5)
    assert result.done()
    assert result.exception() is None
    refused = session["patients"].count().release(epsilon=0.9, block=False)
    with pytest.raises(errors.RefusedError):
        _ = refused.value
    assert isinstance(refused.exception(), errors.RefusedError)
    assert "no policy" in repr(refused)
    assert "no policy" in refused._repr_html_()


@pytest.mark.parametrize("epsilon", [0, -1, float("nan"), float("inf"), 1e9])
def test_odd_epsilons_are_one_message_and_never_sent(session, epsilon):
    for ask in (session["patients"].count().price, session["patients"].count().release):
        with pytest.raises(errors.UsageError, match="epsilon"):
            ask(epsilon=epsilon)


def test_pointers_refuse_to_be_values(session):
    frame = session["patients"]
    for ask in (
        lambda: len(frame), lambda: bool(frame), lambda: frame[0], lambda: frame[2:5], lambda: frame.shape,
        lambda: bool(frame.age), lambda: list(frame.age), lambda: frame.age.tolist(), lambda: frame.age.values,
        lambda: np.asarray(frame.age), lambda: float(frame.age.mean()), lambda: bool(frame.age > 5), lambda: frame.age[0],
    ):  # fmt: skip
        with pytest.raises(errors.PrivateValueError, match=r"release|mock"):
            ask()


def test_what_pandas_has_and_a_pointer_has_not_says_what_there_is(session):
    frame = session["patients"]
    with pytest.raises(errors.UnsupportedError, match="did you mean 'groupby'"):
        frame.group_by("ward")
    with pytest.raises(AttributeError, match="remote cell"):
        frame.age.apply(abs)
    assert not hasattr(frame, "to_csv")


def test_queries_that_can_not_be_made_private_are_refused_here_with_the_part(session):
    frame = session["patients"]
    with pytest.raises(errors.QueryError, match="declare its categories"):
        frame.groupby("note")
    with pytest.raises(errors.QueryError, match="no column 'patient_id'"):
        frame["patient_id"]
    with pytest.raises(errors.QueryError, match="is no category of ward"):
        frame[frame.ward == "oncology"]
    with pytest.raises(errors.QueryError, match="filtered differently"):
        frame[frame.age > 60][frame[frame.age > 65].plan == 1]


def test_pythons_own_and_or_and_forgotten_brackets_say_what_to_write(session):
    frame = session["patients"]
    for mistake in (lambda: frame[frame.age > 5 and frame.age < 9], lambda: frame[5 < frame.age < 9]):
        with pytest.raises(errors.PrivateValueError, match="between"):
            mistake()
    with pytest.raises(errors.QueryError, match="brackets"):
        frame[frame.age > 65 & frame.readmitted]
    with pytest.raises(errors.QueryError, match="none is named"):
        frame.groupby([])


def test_the_mock_looks_like_the_table_and_follows_the_expression(session):
    frame = session["patients"]
    assert list(frame.mock.columns) == frame.columns
    assert set(frame.mock.ward) <= {"er", "icu", "ward", "none"}
    old = frame[frame.age > 65].assign(decades=lambda f: f.age // 10)
    assert (old.mock.age > 65).all()
    assert old.decades.mock.equals((old.mock.age // 10).rename("decades"))
    question = old.groupby("sex")["decades"].mean()
    assert question.mock().equals(old.mock.groupby("sex").decades.mean().rename("decades"))


def test_assign_fillna_dropna_and_friends_reach_the_owner(session, patients):
    kept = patients.groupby("patient_id").head(3)
    frame = session["patients"]
    filled = frame.fillna({"los_days": 0.0}).los_days.count().release(epsilon=0.5)
    assert abs(filled.value - len(kept)) < 100  # sixteen times the noise's scale
    present = frame.dropna("los_days").count().release(epsilon=0.4)
    assert abs(present.value - kept.los_days.notna().sum()) < 120


def test_rows_are_public_only_where_the_owner_said_so(owner, session, patients, terms):
    with pytest.raises(errors.PrivateValueError):
        len(session["patients"])
    rows = {**terms, "privacy_unit": "row", "max_contributions": 1}
    assert "protect rows, others people" in repr(owner.publish(patients.head(10), name="tiny", rows_public=True, **rows))
    owner.revoke("alice")
    owner.invite("alice", budgets={"clinic": 1.0}, path="again.syft")
    with lab.connect("again.syft") as again:
        assert len(again["tiny"]) == 10
        with pytest.raises(errors.PrivateValueError):
            len(again["tiny"][again["tiny"].age > 3])


def test_a_guest_sees_the_mock_and_nothing_else(owner):
    owner.invite("gus", role="guest")
    with lab.connect("gus.syft", alias="as-gus") as guest:
        assert guest["patients"].mock.shape[0] == 100
        for ask in (guest["patients"].count().price, guest["patients"].count().release):
            with pytest.raises(errors.RefusedError, match="guest"):
                ask(epsilon=0.1)


def test_datasets_that_were_not_opened_do_not_exist_for_an_analyst(owner, session, patients, terms):
    owner.publish(patients, name="secret", **terms)
    assert session.datasets == ["patients"]
    with pytest.raises(errors.UsageError, match="open are: patients"):
        session["secret"]


def test_receipts_are_files_that_verify_and_changed_ones_do_not(session, home):
    result = session["patients"].count().release(epsilon=0.1)
    path = result.receipt.save(home / "r.json")
    assert Receipt.load(path) == result.receipt
    content = json.loads(path.read_text())
    for change in (
        {"entry": content["entry"].replace('"analyst":"alice"', '"analyst":"mallo"')},
        {"index": 0},
        {"path": content["path"][::-1][1:]},
        {"head": {**content["head"], "size": content["head"]["size"] + 1}},
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(errors.VerificationError):
            Receipt.load(path).verify(session._trust.keys)


def test_a_receipt_signed_by_somebody_else_is_refused_by_who_knows_the_owner(session):
    from syft_lab.identity import Keys

    receipt = session["patients"].count().release(epsilon=0.1).receipt
    with pytest.raises(errors.VerificationError, match="isn't signed"):
        receipt.verify(Keys.generate().public)


def test_everything_is_there_again_after_stopping_and_starting(owner, session, home):
    value = session["patients"].count().release(epsilon=0.2).value
    address = owner.address
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again.address == address
        assert session["patients"].count().release(epsilon=0.2).value == value
        assert session.budget().spent == {"clinic": 0.2}
        assert again.policy.rules
        assert again.audit.verify()
    finally:
        again.stop()


def test_one_process_a_state_folder(owner):
    with pytest.raises(errors.StateError, match="runs already"):
        lab.Owner.start("hospital-a")
    with lab.connect("alice.syft") as session:
        assert session.ping() > 0


def test_what_the_owner_keeps_is_for_the_owner_only(owner, home):
    for path in (home / "state").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and path.name != "lock" and "-wal" not in path.name and "-shm" not in path.name:
            assert mode == 0o600, path.name
    assert stat.S_IMODE((home / "alice.syft").stat().st_mode) == 0o600


def test_a_table_in_memory_only_is_gone_after_a_restart(owner, session, patients, terms):
    owner.publish(patients, name="fleeting", persist=False, **terms)
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again.datasets == ["patients"]
        assert "kept in memory only" in repr(again.console.card())
    finally:
        again.stop()


def test_owners_and_sessions_show_themselves_without_a_private_value(owner, session):
    frame = session["patients"]
    shown = [owner, session, frame, frame.age, frame.groupby("ward"), frame.count(), frame.count().price(0.1), session.budget(),
             frame.count().release(0.1), owner.budgets, owner.audit, owner.policy, frame.age > 3]  # fmt: skip
    assert all(repr(s) for s in shown)
    html = "".join(s._repr_html_() for s in shown if hasattr(s, "_repr_html_"))
    assert html.count("<div") == html.count("</div>")
    assert "note 17" not in html + "".join(map(repr, shown))


def test_tab_completion_knows_columns_and_datasets(session):
    assert session._ipython_key_completions_() == ["patients"]
    frame = session["patients"]
    assert "age" in dir(frame)
    assert "age" in frame._ipython_key_completions_()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda o: o.invite("Alice!"), "lower-case"),
        (lambda o: o.invite("bob", role="root"), "role must be"),
        (lambda o: o.invite("bob", datasets=["nope"]), "published are: patients"),
        (lambda o: o.invite("bob", budgets={"nope": 1}), "no population"),
        (lambda o: o.invite("bob", budgets={"clinic": -1}), "epsilon"),
        (lambda o: o.invite("bob", expires="soon"), "7d"),
        (lambda o: o.revoke("bob"), "with access: alice"),
        (lambda o: o.withdraw("nope"), "no dataset"),
        (lambda o: o.policy.allow("sql", dataset="patients", epsilon_per_query=1), "are about 'dp'"),
        (lambda o: o.policy.allow("dp", dataset="nope", epsilon_per_query=1), "publish it first"),
        (lambda o: o.policy.allow("dp", dataset="patients", epsilon_per_query=math.nan), "epsilon"),
        (lambda o: o.policy.remove(99), "rules: 1"),
        (lambda o: o.top_up("nope", 1), "no population"),
        (lambda o: o.top_up("clinic", 1, analyst="bob"), "no enrolled analyst"),
        (lambda o: o.confirm_restore(), "nothing to confirm"),
        (lambda o: o.rotate_keys(activate=True), "announce"),
        (lambda o: o.publish(pd.DataFrame({"x": [1]}), "new", privacy_unit="row"), "give it a budget"),
        (lambda o: o.publish(pd.DataFrame({"x": [1]}), "new", privacy_unit="row", budget=3), "lab.Budget"),
    ],
)
def test_the_owners_mistakes_are_one_clear_line(owner, call, word):
    with pytest.raises(errors.UsageError, match=word):
        call(owner)


def test_a_stopped_owner_says_how_to_start_again(owner, patients):
    owner.stop()
    owner.stop()
    with pytest.raises(errors.StateError, match="%owner start hospital-a"):
        owner.withdraw("patients")
    assert "stopped" in repr(owner)


def test_a_policy_can_be_taken_back(owner, session):
    owner.policy.remove(1)
    assert "no rules" in repr(owner.policy)
    with pytest.raises(errors.RefusedError):
        session["patients"].count().release(epsilon=0.1)


def test_an_invitation_never_overwrites_another_file(owner, home):
    (home / "data.csv").write_text("precious")
    with pytest.raises(errors.UsageError, match="no invitation"):
        owner.invite("bob", path="data.csv")
    assert (home / "data.csv").read_text() == "precious"


def test_many_questions_at_once_wait_their_turn(session):
    frame = session["patients"]
    results = [frame[frame.age > i].count().release(epsilon=0.01, block=False) for i in range(60)]
    assert len([r.value for r in results]) == 60
    assert session.budget().spent == {"clinic": 0.6}


def test_a_session_whose_owner_is_gone_still_shows_itself(owner, session):
    owner.stop()
    assert "hospital-a" in repr(session)
    assert "syft-warn" in session._repr_html_()


def test_inviting_again_with_the_same_terms_gives_the_same_invitation(owner):
    owner.invite("bob", budgets={"clinic": 0.5})
    before = Path("bob.syft").read_bytes()
    owner.invite("bob", budgets={"clinic": 0.5})
    assert Path("bob.syft").read_bytes() == before
    with lab.connect("bob.syft", alias="as-bob"):
        assert "has enrolled" in repr(owner.invite("bob", budgets={"clinic": 0.5}))
    assert Path("bob.syft").read_bytes() == before
    owner.revoke("bob")
    owner.invite("bob", budgets={"clinic": 0.5})
    assert Path("bob.syft").read_bytes() != before
    before = Path("bob.syft").read_bytes()
    owner.invite("bob", budgets={"clinic": 0.6})
    assert Path("bob.syft").read_bytes() != before


def test_a_stored_table_that_was_changed_is_found_by_the_audit(owner, home):
    (table,) = (p for p in (home / "state" / "owners" / "hospital-a" / "tables").iterdir() if not p.name.startswith("mock-"))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(bytes(data))
    with pytest.raises(errors.VerificationError, match="patients v1 was changed after publishing"):
        owner.audit.verify()
    table.unlink()
    with pytest.raises(errors.VerificationError, match="is missing"):
        owner.audit.verify()


def test_a_stored_table_that_is_gone_is_told_in_words_and_nothing_is_spent(owner, session, home):
    for file in (home / "state" / "owners" / "hospital-a" / "tables").iterdir():
        if not file.name.startswith("mock-"):
            file.unlink()
    with pytest.raises(errors.StateError, match="withdraw and publish it again"):
        session["patients"].count().release(epsilon=0.1)
    assert session.budget().spent == {"clinic": 0.0}


def test_a_full_disk_releases_nothing_and_loses_nothing(owner, session):
    frame = session["patients"]
    value = frame.count().release(epsilon=0.1).value
    ((pages,),) = owner._journal.read("PRAGMA page_count")
    owner._journal._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "database or disk is full"
    refused, released = 0, 0.1
    for i in range(40):
        try:
            frame[frame.age > i].count().release(epsilon=0.01)
            released += 0.01
        except errors.StateError as error:
            assert "nothing was released" in str(error)
            refused += 1
    assert refused
    owner._journal._db.execute("PRAGMA max_page_count = 1000000")
    owner.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again.audit.verify()
        assert frame.count().release(epsilon=0.1).value == value
        spent = session.budget()
        assert "reserved 0," in repr(spent)
        assert released <= spent.spent["clinic"] + 1e-9 <= 0.1 + 40 * 0.01 + 1e-9
    finally:
        again.stop()
