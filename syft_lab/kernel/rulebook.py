"""The owner's rules: `Policy` is ``owner.policy``, which adds and takes back what `policy.decide` reads."""

from __future__ import annotations

from collections.abc import Callable

from syft_lab import canonical
from syft_lab.budget.accountant import Budget
from syft_lab.errors import UsageError
from syft_lab.identity import check_name
from syft_lab.kernel.catalogue import Catalogue
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.policy import Rule


class Policy:
    """What runs without a click: ``owner.policy.allow``; the default is refusal."""

    def __init__(self, journal: Journal, catalogue: Catalogue, notify: Callable[[str], None]) -> None:
        self._journal, self._catalogue, self._notify = journal, catalogue, notify

    @property
    def rules(self) -> list[Rule]:
        """The rules in force."""
        rows = self._journal.read("SELECT id, rule FROM rules ORDER BY id")
        return [Rule.from_json(id, canonical.loads(rule)) for id, rule in rows]

    def allow(self, kind: str, *, dataset: str, epsilon_per_query: float, analyst: str | None = None) -> Rule:
        """Let DP questions about ``dataset`` run at up to this ε each, for one analyst or for everybody invited to it."""
        if kind != "dp":
            raise UsageError(f"policy.allow knows the kind 'dp', not {ascii(kind)[:40]}")
        if dataset not in {d.name for d in self._catalogue.all()}:
            raise UsageError(f"there is no dataset {ascii(dataset)[:80]}; publish it first")
        if analyst is not None:
            check_name(analyst, "the analyst's name")
        terms = {"kind": kind, "dataset": dataset, "epsilon_micro": Budget(epsilon_per_query).cap.epsilon, "analyst": analyst}
        for rule in self.rules:
            if rule.to_json() == terms:
                return rule
        number = 1 + sum(1 for e in self._journal.entries() if e.kind == "allowed")
        self._journal.append("allowed", {"rule": number, "terms": terms})
        added = Rule.from_json(number, terms)
        self._notify(f"{added}")
        return added

    def remove(self, rule: int | Rule) -> None:
        """Take a rule back, by its number."""
        number = rule.id if isinstance(rule, Rule) else rule
        if number not in {r.id for r in self.rules}:
            raise UsageError(
                f"there is no rule {ascii(number)[:20]}; rules: {', '.join(str(r.id) for r in self.rules) or 'none'}"
            )
        self._journal.append("disallowed", {"rule": number})
        self._notify(f"rule {number} was taken back")

    def __repr__(self) -> str:
        return "\n".join(map(str, self.rules)) or "no rules: nothing runs without you. owner.policy.allow(…) adds one"
