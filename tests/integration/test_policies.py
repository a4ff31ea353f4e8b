"""Policies at a running owner: ranges, outputs, the same again, TOML, explanations, dry runs; and what they never do."""

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.executor import levels

from .deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]

OVER = "m = float((patients.age > age).mean())"


def test_other_values_in_an_approved_range_run_and_each_counts(owner, session):
    session.file(cell(OVER, params={"age": 40}))
    rule = owner.policy.allow("code", like=owner.requests[0], params={"age": (18, 90)}, times=3, review=False, analyst="alice")
    found = {age: session.file(cell(OVER, params={"age": age})).results["m"].get(60) for age in (30, 60)}
    assert found[30] > found[60]
    assert session.file(cell(OVER, params={"age": 95})).state == "filed"
    assert session.file(cell(OVER, params={"age": 40.5})).state == "filed"
    assert session.file(cell(OVER + " ", params={"age": 30})).state == "filed"
    assert session.file(cell(OVER, params={"age": 30})).results["m"].get(60) == found[30]
    assert session.file(cell(OVER, params={"age": 31})).state == "filed"  # three were three
    assert owner.policy._book.history.uses(rule.id) == 3
    assert owner.audit.verify()


def test_an_approved_range_holds_for_the_next_version_and_counts_it(owner, session, patients, terms):
    session.file(cell(OVER, params={"age": 40}))
    owner.policy.allow("code", like=owner.requests[0], params={"age": (18, 90)}, times=2, review=False)
    assert session.file(cell(OVER, params={"age": 40})).results["m"].get(60) >= 0
    owner.withdraw("patients")
    owner.publish(patients.head(1500), name="patients", **terms)
    assert session.file(cell(OVER, use=(("patients", 2),), params={"age": 40})).results["m"].get(60) >= 0
    assert session.file(cell(OVER, use=(("patients", 2),), params={"age": 41})).state == "filed"


def test_a_rule_is_for_what_is_filed_after_it(owner, session):
    """Whether the runs on the mock of what waited were over when the rule was made must make no difference."""
    waiting = session.file(cell(OVER, params={"age": 40}))
    owner.policy.allow("code", like=owner.requests[0], params={"age": (18, 90)}, times=1)
    until(owner, waiting.number, "checked")
    assert owner.requests.number(waiting.number).state == "filed"
    assert until(owner, session.file(cell(OVER, params={"age": 41})).number, "review").decided == "approved by rule 2"


def test_what_people_approved_runs_again_by_itself(owner, session):
    owner.policy.allow("code", same=True, times=1)
    session.file(cell())
    approved(owner, 1).release()
    again = session.file(cell())
    assert until(owner, 2, "review").decided == "approved by rule 2"
    assert session.file(cell()).state == "filed"
    assert session.file(cell("m = 1")).state == "filed"
    owner.invite("bob")
    with lab.connect("bob.syft", alias="bobs") as bob:
        assert bob.file(cell()).state == "filed"
    assert again.number == 2


@pytest.mark.parametrize(
    ("code", "outputs", "why"),
    [
        ("m = patients.groupby('ward').age.mean()", {}, ""),
        ("m = patients.age.to_numpy()", {"levels": 10_000}, "grows with the number of rows"),
        ("m = patients.age.to_numpy()", {"growth": True, "levels": 10}, "more than 10 levels"),
        ("import numpy as np\nm = np.zeros(5000)", {"max_bytes": 1000, "levels": 10_000}, "larger than 1000"),
        ("m = 1", {"kinds": ("series",)}, "not of the kind series"),
        ("m = 1/0 if len(patients) < 1e6 else 1", {}, "fails on the mock"),
    ],
)
def test_outputs_are_judged_on_mocks_before_anything_runs(owner, session, code, outputs, why):
    session.file(cell(code))
    owner.requests[0].deny("first a rule")
    owner.policy.allow("code", like=owner.requests[0], outputs=lab.Outputs(**outputs), review=False)
    again = session.file(cell(code))
    if why:
        request = until(owner, again.number, "checked")
        assert request.state in ("filed", "seen")
        assert why in repr(owner.policy.explain(request))
    else:
        assert len(again.results["m"].get(60)) >= 3


