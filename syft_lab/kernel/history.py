"""What a policy may know of the past: a fold over the journal's entries, kept up to date as they are written."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from syft_lab.kernel.journal import Entry

KINDS = ("approved", "endorsed", "reserved", "allowed")  # of entries that it takes in


class History:
    """How often each rule let something run, and which digests people approved. Adding is O(1), asking O(log n)."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._uses: defaultdict[int, list[str]] = defaultdict(list)
        self._agreed: dict[tuple[str, str], str] = {}
        self.last_rule = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take in the next entry; times never decrease in a journal."""
        kind, body = entry.kind, entry.body
        if kind in ("approved", "endorsed", "reserved") and body.get("rule") is not None:
            self._uses[body["rule"]].append(entry.time)
        elif kind == "approved" and "analyst" in body:
            self._agreed.setdefault((body["digest"], body["analyst"]), entry.time)
        elif kind == "allowed":
            self.last_rule = max(self.last_rule, body["rule"])

    def use(self, rule: int, time: datetime) -> None:
        """Note that a rule let something run."""
        self._uses[rule].append(_text(time))

    def unused(self) -> History:
        """What people approved, and no use of any rule: where a dry run starts."""
        found = History()
        found._agreed = self._agreed
        return found

    def uses(self, rule: int, since: datetime | None = None) -> int:
        """How often a rule let something run, in all or after ``since``."""
        times = self._uses.get(rule, [])
        return len(times) - (0 if since is None else bisect_right(times, _text(since)))

    def agreed(self, digest: str, analyst: str, before: datetime) -> bool:
        """Whether people approved exactly this for this analyst before a time."""
        time = self._agreed.get((digest, analyst))
        return time is not None and time <= _text(before)


def _text(time: datetime) -> str:
    """As the journal writes it: one format, in UTC, so that texts sort as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")
