"""Budgets in the journal: reserve before any data is touched, settle after, and never give back.

The order is price → reserve → compute → store the answer → commit → release. What was reserved and not released, by
a failure or a crash, counts as spent. Theorem: basic composition as a privacy filter (see `budget.accountant`), held
at once for the analyst's account and for the population's cap over all analysts, who may collude.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from syft_lab.budget.accountant import Cost
from syft_lab.errors import BudgetError, BusyError, SuspendedError, UsageError
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.machine import check_files
from syft_lab.kernel.views import ADD_REMOVE, weight


@dataclass(frozen=True)
class Balance:
    """An account, or a population's cap, in integer units."""

    cap: Cost
    spent: Cost
    reserved: Cost
    relation: str = ""

    def charge(self, question: Question) -> Cost:
        """What a question takes from it."""
        by = weight(self.relation, question.relation)
        return Cost(by * question.cost.epsilon, by * question.cost.delta)

    def seen_by(self, relation: str) -> Balance:
        """As it would be once it has debits of this kind."""
        by = weight(relation, self.relation) if self.relation == ADD_REMOVE else 1
        spent, reserved = (Cost(by * c.epsilon, by * c.delta) for c in (self.spent, self.reserved))
        return Balance(self.cap, spent, reserved, self.relation)

    @property
    def left(self) -> Cost:
        """What may still be asked for."""
        return self.cap - self.spent - self.reserved

    def to_json(self) -> dict[str, Any]:
        """The integers, for receipts and gauges."""
        return {"cap": self.cap.to_json(), "spent": self.spent.to_json(), "reserved": self.reserved.to_json()}


@dataclass(frozen=True)
class Question:
    """What is asked, by whom, at what cost; ``digest`` is that of the canonical query."""

    request: str
    analyst: str
    dataset: str
    version: int
    population: str
    digest: str
    cost: Cost
    relation: str = ADD_REMOVE

    def to_json(self) -> dict[str, Any]:
        """The terms, as the journal keeps them."""
        names = ("request", "analyst", "dataset", "version", "population", "digest")
        about = {} if self.relation == ADD_REMOVE else {"relation": self.relation}
        return {**{n: getattr(self, n) for n in names}, **self.cost.to_json(), **about}


