"""What an owner set for requests: how many must approve, how long they wait, what a run may take. As new as the journal."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from syft_lab import canonical
from syft_lab.kernel.executor.supervisor import Limits
from syft_lab.kernel.journal import Entry, Journal

EXPIRY = timedelta(days=30)
KINDS = ("approvals", "expiry", "capped")


class Settings:
    """Each setter journals; what is set already is not journaled again."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._default = Limits()
        self._values = self._read()
        journal.on_append.append(self._hear)

    def _read(self) -> dict[str, Any]:
        rows = self._journal.read("SELECT name, value FROM settings WHERE name != 'suspended'")
        return {name: canonical.loads(value) for name, value in rows}

    def _hear(self, entry: Entry) -> None:
        if entry.kind in KINDS:
            self._values = self._read()

    @property
    def approvals(self) -> int:
        """How many different people must approve code."""
        found = self._values.get("approvals")
        return int(found["count"]) if found else 1

    def set_approvals(self, count: int) -> None:
        """See `approvals`."""
        if count != self.approvals:
            self._journal.append("approvals", {"count": count})

    @property
    def expiry(self) -> timedelta:
        """How long a request waits for a decision."""
        found = self._values.get("expiry")
        return timedelta(seconds=found["seconds"]) if found else EXPIRY

    def set_expiry(self, seconds: float) -> None:
        """See `expiry`."""
        if self.expiry != timedelta(seconds=seconds):
            self._journal.append("expiry", {"seconds": seconds})

    def limits(self, role: str) -> Limits:
        """What a run may take that somebody in a role asked for; "" is every role that has none of its own."""
        found = self._values.get(f"limits:{role}") or self._values.get("limits:")
        return Limits(**found["limits"]) if found else self._default

    def set_limits(self, role: str, limits: Limits) -> None:
        """See `limits`."""
        if self.limits(role) != limits or f"limits:{role}" not in self._values:
            self._journal.append("capped", {"role": role, "limits": asdict(limits)})
