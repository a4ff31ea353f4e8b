"""Requests to run code: filed by analysts, decided by the owner, kept in the journal whatever happens to the kernel.

    filed → approved → running → review → released
      │        │          │         └────→ withheld
      │        │          ├→ failed · interrupted
      └→ denied, and cancelled from anywhere before the end

Each arrow is an entry of the journal, and `views` allows no other: a request runs once at most, and nothing leaves
without an entry that says who, or which rule, let it. What came of a run lies beside the journal in a folder (0600).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import re
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from syft_lab import __version__, values
from syft_lab.cell import Cell, parse
from syft_lab.errors import BusyError, FailedError, RefusedError, StateError, SuspendedError, UsageError, WireError
from syft_lab.kernel import policy
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.ledger import SUSPENDED
from syft_lab.kernel.registry import Analyst
from syft_lab.kernel.rulebook import rules

OPEN = ("filed", "approved", "running", "review")
MAX_OPEN, MAX_WHY, SALT = 100, 2_000, 32
PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "torch")
_COLUMNS = "request, number, analyst, digest, state, filed, entry, ran, rule, review, why"


@dataclass(frozen=True)
class Row:
    """A request as the journal has it now. ``filed``, ``entry`` and ``ran`` are positions in the journal."""

    request: str
    number: int
    analyst: str
    digest: str
    state: str
    filed: int
    entry: int
    ran: int | None
    rule: int | None
    review: int
    why: str


def environment() -> dict[str, str]:
    """Versions of what a cell can import; part of the digest that is approved."""
    found = {"python": platform.python_version(), "syft-lab": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Desk:
    """Every change of a request, each one entry of the journal. ``on_change`` hears of it; ``on_approved`` runs it."""

    def __init__(self, journal: Journal, catalogue: Catalogue, folder: Path) -> None:
        self._journal, self._catalogue, self._folder = journal, catalogue, folder
        self._environment = environment()
        self._lock = threading.Lock()
        self.on_change: list[Callable[[Row], None]] = []
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    # Reading

    def row(self, request: str) -> Row:
        """A request by its id; raises UsageError."""
        found = self._journal.read(f"SELECT {_COLUMNS} FROM requests WHERE request = ?", request)
        if not found:
            raise UsageError(f"there is no request {ascii(request)[:40]}")
        return Row(*found[0])

    def find(self, name: str | int) -> Row:
        """A request by its number or id."""
        if str(name).isdigit() and len(str(name)) < 10:
            found = self._journal.read(f"SELECT {_COLUMNS} FROM requests WHERE number = ?", int(name))
            if found:
                return Row(*found[0])
            raise UsageError(f"there is no request {name}")
        return self.row(str(name))

    def rows(self, analyst: str | None = None, after: int = -1) -> list[Row]:
        """Requests that changed after entry ``after``, oldest first; of one analyst, or of all."""
        if analyst is None:
            found = self._journal.read(f"SELECT {_COLUMNS} FROM requests WHERE entry > ? ORDER BY number", after)
        else:
            found = self._journal.read(
                f"SELECT {_COLUMNS} FROM requests WHERE analyst = ? AND entry > ? ORDER BY number", analyst, after
            )
        return [Row(*r) for r in found]

    def terms(self, row: Row) -> Mapping[str, Any]:
        """What was filed: the body of its entry."""
        return self._journal.entry(row.filed).body

    def cell(self, row: Row) -> Cell:
        """The cell that was filed."""
        said = self.terms(row)["cell"]
        return Cell(said["code"], tuple((n, v) for n, v in said["use"]), tuple(said["returns"]), said["params"], said["reason"])

    def public(self, row: Row) -> dict[str, Any]:
        """What the analyst may know of their own request: nothing that came of private data before its release."""
        said, entry = self.terms(row), self._journal.entry(row.entry)
        return {
            "request": row.request, "number": row.number, "digest": row.digest, "state": row.state, "why": row.why,
            "entry": row.entry, "cell": said["cell"], "filed": self._journal.entry(row.filed).time, "changed": entry.time,
        }  # fmt: skip

    def decided_by(self, row: Row) -> str:
        """Who, or which rule, let it run."""
        return "" if row.rule is None else f"rule {row.rule}"

    # From the analyst

    def file(self, analyst: Analyst, request: str, data: bytes) -> Row:
        """Take a request in, durably; the same again is answered as before. A rule may approve it at once."""
        if analyst.role == "guest":
            raise RefusedError("a guest sees mocks only; ask the owner for the role of analyst")
        if not re.fullmatch(r"[0-9a-f]{32}", request):
            raise WireError("a request id has 32 hexadecimal digits")
        cell = parse(data)
        datasets = [self._catalogue.find(analyst, name, version) for name, version in cell.use]
        digest = cell.digest([d.meta["commitment"] for d in datasets], self._environment)

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            _check_not_suspended(db)
            ((number, open_now),) = db.execute(
                f"SELECT coalesce(max(number), 0), sum(analyst = ? AND state IN ({_marks(OPEN)})) FROM requests",
                (analyst.name, *OPEN),
            ).fetchall()
            if (open_now or 0) >= MAX_OPEN:
                raise BusyError(f"{open_now} of your requests are open; cancel some, or wait for the owner to decide")
            return {
                "request": request, "number": number + 1, "analyst": analyst.name, "digest": digest, "cell": cell.to_json(),
                "data": [{"dataset": d.name, "version": d.version, "commitment": d.meta["commitment"]} for d in datasets],
                "environment": self._environment,
            }  # fmt: skip

        with self._lock:
            known = self._journal.read("SELECT analyst, digest FROM requests WHERE request = ?", request)
            if known:
                if known != [(analyst.name, digest)]:
                    raise UsageError("this request id was used for another request; file it with a new one")
                return self.row(request)
            self._journal.append("filed", body)
        self._changed(request)
        self._approve_by_rule(analyst.name, request, digest)
        return self.row(request)

    def _approve_by_rule(self, analyst: str, request: str, digest: str) -> None:
        def body(db: sqlite3.Connection) -> dict[str, Any]:
            used = dict(db.execute("SELECT rule, count(*) FROM requests WHERE rule IS NOT NULL GROUP BY rule").fetchall())
            decision = policy.decide_code(rules(self._journal), analyst, digest, used)
            if not isinstance(decision, policy.Allow) or not isinstance(decision.rule, policy.CodeRule):
                raise _NoRuleError
            rule = decision.rule
            return {"request": request, "digest": digest, "by": str(rule), "rule": rule.id, "review": rule.review}

        if not any(isinstance(r, policy.CodeRule) for r in rules(self._journal)):
            return
        try:
            self._journal.append("approved", body)
        except _NoRuleError:
            return
        self._changed(request)

    def cancel(self, request: str, analyst: str | None = None) -> Row:
        """Take a request back; what runs is ended. Raises UsageError for somebody else's, or one that is over."""
        row = self.row(request)
        if analyst is not None and row.analyst != analyst:
            raise UsageError(f"there is no request {ascii(request)[:40]}")
        if row.state == "cancelled":
            return row
        self._move(row, "cancelled", {"by": analyst or "owner"})
        self._forget_result(row)
        return self.row(request)

    # From the owner

    def approve(self, request: str, digest: str, by: str = "owner") -> Row:
        """Let exactly what has ``digest`` run, once; raises UsageError for any other."""
        row = self.row(request)
        if digest != row.digest:
            raise UsageError(f"request {row.number} has another digest than the one given; look at it again before you approve")
        self._move(row, "approved", {"digest": digest, "by": by, "rule": None, "review": True})
        return self.row(request)

    def deny(self, request: str, reason: str, by: str = "owner") -> Row:
        """Refuse a request; ``reason`` reaches the analyst."""
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError('say why, for the analyst: request.deny("cohort too small")')
        row = self.row(request)
        self._move(row, "denied", {"why": reason.strip()[:MAX_WHY], "by": by})
        return self.row(request)

    def release(self, request: str, by: str = "owner") -> Row:
        """Let the result of a run leave, as it was reviewed; writes the entry that the receipt is about."""
        row = self.row(request)
        said, (salt, blob) = self.terms(row), self._kept(row)
        ran = self._journal.entry(row.ran).body if row.ran is not None else {}
        if hmac.new(salt, blob, hashlib.sha256).hexdigest() != ran.get("commitment"):
            raise StateError(f"the kept result of request {row.number} is not the one that ran; withhold it, and run it again")
        datasets = {(d.name, d.version): d for d in self._catalogue.all()}
        used = [datasets[d["dataset"], d["version"]] for d in said["data"]]
        body = {
            **{k: said[k] for k in ("request", "number", "analyst", "digest", "cell", "data", "environment")},
            "returns": said["cell"]["returns"],
            "populations": sorted({d.population for d in used}),
            "result": hashlib.sha256(blob).hexdigest(),
            "outputs": [v.describe() for v in values.decode(blob).values()],
            "isolation": ran["isolation"], "seed": ran["seed"], "by": by,
            "guarantee": "an exact value, by the owner's approval (no differential privacy)",
            "neighbours": "nothing bounds what it tells about one person; the owner looked at it" if row.review else
            "nothing bounds what it tells about one person; a rule of the owner's let it leave unseen",
            "software": f"syft-lab {__version__}",
        }  # fmt: skip
        self._move(row, "exact", body)
        return self.row(request)

    def withhold(self, request: str, reason: str = "", by: str = "owner") -> Row:
        """Keep the result of a run back, and delete it; ``reason`` reaches the analyst."""
        row = self.row(request)
        self._move(row, "withheld", {"why": str(reason).strip()[:MAX_WHY], "by": by})
        self._forget_result(row)
        return self.row(request)

    # From the runs

    def start(self, row: Row, details: Mapping[str, Any]) -> list[Dataset]:
        """Note that it begins; gives its datasets. Raises StateError where what was approved is no longer so."""
        said = self.terms(row)
        if said["environment"] != self._environment:
            raise StateError("the owner's packages changed since it was approved; file it again")
        live = {(d.name, d.version): d for d in self._catalogue.live()}
        used = [live.get((d["dataset"], d["version"])) for d in said["data"]]
        gone = [d["dataset"] for d, found in zip(said["data"], used, strict=True) if found is None]
        if gone:
            raise StateError(f"{gone[0]} was withdrawn since it was approved; file it again on what is published now")
        self._move(row, "started", dict(details))
        return [d for d in used if d is not None]

    def ran(self, row: Row, blob: bytes, details: Mapping[str, Any]) -> Row:
        """Keep the result of a run; it waits for the owner."""
        salt = secrets.token_bytes(SALT)
        self._write(row.request, "result.bin", salt + blob)
        try:
            # A plain digest of a number would let whoever reads the journal guess it.
            self._move(row, "ran", {"commitment": hmac.new(salt, blob, hashlib.sha256).hexdigest(), **details})
        except UsageError:  # cancelled at the last moment
            self._forget_result(row)
            raise
        return self.row(row.request)

    def broke(self, row: Row, why: str) -> Row:
        """Note that a run came to nothing; ``why`` reaches the analyst, and holds nothing private."""
        self._move(row, "broke", {"why": why})
        return self.row(row.request)

    def settle_interrupted(self) -> int:
        """After a crash: what was running is over, and never runs again. Gives how many there were."""
        cut = [r for r in self.rows() if r.state == "running"]
        for row in cut:
            self.cut_off(row)
        return len(cut)

    def cut_off(self, row: Row) -> None:
        """Note that a run ended with the kernel."""
        self._move(row, "cut_off", {"why": "the owner's kernel stopped while it ran; nothing left. File it again"})

    # Results and notes, beside the journal

    def blob(self, row: Row) -> bytes:
        """The kept result; raises UsageError where there is none."""
        return self._kept(row)[1]

    def _kept(self, row: Row) -> tuple[bytes, bytes]:
        """The salt of the commitment to a result, and the result."""
        path = self._folder / row.request / "result.bin"
        if not path.is_file():
            raise UsageError(f"request {row.number} has no result ({row.state})")
        content = path.read_bytes()
        return content[:SALT], content[SALT:]

    def note(self, row: Row, name: str, content: Mapping[str, Any]) -> None:
        """Keep what the owner alone may see of a run (``run``) or of a run on the mock (``mock``)."""
        self._write(row.request, f"{name}.json", json.dumps(content).encode())
        self._changed(row.request)

    def noted(self, row: Row, name: str) -> dict[str, Any] | None:
        """What was kept by `note`."""
        path = self._folder / row.request / f"{name}.json"
        return json.loads(path.read_bytes()) if path.is_file() else None

    def released(self, analyst: str, request: str) -> tuple[Entry, bytes]:
        """The entry of a release and its values; raises an error that says why there is none."""
        row = self.row(request)
        if row.analyst != analyst:
            raise UsageError(f"there is no request {ascii(request)[:40]}")
        if row.state != "released":
            raise FailedError(
                f"request {row.number} has no released result: it is {row.state}{f' ({row.why})' if row.why else ''}"
            )
        return self._journal.entry(row.entry), self.blob(row)

    def _write(self, request: str, name: str, content: bytes) -> None:
        folder = self._folder / request
        folder.mkdir(exist_ok=True, mode=0o700)
        partial = folder / f".{name}.{threading.get_ident()}"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, folder / name)

    def _forget_result(self, row: Row) -> None:
        shutil.rmtree(self._folder / row.request, ignore_errors=True)

    def _move(self, row: Row, kind: str, body: Mapping[str, Any]) -> None:
        def checked(db: sqlite3.Connection) -> dict[str, Any]:
            if kind in ("approved", "started", "exact"):
                _check_not_suspended(db)
            return {"request": row.request, **body}

        try:
            self._journal.append(kind, checked)
        except sqlite3.IntegrityError:
            state = self.row(row.request).state
            raise UsageError(f"request {row.number} is {_WORDS.get(state, state)}; it can't be {_PAST[kind]} now") from None
        self._changed(row.request)

    def _changed(self, request: str) -> None:
        self._tell(self.row(request))

    def _tell(self, row: Row) -> None:
        for hear in list(self.on_change):
            hear(row)


class _NoRuleError(Exception):
    """No rule lets the code run: the append is undone, and the owner decides."""


_WORDS = {"review": "awaiting release", "filed": "not approved yet"}
_PAST = {"approved": "approved", "denied": "denied", "cancelled": "cancelled", "started": "started", "ran": "kept",
         "exact": "released", "withheld": "withheld", "broke": "failed", "cut_off": "interrupted"}  # fmt: skip


def _marks(values: tuple[str, ...]) -> str:
    return ", ".join("?" for _ in values)


def _check_not_suspended(db: sqlite3.Connection) -> None:
    if db.execute("SELECT 1 FROM settings WHERE name = 'suspended'").fetchone():
        raise SuspendedError(SUSPENDED)