def test_a_result_with_a_small_cell_waits_for_the_owner(owner, session):
    """On the mock every count is large; on the data one is 2. The rule lets results leave unseen, and this one waits."""
    code = "import numpy as np\nn = len(patients)\nm = np.array([n, 2 if n > 200 else 50])"
    session.file(cell(code))
    owner.requests[0].deny("first a rule")
    owner.policy.allow("code", like=owner.requests[0], outputs=lab.Outputs(), review=False)
    asked = session.file(cell(code))
    request = until(owner, asked.number, "review")
    assert "below 3" in request.private()["held"]
    assert request.preview()[0]["small"] == 1
    session.requests  # noqa: B018
    assert asked.state == "review"
    assert "below" not in str(asked.facts)
    request.withhold("too small")


def test_a_rule_that_was_taken_back_lets_nothing_leave_unseen(owner, session):
    code = "import time\nif len(patients) > 200: time.sleep(1)\nm = 1"
    first = session.file(cell(code))
    owner.requests[0].deny("first a rule")
    rule = owner.policy.allow("code", analyst="alice", digest=first.digest, review=False)
    asked = session.file(cell(code))
    until(owner, asked.number, "running")
    owner.policy.remove(rule)
    assert "taken back" in until(owner, asked.number, "review").private()["held"]


def test_a_refusing_rule_denies_with_its_reason(owner, session):
    owner.policy.refuse("code", analyst="alice", why="closed until the audit is over")
    asked = session.file(cell())
    with pytest.raises(errors.RefusedError, match="closed until the audit"):
        asked.results["m"].get(20)
    assert owner.requests[0].decided == "denied by rule 2"
    owner.policy.refuse("dp", above=0.1)
    rows = session["patients"]
    rows.count().release(epsilon=0.1)
    with pytest.raises(errors.RefusedError, match="does not allow this"):
        rows.count().release(epsilon=0.2)


def test_an_asking_rule_stops_what_another_allows(owner, session):
    first = session.file(cell())
    owner.requests[0].deny("first a rule")
    owner.policy.allow("code", analyst="alice", digest=first.digest, times=9)
    ask = owner.policy.ask("code", role="analyst", hours="00:00-24:00")
    asked = session.file(cell())
    assert asked.state == "filed"
    told = repr(owner.policy.explain(owner.requests.number(2)))
    assert "ask (rule 3)" in told
    owner.policy.remove(ask)
    assert "allow (rule 2)" in repr(owner.policy.explain(owner.requests.number(2)))