class Ledger:
    """Reservations and balances over a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def reserve(self, question: Question, details: dict[str, Any]) -> None:
        """Set the cost aside, durably; raises BudgetError, SuspendedError, UsageError or BusyError and changes nothing.

        What fails afterwards counts as spent, for failing may tell of values. So what can be known before, is looked at before.
        """
        check_files()

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            self.check_not_suspended()
            if db.execute("SELECT 1 FROM queries WHERE request = ?", (question.request,)).fetchone():
                raise UsageError("this request id was used for another question; ask with a new one")
            own, together = self.account(question.analyst, question.population), self.population(question.population)
            self._check(question, own, f"of yours in {question.population}")
            self._check(question, together, f"for all analysts of {question.population}")
            return {**question.to_json(), **details}

        self._journal.append("reserved", body)

    def check_not_suspended(self) -> None:
        """Raises SuspendedError while an older journal was noticed and the owner did not confirm it."""
        if self._journal.read("SELECT 1 FROM settings WHERE name = 'suspended'"):
            raise SuspendedError(SUSPENDED)

    @staticmethod
    def _check(question: Question, balance: Balance, where: str) -> None:
        cost, held = balance.charge(question), balance.seen_by(question.relation)
        if not cost.fits(held.left):
            twice = ""
            if cost != question.cost:
                twice = (
                    f" (counted as {cost}: tensors of these people were released too, which protect against replacing a person)"
                )
            elif held != balance:
                twice = " (what was spent on tables counts twice beside tensors, which protect against replacing a person)"
            left = Cost(max(held.left.epsilon, 0), max(held.left.delta, 0))
            raise BudgetError(f"this costs {question.cost}{twice}, and {left} is left {where}; "
                              "ask at a lower epsilon, or ask the owner for a top-up")  # fmt: skip

    def release(self, question: Question, details: dict[str, Any]) -> Entry:
        """Record the answer and settle its cost, in one entry: the one that the receipt is about."""

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            before = self.account(question.analyst, question.population)
            cost = before.charge(question)
            after = Balance(before.cap, before.spent + cost, before.reserved - cost, before.relation)
            return {**question.to_json(), **details, "before": before.to_json(), "after": after.to_json()}

        return self._journal.append("released", body)

    def fail(self, request: str, kind: str = "failed") -> None:
        """Record that a reservation came to nothing; its cost counts as spent."""
        self._journal.append(kind, {"request": request})

    def settle_interrupted(self) -> int:
        """After a crash: count every open reservation as spent. Gives how many there were."""
        rows = self._journal.read("SELECT request FROM queries WHERE state = 'reserved'")
        for (request,) in rows:
            self.fail(request, "interrupted")
        return len(rows)

    def earlier(self, question: Question) -> int | None:
        """The journal's entry in which this analyst got the answer to the same question at the same cost."""
        rows = self._journal.read(
            "SELECT entry FROM queries WHERE analyst = ? AND dataset = ? AND version = ? AND digest = ?"
            " AND epsilon = ? AND delta = ? AND state = 'released' ORDER BY entry LIMIT 1",
            question.analyst, question.dataset, question.version, question.digest,
            question.cost.epsilon, question.cost.delta,
        )  # fmt: skip
        return int(rows[0][0]) if rows else None

    def known(self, question: Question) -> str | None:
        """The state of the request with this id if it is the same question; raises UsageError if it is another."""
        rows = self._journal.read(
            "SELECT state, analyst, dataset, version, digest, epsilon, delta FROM queries WHERE request = ?",
            question.request,
        )
        if not rows:
            return None
        state, *terms = rows[0]
        cost = question.cost
        if terms != [question.analyst, question.dataset, question.version, question.digest, cost.epsilon, cost.delta]:
            raise UsageError("this request id was used for another question; ask with a new one")
        return str(state)

    def account(self, analyst: str, population: str) -> Balance:
        """An analyst's account; empty where the owner opened none."""
        return self._balance("accounts WHERE analyst = ? AND population = ?", analyst, population)

    def population(self, name: str) -> Balance:
        """The cap over all analysts together."""
        return self._balance("populations WHERE name = ?", name)

    def exact(self, population: str, analyst: str | None = None) -> int:
        """How many exact results about a population left: to one analyst, or to all."""
        sql = "SELECT coalesce(sum(count), 0) FROM exact WHERE population = ?"
        rows = self._journal.read(sql, population) if analyst is None else self._journal.read(
            f"{sql} AND analyst = ?", population, analyst
        )  # fmt: skip
        return int(rows[0][0])

    def populations(self) -> list[str]:
        """Names of all populations; one that was merged into another is none."""
        return [n for (n,) in self._journal.read("SELECT name FROM populations WHERE merged_into IS NULL ORDER BY name")]

    def merged(self, name: str) -> str | None:
        """What a population was merged into."""
        rows = self._journal.read("SELECT merged_into FROM populations WHERE name = ?", name)
        return rows[0][0] if rows else None

    def merge(self, population: str, into: str) -> None:
        """Journal that two populations are the same people; raises BusyError while one of their questions is computed."""

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            rows = db.execute(
                "SELECT sum(epsilon_reserved) FROM populations WHERE name IN (?, ?)", (population, into)
            ).fetchone()
            if rows[0]:
                raise BusyError("a question about one of them is being computed; merge them again in a moment")
            return {"population": population, "into": into}

        self._journal.append("merged", body)

    def accounts(self, analyst: str) -> dict[str, Balance]:
        """All accounts of an analyst, by population."""
        rows = self._journal.read("SELECT population FROM accounts WHERE analyst = ? ORDER BY population", analyst)
        return {population: self.account(analyst, population) for (population,) in rows}

    def balances(self) -> list[tuple[str, str, Balance, int]]:
        """(population, analyst, balance, exact releases) of all; the analyst "" is all analysts together. Two reads in all."""
        columns = "epsilon_cap, delta_cap, epsilon_spent, delta_spent, epsilon_reserved, delta_reserved"
        sums = f"SELECT name, '', {columns} FROM populations WHERE merged_into IS NULL"
        rows = self._journal.read(f"{sums} UNION ALL SELECT population, analyst, {columns} FROM accounts ORDER BY 1, 2")
        exact = {(p, a): n for p, a, n in self._journal.read("SELECT population, analyst, count FROM exact")}
        found = []
        for population, analyst, a, b, c, d, e, f in rows:
            counted = sum(n for (p, who), n in exact.items() if p == population and analyst in ("", who))
            found.append((population, analyst, Balance(Cost(a, b), Cost(c, d), Cost(e, f)), counted))
        return found

    def _balance(self, where: str, *values: str) -> Balance:
        rows = self._journal.read(
            "SELECT epsilon_cap, delta_cap, epsilon_spent, delta_spent, epsilon_reserved, delta_reserved, relation FROM "
            + where,
            *values,
        )
        a, b, c, d, e, f, relation = rows[0] if rows else (0, 0, 0, 0, 0, 0, "")
        return Balance(Cost(a, b), Cost(c, d), Cost(e, f), relation)


SUSPENDED = (
    "the owner's journal is older than one that it signed before, so it releases nothing: "
    "an old copy of its state folder was restored. The owner has to confirm that first"
)
