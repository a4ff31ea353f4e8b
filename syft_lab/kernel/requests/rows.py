"""Requests as the journal has them: what was filed, how each stands, what was said, what is kept of it.

The journal is the only source: a `Row` is what a request's entries come to, by its views.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from syft_lab import canonical
from syft_lab.cell import Cell, use_from_json
from syft_lab.errors import FailedError, RefusedError, UsageError, WireError
from syft_lab.kernel import policy
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.outputs import Observed
from syft_lab.kernel.requests.shelf import Shelf
from syft_lab.kernel.settings import Settings
from syft_lab.partnership import Partnership
from syft_lab.partnership import parse as parse_partnership

UNDECIDED = ("filed", "seen", "partly")
OPEN = (*UNDECIDED, "approved", "running", "review")
FELL = ("denied", "withheld", "failed", "cancelled", "interrupted", "expired", "left")
COLUMNS = (
    "request, number, analyst, digest, template, state, needed, follows, filed, moved, entry, comments, ran, left, "
    "explained, rule, review, why"
)


@dataclass(frozen=True)
class Row:
    """A request as the journal has it now. ``filed``, ``moved`` (its state), ``entry`` (anything), ``ran``, ``left`` and
    ``explained`` are positions in the journal."""  # noqa: D209

    request: str
    number: int
    analyst: str
    digest: str
    template: str
    state: str
    needed: int
    follows: int | None
    filed: int
    moved: int
    entry: int
    comments: int
    ran: int | None
    left: int | None
    explained: int | None
    rule: int | None
    review: int
    why: str


class Rows:
    """Reads requests; `Desk` changes them."""

    def __init__(self, journal: Journal, settings: Settings, folder: Path) -> None:
        self._journal, self.settings, self._shelf = journal, settings, Shelf(folder)

    def row(self, request: str) -> Row:
        """A request by its id; raises UsageError."""
        found = self._journal.read(f"SELECT {COLUMNS} FROM requests WHERE request = ?", request)
        if not found:
            raise UsageError(f"there is no request {ascii(request)[:40]}")
        return Row(*found[0])

    def find(self, name: str | int) -> Row:
        """A request by its number or id."""
        if str(name).isdigit() and len(str(name)) < 10:
            found = self._journal.read(f"SELECT {COLUMNS} FROM requests WHERE number = ?", int(name))
            if found:
                return Row(*found[0])
            raise UsageError(f"there is no request {name}")
        return self.row(str(name))

    def rows(self, analyst: str | None = None, after: int = -1, states: Iterable[str] = ()) -> list[Row]:
        """Requests that changed after entry ``after``, oldest first; of one analyst, or of all; in some states, or in any."""
        where, given, wanted = "entry > ?", [after], tuple(states)
        chosen = [*([analyst] if analyst is not None else []), *wanted]
        where += " AND analyst = ?" if analyst is not None else ""
        where += f" AND state IN ({marks(wanted)})" if wanted else ""
        found = self._journal.read(f"SELECT {COLUMNS} FROM requests WHERE {where} ORDER BY number", *given, *chosen)
        return [Row(*r) for r in found]

    def latest(self, count: int, beside: Iterable[str]) -> list[Row]:
        """The requests that changed last, the oldest change first; those in some states are left out."""
        left_out = tuple(beside)
        where = f"WHERE state NOT IN ({marks(left_out)}) ORDER BY entry DESC LIMIT ?"
        found = self._journal.read(f"SELECT {COLUMNS} FROM requests {where}", *left_out, count)
        return [Row(*r) for r in reversed(found)]

    def count(self, states: Iterable[str] = ()) -> int:
        """How many requests there are, in some states or in any."""
        wanted = tuple(states)
        where = f"WHERE state IN ({marks(wanted)})" if wanted else ""
        return int(self._journal.read(f"SELECT count(*) FROM requests {where}", *wanted)[0][0])

    def terms(self, row: Row) -> Mapping[str, Any]:
        """What was filed: the body of its entry."""
        return self._journal.entry(row.filed).body

    def cell(self, row: Row) -> Cell:
        """The cell that was filed."""
        said = self.terms(row)["cell"]
        use = tuple(map(use_from_json, said["use"]))
        return Cell(said["code"], use, tuple(said["returns"]), said["params"], said["reason"])

    def time(self, seq: int) -> str:
        """When an entry was written."""
        return self._journal.entry(seq).time

    def public(self, row: Row) -> dict[str, Any]:
        """What the analyst may know of their own request: nothing that came of private data before its release."""
        said = self.terms(row)
        return {
            "request": row.request, "number": row.number, "digest": row.digest, "state": row.state, "why": row.why,
            "entry": row.entry, "cell": said["cell"], "filed": self.time(row.filed), "changed": self.time(row.moved),
            "follows": row.follows, "comments": self.comments(row), "approvals": [len(self.approvers(row)), row.needed],
            "error": None if row.explained is None else self._journal.entry(row.explained).body["error"],
            "limits": asdict(self.settings.limits(said.get("role", "analyst"))),
            "by": self.step(row).get("by", "") if row.state in ("left", "cancelled") else "",
        }  # fmt: skip

    def comments(self, row: Row) -> list[dict[str, str]]:
        """What was said about a request, oldest first."""
        sql = "SELECT entry FROM comments WHERE request = ? ORDER BY entry"
        rows = self._journal.read(sql, row.request) if row.comments else []
        found = [self._journal.entry(seq) for (seq,) in rows]
        return [{"by": e.body["by"], "time": e.time, "text": e.body["text"]} for e in found]

    def approvers(self, row: Row) -> list[str]:
        """Who approved a request so far."""
        if row.state in ("filed", "seen"):
            return []
        return [by for (by,) in self._journal.read("SELECT by FROM endorsements WHERE request = ? ORDER BY entry", row.request)]

    def step(self, row: Row) -> dict[str, Any]:
        """What the journal says of the step to the state it is in: who took it, and why."""
        return self._journal.entry(row.moved).body

    def decided(self, row: Row) -> str:
        """Who, or which rule, decided, in words; empty while nobody did."""
        if row.state in UNDECIDED and row.state != "partly":
            return ""
        approvers = self.approvers(row)
        if approvers:
            return f"approved by {', '.join(approvers)}" + (f" of {row.needed} needed" if row.state == "partly" else "")
        body = self._journal.entry(row.moved).body
        return f"{row.state} by {body['by']}" if "by" in body else row.state

    def partnership(self, row: Row) -> Partnership | None:
        """The terms of a partnership; None for a request about code or a value. Raises RefusedError for an old one's."""
        said = self.terms(row).get("partnership")
        try:
            return None if said is None else parse_partnership(canonical.dumps(said))
        except (WireError, UsageError):
            raise RefusedError(f"the terms of request {row.number} are another release's, which does not name the analyst's "
                               "keys, so nothing goes on under them: lab.federation(a, b, c) asks again") from None  # fmt: skip

    def proposes(self, row: Row) -> bool:
        """Whether it is about a partnership."""
        return "partnership" in self.terms(row)

    def case(self, row: Row) -> policy.Case:
        """What a policy is asked about a request, as of when it was filed."""
        said, cell = self.terms(row), self.cell(row)
        time = datetime.fromisoformat(self.time(row.filed))
        return policy.Case(
            "code", row.analyst, said.get("role", "analyst"), tuple(d["dataset"] for d in said["data"]), time,
            digest=row.digest, template=row.template, params=cell.params, filtered=cell.filtered, observed=self.observed(row),
        )  # fmt: skip

    def observed(self, row: Row) -> Observed | None:
        """What the runs on the mock gave; None while they are not over."""
        found = self.noted(row, "mock")
        if found is None:
            return None
        grows = found.get("grows")
        return Observed(found["outputs"], None if grows is None else tuple(grows), found["why"])

    def _own(self, request: str, analyst: str | None) -> Row:
        row = self.row(request)
        if analyst is not None and row.analyst != analyst:
            raise UsageError(f"there is no request {ascii(request)[:40]}")
        return row

    def _predecessor(self, analyst: str, cell: Cell) -> int | None:
        """The newest request of this analyst that fell, and reads and returns the same."""
        for row in reversed(self.rows(analyst)[-50:]):
            if row.state in FELL:
                old = self.cell(row)
                if old.returns == cell.returns and [u.dataset for u in old.use] == [u.dataset for u in cell.use]:
                    return row.number
        return None

    # Results and notes, beside the journal

    def given(self, row: Row) -> bytes | None:
        """The value that was asked for as it was then, empty where it is none; None where code is to run."""
        return self._shelf.given(row.request)

    def existed(self, row: Row) -> bool:
        """Whether a value was asked for, and not that code runs; also once the value was deleted."""
        return "value" in (self.noted(row, "mock") or {}) or self.given(row) is not None

    def blob(self, row: Row) -> bytes:
        """The kept result; raises UsageError where there is none."""
        return self._kept(row)[1]

    def kept_run(self, row: Row) -> tuple[bytes, dict[str, Any]]:
        """The salt of a kept result, and the entry of its run; raises UsageError where nothing is kept."""
        salt, _ = self._kept(row)
        return salt, self._journal.entry(row.ran).body if row.ran is not None else {}

    def _kept(self, row: Row) -> tuple[bytes, bytes]:
        found = self._shelf.kept(row.request)
        if found is None:
            raise UsageError(f"request {row.number} has no result ({row.state})")
        return found

    def has(self, row: Row, name: str) -> bool:
        """Whether something was kept by `note`."""
        return self._shelf.has(row.request, name)

    def noted(self, row: Row, name: str) -> dict[str, Any] | None:
        """What was kept by `note`."""
        return self._shelf.noted(row.request, name)

    def released(self, analyst: str, request: str) -> tuple[Entry, bytes, bytes]:
        """What left of a request: its entry, the salt of the commitment in it, the values (both empty for an error).

        Raises an error that says why there is nothing.
        """
        row = self._own(request, analyst)
        if row.left is not None:
            return self._journal.entry(row.left), *self._kept(row)
        if row.explained is not None:
            return self._journal.entry(row.explained), b"", b""
        raise FailedError(f"request {row.number} has no released result: it is {row.state}{f' ({row.why})' if row.why else ''}")


def marks(values: tuple[str, ...]) -> str:
    """As many places in a question to the journal."""
    return ", ".join("?" for _ in values)
