"""What runs without a click: rules as data, and one pure decision. The default is refusal."""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True)
class Allow:
    """It runs; ``rule`` is the one that says so."""

    rule: Rule


@dataclass(frozen=True)
class Refuse:
    """It does not run; ``why`` is for the analyst, and says what would let it."""

    why: str


def decide(rules: Iterable[Rule], analyst: str, dataset: str, cost: Cost) -> Allow | Refuse:
    """May ``analyst`` ask a DP question about ``dataset`` at this cost? From the rules and the question alone."""
    for rule in rules:
        meant = rule.kind == "dp" and rule.dataset == dataset and rule.analyst in (None, analyst)
        if meant and cost.epsilon <= rule.epsilon_micro:
            return Allow(rule)
    line = f'owner.policy.allow("dp", dataset="{dataset}", epsilon_per_query={cost.epsilon / MICRO:g})'
    return Refuse(f"no policy of the owner allows this question at {cost}; the owner can allow it with: {line}")
