"""The owner's rules: `Policy` is ``owner.policy``, which adds and takes back what `policy.decide` reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from syft_lab import canonical
from syft_lab.budget.accountant import Budget
from syft_lab.errors import UsageError
from syft_lab.identity import check_name
from syft_lab.kernel.catalogue import Catalogue
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.policy import CodeRule, Rule, rule_from_json


class Policy:
    """What runs without a click: ``owner.policy.allow``; the default is refusal."""

    def __init__(self, journal: Journal, catalogue: Catalogue, notify: Callable[[str], None]) -> None:
        self._journal, self._catalogue, self._notify = journal, catalogue, notify

    @property
    def rules(self) -> list[Rule | CodeRule]:
        """The rules in force."""
        return rules(self._journal)

    def allow(
        self,
        kind: str,
        *,
        dataset: str | None = None,
        epsilon_per_query: float | None = None,
        analyst: str | None = None,
        digest: str | None = None,
        times: int = 1,
        review: bool = True,
    ) -> Rule | CodeRule:
        """Let something run without a click.

        ``allow("dp", dataset=…, epsilon_per_query=…, analyst=None)``: DP questions about a dataset, at up to this ε each,
        for one analyst or for everybody invited to it. ``allow("code", analyst=…, digest=…, times=1, review=True)``: the
        code of a request with exactly this digest (code, inputs, data version, outputs, parameters, environment), so
        many times; with ``review=False`` its results leave without you having seen them.
        """
        if kind == "dp":
            terms = self._dp(dataset, epsilon_per_query, analyst)
        elif kind == "code":
            terms = self._code(analyst, digest, times, review)
        else:
            raise UsageError(f"policy.allow knows the kinds 'dp' and 'code', not {ascii(kind)[:40]}")
        for rule in self.rules:
            if rule.to_json() == terms:
                return rule
        number = 1 + sum(1 for e in self._journal.entries() if e.kind == "allowed")
        self._journal.append("allowed", {"rule": number, "terms": terms})
        added = rule_from_json(number, terms)
        self._notify(f"{added}")
        return added

    def _dp(self, dataset: str | None, epsilon: float | None, analyst: str | None) -> dict[str, Any]:
        if dataset is None or epsilon is None:
            raise UsageError('say which questions: owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.2)')
        if dataset not in {d.name for d in self._catalogue.all()}:
            raise UsageError(f"there is no dataset {ascii(dataset)[:80]}; publish it first")
        if analyst is not None:
            check_name(analyst, "the analyst's name")
        return {"kind": "dp", "dataset": dataset, "epsilon_micro": Budget(epsilon).cap.epsilon, "analyst": analyst}

    def _code(self, analyst: str | None, digest: str | None, times: int, review: bool) -> dict[str, Any]:
        if analyst is None or digest is None:
            raise UsageError('say whose code: owner.policy.allow("code", analyst="alice", digest=request.digest, times=5)')
        check_name(analyst, "the analyst's name")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(digest)):
            raise UsageError("digest is that of a request: request.digest, sha256: and 64 hexadecimal digits")
        if type(times) is not int or not 1 <= times <= 10**6:
            raise UsageError("times is how often the code may run: a whole number from 1 on")
        return {"kind": "code", "analyst": analyst, "digest": digest, "times": times, "review": bool(review)}

    def remove(self, rule: int | Rule | CodeRule) -> None:
        """Take a rule back, by its number."""
        number = rule if isinstance(rule, int) else rule.id
        if number not in {r.id for r in self.rules}:
            raise UsageError(
                f"there is no rule {ascii(number)[:20]}; rules: {', '.join(str(r.id) for r in self.rules) or 'none'}"
            )
        self._journal.append("disallowed", {"rule": number})
        self._notify(f"rule {number} was taken back")

    def __repr__(self) -> str:
        return "\n".join(map(str, self.rules)) or "no rules: nothing runs without you. owner.policy.allow(…) adds one"


def rules(journal: Journal) -> list[Rule | CodeRule]:
    """The rules in force, oldest first."""
    return [rule_from_json(id, canonical.loads(rule)) for id, rule in journal.read("SELECT id, rule FROM rules ORDER BY id")]
