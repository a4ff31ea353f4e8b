"""`RemoteRequest`: a cell that was filed at an owner, as its analyst follows it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from syft_lab import values
from syft_lab.analyst.result import Released, Result
from syft_lab.cell import CODE_FAILURES, use_from_json
from syft_lab.errors import FailedError, LabError, RefusedError
from syft_lab.printable import printable, printed
from syft_lab.receipt import Receipt
from syft_lab.widgets import cards

if TYPE_CHECKING:
    from syft_lab.analyst.filings import Filings
    from syft_lab.analyst.remote import Rerun

STATES = {
    "filed": "filed; the owner decides", "seen": "seen by the owner, who decides", "partly": "approved by some; others decide",
    "expired": "expired", "approved": "approved; about to run", "running": "running",
    "review": "ran; awaiting release", "released": "released", "denied": "denied", "withheld": "withheld by the owner",
    "failed": "failed", "cancelled": "cancelled", "interrupted": "interrupted", "joined": "accepted: the owner takes part",
    "left": "the partnership was ended",
}  # fmt: skip
OVER = ("released", "denied", "withheld", "failed", "cancelled", "interrupted", "expired", "left")


class RemoteRequest:
    """One's own request at an owner. ``results`` are futures by name; `on_change` hears of every new state."""

    def __init__(self, filings: Filings, owner: str, public: dict[str, Any]) -> None:
        self._filings, self.owner = filings, owner
        self.facts = public
        self.wanted = False  # whether its values are fetched once they are released
        self._futures: dict[str, Future[Released]] = {n: Future() for n in public["cell"]["returns"]}
        self._results = {n: Result(f, n, self) for n, f in self._futures.items()}
        self._listeners: list[Callable[[RemoteRequest], None]] = []
        self._rerun: Rerun | None = None

    @property
    def id(self) -> str:
        """Its id on the wire."""
        return str(self.facts["request"])

    @property
    def number(self) -> int:
        """Its number at the owner."""
        return int(self.facts["number"])

    @property
    def returns(self) -> list[str]:
        """Names of what it returns."""
        return list(self._futures)

    @property
    def results(self) -> dict[str, Result]:
        """A `Result` for each name; asking for them has them fetched once they are released."""
        self._filings.want(self)
        return dict(self._results)

    @property
    def state(self) -> str:
        """From filed, seen, partly, approved, running and review to released, or to one of the other ends: see `STATES`."""
        return str(self.facts["state"])

    @property
    def why(self) -> str:
        """What the owner said, or what went wrong."""
        return str(self.facts["why"])

    @property
    def digest(self) -> str:
        """What the owner approves: code, inputs, data version, outputs, parameters and environment."""
        return str(self.facts["digest"])

    @property
    def follows(self) -> int | None:
        """The number of the request that this one mends."""
        return self.facts["follows"]  # type: ignore[no-any-return]

    @property
    def comments(self) -> list[dict[str, str]]:
        """What was said about it, oldest first: by, time, text."""
        return [dict(c) for c in self.facts["comments"]]

    @property
    def error(self) -> str:
        """Of a failed run: the kind of error and its line, once the owner released them."""
        said = self.facts["error"]
        return f"{said['type']} in line {said['line']}" if said else ""

    @property
    def error_receipt(self) -> Receipt:
        """The owner's signed word for `error`; raises FailedError while nothing was released."""
        if not self.facts["error"]:
            raise FailedError(f"the owner released no error of request {self.number}; ask with request.comment(…)")
        return self._filings.explain(self)

    @property
    def broke(self) -> bool:
        """Whether its code failed on the real data, rather than the run around it."""
        return self.state == "failed" and self.why in CODE_FAILURES

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in OVER

    @property
    def progress(self) -> str:
        """State and age, in words."""
        text = f"request {self.number} at {self.owner}: {STATES.get(self.state, self.state)}"
        given, needed = self.facts["approvals"]
        text += f" ({given} of {needed} approvals)" if needed > 1 and self.state in ("filed", "seen", "partly") else ""
        if self.over and self.facts.get("by"):
            text += f" by {printable(self.facts['by'])}"
        since = self.facts["filed" if self.state in ("filed", "seen", "partly") else "changed"]
        return f"{text} ({printable(self.why)})" if self.why else f"{text}, {_age(since)}"

    def cancel(self) -> None:
        """Take it back, also while it runs; raises UsageError once it is over."""
        self._filings.cancel(self)

    def comment(self, text: str) -> None:
        """Say something to those who decide, also after it is over."""
        self._filings.comment(self, text)

    def rerun(self) -> Rerun:
        """Run the cell here again, on the mock and on harder ones (nulls, one row, none): it may break as it did there."""
        if self._rerun is None:
            self._rerun = self._filings.rerun(self)
        return self._rerun

    def on_change(self, hear: Callable[[RemoteRequest], None]) -> None:
        """Call ``hear`` at every change from now on, in the session's thread."""
        self._listeners.append(hear)

    def update(self, public: dict[str, Any]) -> bool:
        """Take news from the owner; gives whether there are any."""
        if public["entry"] <= self.facts["entry"]:
            return False
        self.facts = public
        if self.over and self.state != "released":
            self.fail(self._error())
        self._tell()
        return True

    def resolve(self, found: dict[str, values.Value], receipt: Receipt) -> None:
        """The released values are here."""
        for name, future in self._futures.items():
            if not future.done():
                future.set_result(Released(found[name].value(), None, receipt))
        self._tell()

    def fail(self, error: LabError) -> None:
        """No value will come."""
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)

    @property
    def settled(self) -> bool:
        """Whether every result is here, or will never be; of a partnership, whether the owner has decided."""
        if not self._futures:
            return self.over or self.state == "joined"
        return all(f.done() for f in self._futures.values())

    def wait(self, timeout: float) -> bool:
        """Wait ``timeout`` seconds at most; gives whether every result is here, or will never be."""
        return not wait(self._futures.values(), timeout).not_done

    def _error(self) -> LabError:
        said = f": {printable(self.why)}" if self.why else ""
        if self.state in ("denied", "withheld"):
            return RefusedError(f"the owner {'denied' if self.state == 'denied' else 'withheld the result of'} request "
                                f"{self.number}{said}")  # fmt: skip
        if self.state == "cancelled":
            return RefusedError(f"request {self.number} was cancelled{said}")
        if self.state == "expired":
            return RefusedError(f"request {self.number} expired{said}")
        return FailedError(f"request {self.number} {self.state}{said}")

    def _tell(self) -> None:
        for hear in list(self._listeners):
            hear(self)

    @printed
    def __repr__(self) -> str:
        returns = f"; returns {', '.join(self.returns)}" if self.returns else ""  # a partnership returns nothing
        return printable(f"<{self.progress}{returns}>")

    def _repr_html_(self) -> str:
        cell = self.facts["cell"]
        reads = ", ".join(f"{u.dataset} v{u.version}" for u in map(use_from_json, cell["use"]))
        pairs = [
            ("state", STATES.get(self.state, self.state)),
            *([("why", self.why)] if self.why else []),
            *([("error", self.error)] if self.error else []),
            *([("follows", f"request {self.follows}")] if self.follows else []),
            *([("reads", reads)] if reads else []),
            *([("returns", ", ".join(cell["returns"]))] if cell["returns"] else []),
            ("reason", cell["reason"] or "none given"),
            ("filed", _age(self.facts["filed"])),
            ("digest", self.digest),
            *[(f"{c['by']}, {_age(c['time'])}", c["text"]) for c in self.comments],
        ]
        return cards.card(f"Request {self.number} at {self.owner}", cards.facts(pairs))


def _age(time: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
