"""Requests, to run code, for values and for partnerships: filed by analysts, decided by the owner, kept in the journal.

    filed → seen → partly → approved → running → review → released
      ├──────┴───────┴→ denied            │         └────→ withheld
      │                 expired           └→ failed · interrupted
      └→ joined → left · expired          (a partnership: nothing runs, it holds until somebody leaves)
    and cancelled from anywhere before the end; a step may be left out on the way to approved

Each arrow is an entry of the journal, and `views` allows no other: a request runs once at most, and nothing leaves
without an entry that says who, or which rule, let it. ``partly``: approved by some of the people it needs. What came of
a run lies beside the journal in a folder (0600). `rows` reads; everything here writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import platform
import re
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from syft_lab import __version__, canonical, values
from syft_lab.cell import Cell, parse
from syft_lab.errors import BusyError, RefusedError, StateError, SuspendedError, UsageError, WireError
from syft_lab.expr import check_filter
from syft_lab.kernel import policy
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.journal import Journal
from syft_lab.kernel.ledger import SUSPENDED
from syft_lab.kernel.registry import Analyst
from syft_lab.kernel.requests.rows import COLUMNS, FELL, OPEN, UNDECIDED, Row, Rows, marks
from syft_lab.kernel.requests.shelf import SALT
from syft_lab.kernel.roles import OWNER
from syft_lab.kernel.rulebook import Rulebook
from syft_lab.kernel.settings import Settings
from syft_lab.partnership import Partnership

MAX_OPEN, MAX_WHY, MAX_COMMENTS = 100, 2_000, 100
LOOKED_AT = ("earlier", "mock", "cohorts")  # notes of what a filed request would do
PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "torch")


def environment() -> dict[str, str]:
    """Versions of what a cell can import; part of the digest that is approved."""
    found = {"python": platform.python_version(), "syft-lab": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Desk(Rows):
    """Every change of a request, each one entry of the journal. ``on_change`` hears of it."""

    def __init__(self, journal: Journal, catalogue: Catalogue, rulebook: Rulebook, settings: Settings, folder: Path) -> None:
        super().__init__(journal, settings, folder)
        self._catalogue, self._rulebook = catalogue, rulebook
        self._environment = environment()
        self._lock = threading.Lock()
        self.on_change: list[Callable[[Row], None]] = []

    # From the analyst

    def file(
        self, analyst: Analyst, request: str, data: bytes, follows: int = 0, value: tuple[bytes, str] | None = None,
        federation: str = "",
    ) -> Row:  # fmt: skip
        """Take a request in, durably; the same again is answered as before. A rule may decide it at once.

        ``follows`` is the number of the request that this one mends; 0 looks for one that fell and reads and returns the same.
        ``value`` is one that exists already, the result of a plan, and why it is empty where it is: nothing will run. It may be
        a part of one that a ``federation`` (its id) computed.
        """
        analyst.need("file")
        cell = parse(data, value is not None)
        datasets = [self._catalogue.find(analyst, u.dataset, u.version) for u in cell.use]
        for use, dataset in zip(cell.use, datasets, strict=True):
            _check_part(use.filter is not None or bool(use.columns), dataset)
            if use.filter is not None:
                check_filter(use.filter, dataset.schema)
            for column in use.columns:
                dataset.schema.column(column)
        if follows and self._journal.read("SELECT analyst FROM requests WHERE number = ?", follows) != [(analyst.name,)]:
            raise UsageError(f"you have no request {follows} for this one to follow")
        terms: dict[str, Any] = {
            "digest": cell.digest([d.meta["commitment"] for d in datasets], self._environment),
            "template": cell.template(self._environment), "cell": cell.to_json(),
            "follows": follows or self._predecessor(analyst.name, cell),
            "needed": max([self.settings.approvals, *(d.meta.get("approvals", 1) for d in datasets)]),
            "data": [{"dataset": d.name, "version": d.version, "commitment": d.meta["commitment"]} for d in datasets],
            **({"federation": federation} if federation else {}),
        }  # fmt: skip
        row = self._take(analyst, request, terms, value)
        self.decide(request)
        return self.row(row.request)

    def propose(self, analyst: Analyst, request: str, partnership: Partnership) -> Row:
        """Take in that this owner should be in a federation; the same terms again are the same request, while they hold."""
        analyst.need("file")
        with contextlib.suppress(RefusedError):
            self.joined(analyst.name, partnership.id)  # what is over is over
        open_now = (*UNDECIDED, "joined")
        found = self._journal.read(
            f"SELECT {COLUMNS} FROM requests WHERE analyst = ? AND digest = ? AND state IN ({marks(open_now)})",
            analyst.name, partnership.digest, *open_now,
        )  # fmt: skip
        if found:
            return Row(*found[0])
        cell = Cell(partnership.text(), (), (), {}, partnership.purpose)
        terms: dict[str, Any] = {
            "digest": partnership.digest, "template": "", "cell": cell.to_json(), "follows": None, "data": [],
            "needed": self.settings.approvals, "partnership": partnership.to_json(),
        }  # fmt: skip
        return self._take(analyst, request, terms, None)

    def _take(self, analyst: Analyst, request: str, terms: Mapping[str, Any], value: tuple[bytes, str] | None) -> Row:
        """Write down that something was filed."""
        if not re.fullmatch(r"[0-9a-f]{32}", request):
            raise WireError("a request id has 32 hexadecimal digits")

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            _check_not_suspended(db)
            self._check_open(analyst.name)
            ((number,),) = db.execute("SELECT coalesce(max(number), 0) + 1 FROM requests").fetchall()
            return {"request": request, "number": number, "analyst": analyst.name, "role": analyst.role, **terms,
                    "environment": self._environment, "rules": self._rulebook.history.last_rule}  # fmt: skip

        with self._lock:
            known = self._journal.read("SELECT analyst, digest FROM requests WHERE request = ?", request)
            if known:
                if known != [(analyst.name, terms["digest"])]:
                    raise UsageError("this request id was used for another request; file it with a new one")
                return self.row(request)
            self._check_open(analyst.name)  # before anything is written, which may be large
            try:
                if value is not None or "partnership" in terms:
                    self._keep_asked(request, value)
                self._journal.append("filed", body)
            except BaseException:
                if not self._journal.read("SELECT 1 FROM requests WHERE request = ?", request):
                    self._shelf.forget(request)
                raise
        self._changed(request)
        return self.row(request)

    def _check_open(self, analyst: str) -> None:
        """Raise BusyError where as many requests of an analyst are open as may be."""
        sql = f"SELECT count(*) FROM requests WHERE analyst = ? AND state IN ({marks(OPEN)})"
        ((count,),) = self._journal.read(sql, analyst, *OPEN)
        if count >= MAX_OPEN:
            raise BusyError(f"{count} of your requests are open; cancel some, or wait for the owner to decide")

    def _keep_asked(self, request: str, value: tuple[bytes, str] | None) -> None:
        """Keep the value that is asked for; for a partnership only that there is nothing to look at."""
        if value is None:  # what is asked is what is written there
            self._shelf.note(request, "mock", {"partnership": True, "outputs": [], "why": "", "grows": None})
            self._shelf.note(request, "cohorts", {"cohorts": []})
            return
        blob, why = value
        self._shelf.give(request, blob)
        shown = [v.describe() for v in values.decode(blob).values()] if blob else []
        self._shelf.note(request, "mock", {"why": "", "log": "", "error": None, "seconds": 0.0, "peak": 0, "touched": {},
                                           "outputs": shown, "grows": None, "value": why or "it exists"})  # fmt: skip

    # Partnerships

    def joined(self, analyst: str, federation: str) -> tuple[Row, Partnership, Mapping[str, Any]]:
        """The partnership that this owner accepted for an analyst, its terms, and what was open when it did.

        Raises RefusedError that says why there is none.
        """
        found = self._journal.read(
            f"SELECT {COLUMNS} FROM requests WHERE analyst = ? AND digest = ? ORDER BY number DESC LIMIT 1",
            analyst, f"sha256:{federation}",
        )  # fmt: skip
        row = Row(*found[0]) if found else None
        if row is None or not self.proposes(row):
            raise RefusedError("this owner was never asked into this federation: lab.federation(a, b, c) asks")
        if row.state != "joined":
            by = self.step(row).get("by")
            what = {"left": f"no longer takes part in the federation: {by} ended that",
                    "expired": "let the partnership end, its time is over",
                    "denied": "does not take part in the federation"}  # fmt: skip
            said = what.get(row.state, f"has not accepted the partnership yet: request {row.number} is {row.state}")
            raise RefusedError(f"this owner {said}{f' ({row.why})' if row.why else ''}")
        body = self._journal.entry(row.moved).body
        if datetime.fromisoformat(body["until"]) <= self._journal.now():
            days = self.terms(row)["partnership"]["days"]
            self._move(row, "expired", {"why": f"it held for {days} days"}, quietly=True)
            raise RefusedError("this owner let the partnership end, its time is over: lab.federation(a, b, c) asks again")
        terms = self.partnership(row)
        if terms is None:
            raise RefusedError("this owner was never asked into this federation: lab.federation(a, b, c) asks")
        return row, terms, body

    def decide(self, request: str) -> None:
        """Let the policy decide, if it does: when a request is filed, and when its runs on the mock are over.

        A rule allows what is filed after it was made: what waited already waits for a person.
        """
        row = self.row(request)
        if row.state not in UNDECIDED or self.proposes(row):  # about partners a person decides
            return

        def decision() -> policy.Decision:
            case = self.case(row)
            return self._rulebook.decide(
                policy.Case(**{**vars(case), "time": self._journal.now()}), self.terms(row).get("rules")
            )

        found = decision()
        if isinstance(found, policy.Refuse):
            self._move(row, "denied", {"why": found.why[:MAX_WHY], "by": f"rule {found.rule.id}" if found.rule else "policy"})
            return
        if not isinstance(found, policy.Allow):
            return
        rule, last = found.rule, len(self.approvers(row)) + 1 >= row.needed

        def body(db: sqlite3.Connection) -> dict[str, Any]:
            again = decision()  # under the journal's lock: two requests can't both take a rule's last use
            if not isinstance(again, policy.Allow) or again.rule.id != rule.id:
                raise _NoRuleError
            _check_not_suspended(db)
            return {"request": request, "analyst": row.analyst, "digest": row.digest, "by": f"rule {rule.id}",
                    "said": str(rule), "rule": rule.id, "review": rule.review}  # fmt: skip

        try:
            self._journal.append("approved" if last else "endorsed", body)
        except (_NoRuleError, sqlite3.IntegrityError):
            return
        self._changed(request)

    def cancel(self, request: str, analyst: str | None = None) -> Row:
        """Take a request back; what runs is ended. Raises UsageError for somebody else's, or one that is over."""
        row = self._own(request, analyst)
        if row.state in ("cancelled", "left"):
            return row
        self._move(row, "left" if row.state == "joined" else "cancelled", {"by": analyst or OWNER})
        with self._lock:
            self._shelf.forget(row.request)
        return self.row(request)

    def comment(self, request: str, text: str, by: str, analyst: str | None = None) -> Row:
        """Say something about a request, for its analyst and its deciders."""
        row = self._own(request, analyst)
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_WHY:
            raise UsageError(f"a comment is a text of 1 to {MAX_WHY} characters")
        said = self.comments(row)
        if said and (said[-1]["by"], said[-1]["text"]) == (by, text.strip()):
            return row  # it came twice, as after a broken connection
        if len(said) >= MAX_COMMENTS:
            raise BusyError(f"request {row.number} has {MAX_COMMENTS} comments; talk about the rest elsewhere")
        self._journal.append("commented", {"request": request, "by": by, "text": text.strip()})
        self._changed(request)
        return self.row(request)

    # From those who decide

    def seen(self, request: str, by: str = OWNER) -> Row:
        """Note that somebody who can decide has looked at it; the analyst may know."""
        row = self.row(request)
        if row.state == "filed":
            self._move(row, "seen", {"by": by}, quietly=True)
        return self.row(request)

    def approve(self, request: str, digest: str, by: str = OWNER) -> Row:
        """Let exactly what has ``digest`` run, once; raises UsageError for any other, RefusedError for one's own request.

        A part of a value that a federation computed leaves with its owner's approval; a partnership holds from then on.
        """
        row = self.row(request)
        if digest != row.digest:
            raise UsageError(f"request {row.number} has another digest than the one given; look at it again before you approve")
        if by == row.analyst:
            raise RefusedError(f"request {row.number} is your own: somebody else must approve it")
        for _ in range(row.needed + 1):  # others may approve meanwhile
            row, approvers = self.row(request), self.approvers(row)
            if by in approvers and row.state in UNDECIDED:
                raise UsageError(f"you approved request {row.number} already; it needs {row.needed} different people")
            body: dict[str, Any] = {"digest": digest, "analyst": row.analyst, "by": by, "rule": None, "review": True}
            last, terms = len(approvers) + 1 >= row.needed, self.partnership(row)
            if by == OWNER and "federation" in self.terms(row):  # a part looks random: there is nothing to see before it leaves
                body["review"] = False
            if last and terms is not None:
                until = self._journal.now() + timedelta(days=terms.days)
                body |= {"until": until.isoformat(timespec="seconds"), "datasets": self._open_to(row.analyst)}
            try:
                self._move(row, "endorsed" if not last else "approved" if terms is None else "joined", body)
                break
            except UsageError:
                if self.approvers(row) == approvers:
                    raise
        return self.row(request)

    def moved(self, analyst: str, federation: str, to: str, sources: Iterable[str], story: str) -> None:
        """Journal, before it happens, that a value goes to a partner as it is; an exact release of these datasets."""
        datasets = {f"{d.name} v{d.version}": d for d in self._catalogue.all()}
        used = [datasets[s] for s in sources]
        body = {
            "analyst": analyst, "federation": federation, "to": to, "code": story,
            "data": [{"dataset": d.name, "version": d.version, "commitment": d.meta["commitment"]} for d in used],
            "populations": sorted({d.population for d in used}),
            "guarantee": "an exact value, which a rule of the owner's hands to a partner (no differential privacy)",
        }  # fmt: skip

        def checked(db: sqlite3.Connection) -> dict[str, Any]:
            _check_not_suspended(db)
            return body

        self._journal.append("moved", checked)

    def _open_to(self, analyst: str) -> list[str]:
        """Names of the datasets that are open to an analyst now."""
        found = self._journal.read("SELECT datasets FROM analysts WHERE name = ? AND state = 'active'", analyst)
        named = set(canonical.loads(found[0][0])) if found else set()
        return sorted(d.name for d in self._catalogue.live() if d.name in named)

    def deny(self, request: str, reason: str, by: str = OWNER) -> Row:
        """Refuse a request; ``reason`` reaches the analyst."""
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError('say why, for the analyst: request.deny("cohort too small")')
        row = self.row(request)
        if by == row.analyst:
            raise RefusedError(f"request {row.number} is your own: cancel it instead")
        self._move(row, "denied", {"why": reason.strip()[:MAX_WHY], "by": by})
        return self.row(request)

    def expire(self) -> int:
        """End the requests that waited too long for a decision; gives how many."""
        before, count = self._journal.now() - self.settings.expiry, 0
        for row in self.rows(states=UNDECIDED):
            if datetime.fromisoformat(self.time(row.filed)) <= before:
                self._move(
                    row,
                    "expired",
                    {"why": f"nobody decided within {self.settings.expiry.days} days; file it again"},
                    quietly=True,
                )
                count += 1
        for row in self.rows(states=("joined",)):
            with contextlib.suppress(RefusedError):
                self.joined(row.analyst, row.digest.removeprefix("sha256:"))
        return count

    # From the owner

    def release(self, request: str, by: str = OWNER) -> Row:
        """Let the result of a run leave, as it was reviewed; writes the entry that the receipt is about."""
        row = self.row(request)
        said, (salt, blob) = self.terms(row), self._kept(row)
        ran = self._journal.entry(row.ran).body if row.ran is not None else {}
        if hmac.new(salt, blob, hashlib.sha256).hexdigest() != ran.get("commitment"):
            raise StateError(f"the kept result of request {row.number} is not the one that ran; withhold it, and run it again")
        body = {
            **self._what_left(row, said, by, ran),
            "returns": said["cell"]["returns"],
            "result": ran["commitment"],
            "outputs": [v.describe() for v in values.decode(blob).values()],
            "neighbours": "nothing bounds what it tells about one person; the owner looked at it" if by == OWNER else
            "nothing bounds what it tells about one person; a rule of the owner's let it leave unseen",
        }  # fmt: skip
        self._move(row, "exact", body)
        return self.row(request)

    def release_error(self, request: str, by: str = OWNER) -> Row:
        """Let the kind of error of a failed run and its line leave, with a receipt."""
        row = self.row(request)
        run, said = self.noted(row, "run"), self.terms(row)
        if row.state != "failed" or not run or not run.get("error"):
            raise UsageError(f"request {row.number} has no error to release: it is {row.state}")
        error = {"type": str(run["error"]["type"])[:100], "line": run["error"]["line"]}
        started = next(e for e in self._journal.of_kinds("started") if e.body["request"] == request)
        body = {**self._what_left(row, said, by, started.body), "returns": [], "error": error, "outputs": [],
                "neighbours": "nothing bounds what it tells about one person; the owner looked at it"}  # fmt: skip
        try:
            self._journal.append("explained", body)
        except sqlite3.IntegrityError:
            raise UsageError(f"the error of request {row.number} was released already") from None
        self._changed(request)
        return self.row(request)

    def _what_left(self, row: Row, said: Mapping[str, Any], by: str, ran: Mapping[str, Any]) -> dict[str, Any]:
        """What a receipt about something exact says."""
        datasets = {(d.name, d.version): d for d in self._catalogue.all()}
        used = [datasets[d["dataset"], d["version"]] for d in said["data"]]
        return {
            **{k: said[k] for k in ("request", "number", "analyst", "digest", "cell", "data", "environment")},
            "populations": sorted({d.population for d in used}), "approved": self.approvers(row),
            "isolation": ran["isolation"], "seed": ran["seed"], "by": by,
            "guarantee": "an exact value, by the owner's approval (no differential privacy)" if "federation" not in said else
            "one of the parts of an exact value, by this owner's approval (no differential privacy); all parts make the value",
            **{k: said[k] for k in ("federation",) if k in said},
            "software": f"syft-lab {__version__}",
        }  # fmt: skip

    def withhold(self, request: str, reason: str = "", by: str = OWNER) -> Row:
        """Keep the result of a run back, and delete it; ``reason`` reaches the analyst."""
        row = self.row(request)
        self._move(row, "withheld", {"why": str(reason).strip()[:MAX_WHY], "by": by})
        self._shelf.forget(row.request)
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
        self._shelf.keep(row.request, salt, blob)
        try:
            # A plain digest of a number would let whoever reads the journal guess it.
            self._move(row, "ran", {"commitment": hmac.new(salt, blob, hashlib.sha256).hexdigest(), **details})
        except UsageError:  # cancelled at the last moment
            self._shelf.forget(row.request)
            raise
        return self.row(row.request)

    def broke(self, row: Row, why: str) -> Row:
        """Note that a run came to nothing; ``why`` reaches the analyst, and holds nothing private."""
        self._move(row, "broke", {"why": why})
        return self.row(row.request)

    def settle_interrupted(self) -> int:
        """After a crash: what was running is over, and never runs again. Gives how many there were."""
        cut = self.rows(states=("running",))
        for row in cut:
            self.cut_off(row)
        return len(cut)

    def cut_off(self, row: Row) -> None:
        """Note that a run ended with the kernel."""
        self._move(row, "cut_off", {"why": "the owner's kernel stopped while it ran; nothing left. File it again"})

    def tidy(self) -> None:
        """After a start: delete values of requests that ended without a release, and what was kept for one never filed."""
        with self._lock:
            states = dict(self._journal.read("SELECT request, state FROM requests"))
            for request in self._shelf.requests():
                if request not in states:
                    self._shelf.forget(request)
                elif states[request] in FELL:
                    self._shelf.empty(request)

    # Results and notes, beside the journal

    def tried(self, row: Row, what: str) -> None:
        """Journal that the owner had a request's code run once more on real data, for their own eyes."""
        self._journal.append("tried", {"request": row.request, "analyst": row.analyst, "what": what, "by": OWNER})

    def note(self, row: Row, name: str, content: Mapping[str, Any], quietly: bool = False) -> None:
        """Keep what the owner alone may see: of a ``run``, of runs on the ``mock``, of ``cohorts``, of ``dropped`` people."""
        with self._lock:
            if name in LOOKED_AT and self.row(row.request).state in FELL:
                return  # it ended meanwhile, and what was kept of it is gone
            self._shelf.note(row.request, name, content)
        if not quietly:
            self._changed(row.request)

    def _move(self, row: Row, kind: str, body: Mapping[str, Any], quietly: bool = False) -> None:
        def checked(db: sqlite3.Connection) -> dict[str, Any]:
            if kind in ("approved", "endorsed", "joined", "started", "exact"):
                _check_not_suspended(db)
            return {"request": row.request, **body}

        try:
            self._journal.append(kind, checked)
        except sqlite3.IntegrityError:
            if quietly:  # somebody decided in between
                return
            state = self.row(row.request).state
            raise UsageError(f"request {row.number} is {_WORDS.get(state, state)}; it can't be {_PAST[kind]} now") from None
        with self._lock:
            if self.row(row.request).state in FELL:
                self._shelf.empty(row.request)
        self._changed(row.request)

    def _changed(self, request: str) -> None:
        self._tell(self.row(request))

    def _tell(self, row: Row) -> None:
        for hear in list(self.on_change):
            hear(row)


class _NoRuleError(Exception):
    """No rule lets the code run: the append is undone, and the owner decides."""


def _check_part(part: bool, dataset: Dataset) -> None:
    if part and dataset.tensor is not None:
        raise UsageError(f"{dataset.name} is a tensor, which is used whole")


_WORDS = {"review": "awaiting release", **dict.fromkeys(("filed", "seen"), "not approved yet"), "partly": "approved by some"}
_PAST = {
    "seen": "seen", "endorsed": "approved", "approved": "approved", "denied": "denied", "expired": "ended",
    "cancelled": "cancelled", "started": "started", "ran": "kept", "exact": "released", "withheld": "withheld",
    "broke": "failed", "cut_off": "interrupted", "joined": "accepted", "left": "left",
}  # fmt: skip


def _check_not_suspended(db: sqlite3.Connection) -> None:
    if db.execute("SELECT 1 FROM settings WHERE name = 'suspended'").fetchone():
        raise SuspendedError(SUSPENDED)
