"""Decisions are pure: the strictest rule that fits, the default where none does, and `judge` says why not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.budget.accountant import Cost
from syft_lab.errors import UsageError
from syft_lab.kernel.history import History
from syft_lab.kernel.outputs import Observed, Outputs
from syft_lab.kernel.policy import Allow, Ask, Case, Refuse, Rule, Window, decide, judge

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)  # a Friday
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DP = Rule(1, "dp", dataset="patients", epsilon_micro=200_000)
CODE = Rule(3, "code", analyst="alice", digest=A, times=2, review=False)
LIKE = Rule(4, "code", template=B, params={"age": {"low": 18, "high": 90}, "ward": {"values": ["er", "icu"]}}, times=5)
NUMBER = {"name": "m", "kind": "number", "shape": [], "bytes": 8, "dtype": "<f8"}


def asks(epsilon, analyst="alice", dataset="patients", **more):
    return Case("dp", analyst, "analyst", (dataset,), NOW, Cost(epsilon), **more)


def code(analyst="alice", digest=A, **more):
    given = {"template": B, "params": {"age": 40, "ward": "er"}, "time": NOW, "role": "analyst", "datasets": ("patients",)}
    return Case("code", analyst, digest=digest, **{**given, **more})


def past(**uses):
    history = History()
    for rule, times in uses.items():
        for time in times:
            history.use(int(rule[1:]), time)
    return history


NONE = History()


def test_without_a_rule_questions_are_refused_with_the_line_and_code_waits():
    found = decide([], asks(300_000), NONE)
    assert isinstance(found, Refuse)
    assert 'owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.3)' in found.why
    assert decide([], code(), NONE) == Ask()


def test_a_rule_about_questions_holds_for_its_dataset_and_up_to_its_epsilon():
    assert decide([DP], asks(200_000), NONE) == Allow(DP)
    assert isinstance(decide([DP], asks(200_001), NONE), Refuse)
    assert isinstance(decide([DP], asks(1, dataset="others"), NONE), Refuse)


def test_a_rule_for_one_analyst_or_one_role_is_for_nobody_else():
    rule = Rule(2, "dp", dataset="patients", epsilon_micro=500_000, analyst="bob")
    assert decide([DP, rule], asks(400_000, "bob"), NONE) == Allow(rule)
    assert isinstance(decide([DP, rule], asks(400_000), NONE), Refuse)
    role = replace(rule, analyst=None, role="senior")
    assert isinstance(decide([role], asks(1), NONE), Refuse)
    assert decide([role], replace(asks(1), role="senior"), NONE) == Allow(role)


def test_a_digest_runs_as_often_as_the_rule_says():
    assert decide([CODE], code(), past(r3=[NOW])) == Allow(CODE)
    assert decide([CODE], code(), past(r3=[NOW, NOW])) == Ask()
    assert decide([CODE], code(), past(r9=[NOW] * 9)) == Allow(CODE)
    assert decide([CODE], code("bob"), NONE) == Ask()
    assert decide([CODE], code(digest=B), NONE) == Ask()


@pytest.mark.parametrize(
    ("params", "runs"),
    [
        ({"age": 18, "ward": "er"}, True),
        ({"age": 90, "ward": "icu"}, True),
        ({"age": 17, "ward": "er"}, False),
        ({"age": 91, "ward": "er"}, False),
        ({"age": 40.5, "ward": "er"}, False),  # bounds are whole
        ({"age": True, "ward": "er"}, False),
        ({"age": "40", "ward": "er"}, False),
        ({"age": 40, "ward": "ward"}, False),
        ({"age": 40, "ward": "er", "more": 1}, False),  # no approved values
    ],
)
def test_values_of_parameters_must_lie_in_what_was_approved(params, runs):
    assert isinstance(decide([LIKE], code(params=params), NONE), Allow) == runs


def test_a_range_of_floats_takes_whole_numbers_and_no_nan():
    rule = replace(LIKE, params={"x": {"low": 0.0, "high": 1.0}})
    for value, runs in ((0, True), (0.5, True), (1, True), (1.1, False), (float("nan"), False), (True, False)):
        assert isinstance(decide([rule], code(params={"x": value}), NONE), Allow) == runs, value


def test_the_strictest_rule_wins_whatever_the_order():
    ask = Rule(5, "code", "ask", analyst="alice")
    refuse = Rule(6, "code", "refuse", dataset="patients", why="closed for the audit")
    for rules in ([CODE, ask, refuse], [refuse, ask, CODE]):
        assert decide(rules, code(), NONE) == Refuse("closed for the audit", refuse)
        assert decide([r for r in rules if r != refuse], code(), NONE) == Ask(ask)
    above = Rule(7, "dp", "refuse", epsilon_micro=100_000)
    assert decide([DP, above], asks(100_000), NONE) == Allow(DP)
    assert isinstance(decide([DP, above], asks(100_001), NONE), Refuse)


def test_a_rule_to_allow_covers_every_dataset_and_one_to_refuse_any():
    two = code(datasets=("patients", "labs"))
    assert decide([replace(CODE, dataset="patients")], two, NONE) == Ask()
    assert isinstance(decide([CODE, Rule(6, "code", "refuse", dataset="labs")], two, NONE), Refuse)


def test_quotas_count_within_their_time():
    rule = replace(CODE, times=2, per=3600.0)
    old, new = NOW - timedelta(hours=2), NOW - timedelta(minutes=10)
    assert isinstance(decide([rule], code(), past(r3=[old, old, new])), Allow)
    assert decide([rule], code(), past(r3=[old, new, new])) == Ask()
    assert "used up: 2 times in 1 h" in judge(rule, code(), past(r3=[old, new, new]))


def test_windows_and_expiry():
    day = replace(DP, window=Window(8 * 60, 18 * 60, ("mon", "fri")))
    assert isinstance(decide([day], asks(1), NONE), Allow)
    assert isinstance(decide([day], replace(asks(1), time=NOW.replace(hour=18)), NONE), Refuse)
    assert isinstance(decide([day], replace(asks(1), time=NOW + timedelta(days=1)), NONE), Refuse)
    night = Window(22 * 60, 6 * 60, ("fri",))
    assert [night.holds(NOW.replace(hour=h)) for h in (5, 21, 22, 23)] == [False, False, True, True]
    assert night.holds(NOW.replace(hour=5) + timedelta(days=1))
    berlin = Window(13 * 60, 14 * 60, zone="Europe/Berlin")
    assert berlin.holds(NOW)
    ends = replace(DP, expires=NOW.isoformat())
    assert isinstance(decide([ends], asks(1), NONE), Refuse)
    assert isinstance(decide([ends], replace(asks(1), time=NOW - timedelta(seconds=1)), NONE), Allow)


def test_code_on_chosen_rows_runs_by_its_own_digest_only():
    chosen = code(filtered=True)
    assert decide([LIKE], chosen, NONE) == Ask()
    assert "its own digest only" in judge(LIKE, chosen, NONE)
    assert decide([LIKE, CODE], chosen, NONE) == Allow(CODE)


def test_the_same_code_again_needs_people_who_approved_it_for_this_analyst_before():
    same = Rule(8, "code", same=True)
    history = History()
    history._agreed[A, "alice"] = NOW.isoformat(timespec="microseconds")
    assert decide([same], code(), history) == Allow(same)
    assert decide([same], code("bob"), history) == Ask()
    assert decide([same], code(digest=B), history) == Ask()
    assert decide([same], code(time=NOW - timedelta(hours=1)), history) == Ask()


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (None, "not over"),
        (Observed([NUMBER], (), "it crashed"), "fails on the mock"),
        (Observed([NUMBER], None), "could not be told"),
        (Observed([NUMBER], ("m",)), "m grows"),
        (Observed([{**NUMBER, "bytes": 9_999}], ()), "larger than 1000"),
        (Observed([{**NUMBER, "kind": "table"}], ()), "not of the kind number"),
        (Observed([{**NUMBER, "dtype": "<i8"}], ()), "of type <i8"),
        (Observed([{**NUMBER, "shape": [11]}], ()), "more than 10 levels"),
        (Observed([NUMBER], ()), ""),
    ],
)
def test_outputs_are_judged_by_what_ran_on_the_mock(observed, words):
    rule = replace(CODE, outputs=Outputs(1000, ("number",), ("<f8",), 10))
    found = decide([rule], code(observed=observed), NONE)
    assert isinstance(found, Ask if words else Allow)
    assert words in judge(rule, code(observed=observed), NONE)


def test_bad_bounds_on_outputs_are_refused():
    for bad in ({"max_bytes": 0}, {"levels": 1.5}, {"kinds": "number"}, {"kinds": ("pickle",)}, {"min_cell": True}):
        with pytest.raises(UsageError):
            Outputs(**bad)
    with pytest.raises(UsageError):
        Outputs.from_json({"size": 1})


names = st.sampled_from(["alice", "bob"])
RULES = st.builds(
    Rule,
    id=st.integers(1, 9),
    kind=st.sampled_from(["dp", "code"]),
    verdict=st.sampled_from(["allow", "ask", "refuse"]),
    analyst=st.none() | names,
    dataset=st.none() | st.sampled_from(["patients", "labs"]),
    epsilon_micro=st.none() | st.integers(1, 5),
    digest=st.none() | st.sampled_from([A, B]),
    times=st.none() | st.integers(1, 3),
    window=st.none() | st.builds(Window, st.integers(0, 1439), st.integers(1, 1440)),
    review=st.booleans(),
    outputs=st.none() | st.builds(Outputs, st.integers(1, 9)),
)
CASES = st.builds(
    Case, st.sampled_from(["dp", "code"]), names, st.just("analyst"), st.sampled_from([("patients",), ("patients", "labs")]),
    st.datetimes(timezones=st.just(UTC)), st.builds(Cost, st.integers(1, 5)), st.sampled_from([A, B]),
)  # fmt: skip


@given(RULES)
def test_a_rule_survives_its_own_json(rule):
    assert Rule.from_json(rule.id, rule.to_json()) == rule
    assert str(rule.id) in repr(rule)


@given(st.lists(RULES, max_size=6), CASES)
def test_a_stricter_rule_never_lets_more_run(rules, case):
    strict = {Allow: 0, Ask: 1, Refuse: 2}
    before = decide(rules, case, NONE)
    for verdict in ("ask", "refuse"):
        for kind in ("dp", "code"):
            after = decide([*rules, Rule(10, kind, verdict)], case, NONE)
            assert strict[type(after)] >= strict[type(before)]


@given(st.lists(RULES, max_size=6), CASES)
def test_what_is_allowed_is_allowed_by_a_rule_that_fits(rules, case):
    found = decide(rules, case, NONE)
    if isinstance(found, Allow):
        assert found.rule in rules
        assert found.rule.verdict == "allow"
        assert judge(found.rule, case, NONE) == ""
        assert all(judge(r, case, NONE) or r.kind != case.kind or r.verdict == "allow" for r in rules)


def shares(partners, dataset="ages", kind="share"):
    return Case(kind, "alice", "analyst", (dataset,) if dataset else (), NOW, partners=partners)


def test_a_rule_about_sharing_allows_these_partners_and_no_others_and_refuses_with_any_of_them():
    allow = Rule(1, "share", dataset="ages", partners=("b", "c"))
    assert decide([allow], shares(("b", "c")), NONE) == Allow(allow)
    assert decide([allow], shares(("b",)), NONE) == Allow(allow)
    assert decide([allow], shares(("b", "d")), NONE) == Ask()
    assert decide([allow], shares(("b", "c"), "income"), NONE) == Ask()
    assert "sharing with b and c" in judge(allow, shares(("d",)), NONE)
    anyone = Rule(2, "share", dataset="ages")
    refuse = Rule(3, "share", "refuse", dataset="ages", partners=("c",), why="not with c")
    assert decide([anyone], shares(("x", "y")), NONE) == Allow(anyone)
    assert decide([anyone, refuse], shares(("b", "d")), NONE) == Allow(anyone)
    assert decide([anyone, refuse], shares(("b", "c")), NONE) == Refuse("not with c", refuse)


def test_rules_about_partners_are_of_their_kind_alone_and_read_as_what_they_are():
    rules = [
        Rule(1, "share", dataset="ages"),
        Rule(2, "move", dataset="ages", partners=("b",)),
        Rule(3, "receive", partners=("a",)),
    ]
    assert decide(rules, shares(("b",), kind="move"), NONE) == Allow(rules[1])
    assert decide(rules, shares(("a",), None, "receive"), NONE) == Allow(rules[2])
    assert decide(rules, shares(("b",), None, "receive"), NONE) == Ask()
    assert isinstance(decide(rules, asks(1, dataset="ages"), NONE), Refuse)
    assert [str(r) for r in rules] == [
        "rule 1: everybody may share ages with partners", "rule 2: everybody may move ages to b",
        "rule 3: everybody may receive data from a",
    ]  # fmt: skip
    assert all(Rule.from_json(r.id, r.to_json()) == r for r in rules)
