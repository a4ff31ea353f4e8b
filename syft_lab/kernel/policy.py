"""What runs without a click: rules as data, and pure decisions. By default questions are refused, and code waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from syft_lab.budget.accountant import MICRO, Cost, plain


@dataclass(frozen=True, repr=False)
class Rule:
    """``dp`` questions about ``dataset`` that cost at most ``epsilon_micro`` each; ``analyst`` None means everybody."""

    id: int
    kind: str
    dataset: str
    epsilon_micro: int
    analyst: str | None = None

    @classmethod
    def from_json(cls, id: int, terms: dict[str, Any]) -> Rule:
        """The rule in a journal entry."""
        return cls(id, terms["kind"], terms["dataset"], terms["epsilon_micro"], terms["analyst"])

    def to_json(self) -> dict[str, Any]:
        """The terms, as the journal keeps them."""
        return {"kind": self.kind, "dataset": self.dataset, "epsilon_micro": self.epsilon_micro, "analyst": self.analyst}

    def __repr__(self) -> str:
        who = self.analyst or "everybody"
        return f"rule {self.id}: {who} may ask DP questions about {self.dataset} at ε ≤ {plain(self.epsilon_micro)} each"


@dataclass(frozen=True, repr=False)
class CodeRule:
    """The code with ``digest`` may run ``times`` times for ``analyst``; ``review``: whether the owner sees each result."""

    id: int
    analyst: str
    digest: str
    times: int
    review: bool

    kind = "code"

    def to_json(self) -> dict[str, Any]:
        """The terms, as the journal keeps them."""
        names = ("kind", "analyst", "digest", "times", "review")
        return {n: getattr(self, n) for n in names}

    def __repr__(self) -> str:
        then = "its result awaits your release" if self.review else "its result leaves without you"
        return f"rule {self.id}: {self.analyst} may run {self.digest[:19]}… {self.times} times; {then}"


def rule_from_json(id: int, terms: dict[str, Any]) -> Rule | CodeRule:
    """The rule in a journal entry."""
    if terms["kind"] == "code":
        return CodeRule(id, terms["analyst"], terms["digest"], terms["times"], terms["review"])
    return Rule.from_json(id, terms)


@dataclass(frozen=True)
class Allow:
    """It runs; ``rule`` is the one that says so."""

    rule: Rule | CodeRule


@dataclass(frozen=True)
class Ask:
    """The owner decides."""


@dataclass(frozen=True)
class Refuse:
    """It does not run; ``why`` is for the analyst, and says what would let it."""

    why: str


def decide(rules: Iterable[Rule | CodeRule], analyst: str, dataset: str, cost: Cost) -> Allow | Refuse:
    """May ``analyst`` ask a DP question about ``dataset`` at this cost? From the rules and the question alone."""
    for rule in rules:
        if not isinstance(rule, Rule) or rule.dataset != dataset or rule.analyst not in (None, analyst):
            continue
        if cost.epsilon <= rule.epsilon_micro:
            return Allow(rule)
    line = f'owner.policy.allow("dp", dataset="{dataset}", epsilon_per_query={cost.epsilon / MICRO:g})'
    return Refuse(f"no policy of the owner allows this question at {cost}; the owner can allow it with: {line}")


def decide_code(rules: Iterable[Rule | CodeRule], analyst: str, digest: str, used: Mapping[int, int]) -> Allow | Ask:
    """May ``analyst`` run exactly the code with ``digest``? ``used``: how often each rule has let code run."""
    for rule in rules:
        if (
            isinstance(rule, CodeRule)
            and (rule.analyst, rule.digest) == (analyst, digest)
            and used.get(rule.id, 0) < rule.times
        ):
            return Allow(rule)
    return Ask()
