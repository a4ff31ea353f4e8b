"""The default is refusal, and a refusal names the line that would allow."""

from syft_lab.budget.accountant import Cost
from syft_lab.kernel.policy import Allow, Ask, CodeRule, Refuse, Rule, decide, decide_code, rule_from_json

RULE = Rule(1, "dp", "patients", 200_000)


def test_without_a_rule_nothing_runs_and_the_refusal_names_the_line():
    found = decide([], "alice", "patients", Cost(300_000))
    assert isinstance(found, Refuse)
    assert 'owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.3)' in found.why


def test_a_rule_holds_for_its_dataset_and_up_to_its_epsilon():
    assert decide([RULE], "alice", "patients", Cost(200_000)) == Allow(RULE)
    assert isinstance(decide([RULE], "alice", "patients", Cost(200_001)), Refuse)
    assert isinstance(decide([RULE], "alice", "others", Cost(1)), Refuse)


def test_a_rule_for_one_analyst_is_for_nobody_else():
    rule = Rule(2, "dp", "patients", 500_000, "bob")
    assert decide([RULE, rule], "bob", "patients", Cost(400_000)) == Allow(rule)
    assert isinstance(decide([RULE, rule], "alice", "patients", Cost(400_000)), Refuse)


def test_a_rule_survives_its_own_json():
    assert Rule.from_json(1, RULE.to_json()) == RULE
    assert "ε ≤ 0.2" in str(RULE)


DIGEST = "sha256:" + "a" * 64
CODE = CodeRule(3, "alice", DIGEST, 2, False)


def test_code_waits_for_the_owner_unless_a_rule_names_it_exactly():
    assert decide_code([], "alice", DIGEST, {}) == Ask()
    assert decide_code([RULE, CODE], "alice", DIGEST, {}) == Allow(CODE)
    assert decide_code([CODE], "bob", DIGEST, {}) == Ask()
    assert decide_code([CODE], "alice", "sha256:" + "b" * 64, {}) == Ask()


def test_a_code_rule_is_used_up():
    assert decide_code([CODE], "alice", DIGEST, {3: 1}) == Allow(CODE)
    assert decide_code([CODE], "alice", DIGEST, {3: 2}) == Ask()
    assert decide_code([CODE], "alice", DIGEST, {4: 9}) == Allow(CODE)


def test_rules_of_one_kind_say_nothing_about_the_other():
    assert isinstance(decide([CODE], "alice", "patients", Cost(1)), Refuse)
    assert decide_code([RULE], "alice", DIGEST, {}) == Ask()
    assert rule_from_json(3, CODE.to_json()) == CODE
    assert rule_from_json(1, RULE.to_json()) == RULE