def test_policies_travel_as_toml(owner, session):
    session.file(cell(OVER, params={"age": 40}))
    like = owner.requests[0]
    owner.policy.allow("code", like=like, params={"age": (18, 90)}, times=5, per="1d", hours="08:00-18:00", days="mon-fri",
                       zone="Europe/Berlin", expires="30d", review=False, outputs=lab.Outputs(levels=10))  # fmt: skip
    owner.policy.refuse("dp", above=0.5, why="too \u202emuch\u009b2J at \u200bonce")
    owner.policy.ask("code", dataset="patients", days=["sat", "sun"])
    assert not {*"\u202e\u009b\u200b"} & {*owner.policy.toml}  # they would reach a terminal
    before = [r.to_json() for r in owner.policy.rules]
    text = owner.policy.toml
    assert owner.policy.load(text) == owner.policy.rules  # nothing new
    for rule in owner.policy.rules:
        owner.policy.remove(rule)
    assert owner.policy.rules == []
    (owner._folder / "policy.toml").write_text(text)
    owner.policy.load(owner._folder / "policy.toml")
    assert [r.to_json() for r in owner.policy.rules] == before
    assert [r.id for r in owner.policy.rules] == [5, 6, 7, 8]  # numbers are never used twice
    shown = repr(owner.policy.table)
    assert "age from 18 to 90" in shown
    assert "08:00-18:00 on mon, tue, wed, thu, fri (Europe/Berlin)" in shown
    assert len(owner.policy.table.frame()) == 4


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[rule]", "not TOML"),
        ("rules = []", r"\[\[rule\]\]"),
        ("[rule]\nkind = 'dp'", r"\[\[rule\]\]"),
        ("[[rule]]\nkind = 'sql'", "are about 'dp'"),
        ("[[rule]]\nkind = 'code'", "names digest, template or same"),
        ("[[rule]]\nkind = 'dp'\ndataset = 'patients'", "names dataset and epsilon_per_query"),
        ("[[rule]]\nkind = 'dp'\ndataset = 'patients'\nepsilon = 1", "no setting 'epsilon'"),
        ("[[rule]]\nkind = 'code'\nsame = true\nhours = '8-18'", "08:00-18:00"),
        ("[[rule]]\nkind = 'code'\nsame = true\ndays = 'mo-fr'", "mon-fri"),
        ("[[rule]]\nkind = 'code'\nsame = true\nhours = '08:00-18:00'\nzone = 'Mars/Olympus'", "no time zone"),
        ("[[rule]]\nkind = 'code'\nsame = true\nper = '1d'", "goes with times"),
        ("[[rule]]\nkind = 'code'\nsame = true\ntimes = 1\nper = 'daily'", "a number and m, h, d or w"),
        ("[[rule]]\nkind = 'code'\nsame = true\noutputs = {size = 1}", "has the settings"),
        ("[[rule]]\nkind = 'code'\ndigest = 'abc'", "64 hexadecimal"),
        ("[[rule]]\nkind = 'code'\nsame = true\nverdict = 'maybe'", "allow, ask, refuse"),
        ("[[rule]]\nkind = 'code'\nsame = true\nrole = 'king'", "no role king"),
        ("[[rule]]\nkind = 'code'\nsame = true\nparams = 3", "is a table"),
        ("[[rule]]\nkind = 'code'\nsame = true\nparams = {age = {low = 'x', high = 3}}", "pair of bounds"),
        ("[[rule]]\nkind = 'code'\nsame = true\nparams = {age = {low = 1, high = inf}}", "pair of bounds"),
        ("[[rule]]\nkind = 'code'\nsame = true\nparams = {age = {values = 3}}", "pair of bounds"),
        ("[[rule]]\nkind = 'code'\nsame = true\nparams = {age = [[1]]}", "pair of bounds"),
        ("no-such-file.toml", "can't read"),
    ],
)
def test_what_is_no_policy_is_refused_whole(owner, text, word):
    good = "[[rule]]\nkind = 'code'\nsame = true\n"
    with pytest.raises(errors.UsageError, match=word):
        owner.policy.load(text if text.startswith(("no-such", "rules", "[rule]")) else good + text)
    assert len(owner.policy.rules) == 1


def test_a_dry_run_says_what_a_policy_would_have_decided(owner, session):
    for age in (30, 40, 50, 95):
        session.file(cell(OVER, params={"age": age}))
    owner.policy.allow("code", like=owner.requests.number(1), params={"age": (18, 90)}, times=2)
    assert [r[5] for r in owner.policy.dry_run().rows] == ["allow (rule 2)", "allow (rule 2)", *["ask (no rule allows it)"] * 2]
    text = owner.policy.toml.replace("times = 2", "times = 9")
    found = owner.policy.dry_run(text)
    assert [r[5] for r in found.rows] == [*["allow (rule 2)"] * 3, "ask (no rule allows it)"]
    assert len(owner.policy.dry_run(text, last=2)) == 2
    assert {r.state for r in owner.requests} <= {"filed", "seen"}  # nothing was decided
    refuse = "[[rule]]\nkind = 'code'\nverdict = 'refuse'\nanalyst = 'alice'"
    assert {r[5] for r in owner.policy.dry_run(refuse).rows} == {"refuse (rule 1)"}
    assert len(owner.policy.rules) == 2


def test_bad_rules_are_one_clear_line(owner, session):
    session.file(cell(OVER, params={"age": 40}))
    like = owner.requests[0]
    for change, word in [
        ({}, "in one way"),
        ({"digest": like.digest, "same": True}, "in one way"),
        ({"same": True, "params": {"age": (1, 2)}}, "like=request"),
        ({"like": like, "params": {"height": (1, 2)}}, "no parameter 'height'"),
        ({"like": like, "params": {"age": (90, 18)}}, "pair of bounds"),
        ({"like": like, "params": {"age": 40}}, "pair of bounds"),
        ({"same": True, "expires": "0d"}, "future"),
        ({"same": True, "outputs": 3}, "lab.Outputs"),
        ({"same": True, "dataset": "nope"}, "publish it first"),
    ]:
        with pytest.raises(errors.UsageError, match=word):
            owner.policy.allow("code", **change)
