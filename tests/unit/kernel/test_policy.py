"""The default is refusal, and a refusal names the line that would allow."""

from syft_lab.budget.accountant import Cost
from syft_lab.kernel.policy import Allow, Refuse, Rule, decide

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
