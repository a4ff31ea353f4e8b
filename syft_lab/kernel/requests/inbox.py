"""The owner's side of requests: `Request`, which decides about one, and `Requests`, the list of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, overload

from syft_lab import values
from syft_lab.errors import FailedError, RefusedError, UsageError
from syft_lab.identity import seconds_of
from syft_lab.kernel.console import Card
from syft_lab.kernel.outputs import small_cells
from syft_lab.kernel.requests import behaviour, cohorts
from syft_lab.kernel.requests.desk import Desk
from syft_lab.kernel.requests.rows import OPEN, UNDECIDED, Row
from syft_lab.kernel.requests.runs import PEOPLE, Runs
from syft_lab.kernel.roles import OWNER, RIGHTS
from syft_lab.printable import printed
from syft_lab.widgets.cards import visible

STATES = {
    "filed": "waits for you", "seen": "waits for you", "partly": "approved by some; waits for others",
    "approved": "approved, about to run", "running": "running", "review": "ran; awaits your release",
    "released": "released", "denied": "denied", "withheld": "withheld", "failed": "failed", "cancelled": "cancelled",
    "interrupted": "interrupted", "expired": "expired", "joined": "accepted: you take part", "left": "you no longer take part",
}  # fmt: skip
WAITING = (*UNDECIDED, "review")
LIVE = (*OPEN, "joined")  # a partnership holds, and can be left
PREVIEW_ROWS, PREVIEW_TEXT, LISTED, PRINTED = 8, 4_000, 200, 60


class Request:
    """Something an owner must decide. It shows what is asked, and what became of it; its state is always the newest."""

    def __init__(self, desk: Desk, runs: Runs, request: str) -> None:
        self._desk, self._runs, self.id = desk, runs, request

    @property
    def _row(self) -> Row:
        return self._desk.row(self.id)

    @property
    def number(self) -> int:
        """Its number at this owner."""
        return self._row.number

    @property
    def analyst(self) -> str:
        """Who asks."""
        return self._row.analyst

    @property
    def digest(self) -> str:
        """What an approval is about: code, inputs, data version, outputs, parameters and environment."""
        return self._row.digest

    @property
    def state(self) -> str:
        """From filed, seen, partly, approved, running and review to released, or to one of the other ends: see `STATES`."""
        return self._row.state

    @property
    def why(self) -> str:
        """What the analyst is told of a denial or a failure."""
        return self._row.why

    @property
    def code(self) -> str:
        """The cell, as it was filed. Print it with care: `show` spells deceiving characters out."""
        return self._desk.cell(self._row).code

    @property
    def reason(self) -> str:
        """Why the analyst asks."""
        return self._desk.cell(self._row).reason

    @property
    def datasets(self) -> list[str]:
        """What it reads."""
        return [
            f"{u.dataset} v{u.version}" + (" (chosen rows)" if u.filter is not None else "")
            for u in self._desk.cell(self._row).use
        ]

    @property
    def template(self) -> str:
        """What this shares with requests that differ in values of parameters and versions of datasets only."""
        return self._row.template

    @property
    def follows(self) -> int | None:
        """The number of the request that this one mends."""
        return self._row.follows

    @property
    def approvers(self) -> list[str]:
        """Who approved it so far; `needed` says how many must."""
        return self._desk.approvers(self._row)

    @property
    def needed(self) -> int:
        """How many different people must approve it."""
        return self._row.needed

    @property
    def decided(self) -> str:
        """Who, or which rule, decided; empty while nobody did."""
        return self._desk.decided(self._row)

    @property
    def comments(self) -> list[dict[str, str]]:
        """What was said about it, oldest first: by, time, text."""
        return self._desk.comments(self._row)

    @property
    def hints(self) -> list[str]:
        """What catches the eye in its code. Hints: code can hide what it does."""
        return list((self._desk.noted(self._row, "earlier") or {}).get("hints", ()))

    @property
    def earlier(self) -> dict[str, Any]:
        """Near-identical earlier requests (``near``), and what changed (``diff``) since number ``against``."""
        return self._desk.noted(self._row, "earlier") or {"against": None, "diff": [], "near": [], "hints": []}

    @property
    def checked(self) -> bool:
        """Whether its runs on mocks and the look at whom it reads are over."""
        return self.mock is not None and self._desk.noted(self._row, "cohorts") is not None

    @property
    def cohorts(self) -> list[str]:
        """Whom it reads, where that is known, and earlier requests that differ by a few people. For you alone; a hint."""
        return cohorts.describe(self._desk.noted(self._row, "cohorts"))

    @property
    def outputs(self) -> list[str]:
        """Names of what it returns."""
        return list(self._desk.cell(self._row).returns)

    @property
    def params(self) -> dict[str, Any]:
        """Values that are part of the request."""
        return dict(self._desk.cell(self._row).params)

    @property
    def cost(self) -> str:
        """What its release costs: no ε, for nothing bounds what an exact value tells."""
        if self._desk.proposes(self._row):
            return "nothing leaves by accepting it: each value that is opened is a request of its own"
        return "exact: no differential privacy, no ε; you look at the result before it leaves"

    @property
    def mock(self) -> dict[str, Any] | None:
        """What a run on the mock in your own sandbox gave and touched; None while it runs. A hint, not a proof."""
        return self._desk.noted(self._row, "mock")

    @property
    def run(self) -> dict[str, Any] | None:
        """Seconds, peak memory, log and error of the run on the data. For you alone."""
        return self._desk.noted(self._row, "run")

    @property
    def log(self) -> str:
        """What the run printed, with its traceback if it failed; control characters are spelled out. For you alone."""
        return visible(str((self.run or {}).get("log", "")).expandtabs())

    @property
    def result(self) -> dict[str, Any]:
        """What would leave, or left: the values by name. Raises UsageError where there is none."""
        return {n: v.value() for n, v in values.decode(self._desk.blob(self._row)).items()}

    def approve(self, digest: str) -> Request:
        """Let exactly this run, once: ``request.approve(digest=request.digest)``. You see the result before it leaves.

        Of a partnership: take part. Of a part of a value that a federation computed: let it go.
        """
        self._desk.approve(self.id, digest)
        return self

    def deny(self, reason: str) -> Request:
        """Refuse; the reason reaches the analyst."""
        self._desk.deny(self.id, reason)
        return self

    def comment(self, text: str) -> Request:
        """Say something to the analyst and to others who decide."""
        self._desk.comment(self.id, text, OWNER)
        return self

    def seen(self) -> Request:
        """Tell the analyst that you have looked at it."""
        self._desk.seen(self.id)
        return self

    def release(self) -> Request:
        """Let the result leave, as `result` shows it."""
        self._desk.release(self.id)
        return self

    def release_error(self) -> Request:
        """Of a failed run, let the kind of error and its line leave (`run` shows them). Counts as an exact release."""
        self._desk.release_error(self.id)
        return self

    def drop_people(self, people: int = PEOPLE) -> str:
        """Run it on the real data without one person, for some people, and say what changed. For your eyes; takes its time."""
        if type(people) is not int or not 1 <= people <= 100:
            raise UsageError("people is how many are left out, one at a time: 1 to 100")
        return behaviour.influence(self._runs.drop_people(self._row, people), "person")

    def replay(self) -> bool:
        """Whether the same code, on the same data with the same seed, gives what it gave: for an audit."""
        return self._runs.replay(self._row)

    def withhold(self, reason: str = "") -> Request:
        """Keep the result back and delete it; the reason reaches the analyst."""
        self._desk.withhold(self.id, reason)
        return self

    def wait(self, timeout: float = 600.0) -> Request:
        """Wait for what you decide with: a run on the mock, or on the data; raises FailedError after ``timeout`` seconds."""
        changed, end = threading.Event(), time.monotonic() + timeout

        def hear(_: Row) -> None:
            changed.set()

        self._desk.on_change.append(hear)
        try:
            while self.state in ("approved", "running") or (self.state in UNDECIDED and not self.checked):
                if time.monotonic() > end:
                    raise FailedError(f"request {self.number} is {self.state} after {timeout:g} s; wait on, or decide")
                changed.wait(0.2)
                changed.clear()
        finally:
            self._desk.on_change.remove(hear)
        return self

    def cancel(self) -> Request:
        """End it, also while it runs."""
        self._desk.cancel(self.id)
        return self

    def facts(self) -> dict[str, Any]:
        """Everything but private data, for a widget or a terminal: no result, no log."""
        return facts(self._desk, self._row)

    def preview(self) -> list[dict[str, Any]]:
        """What would leave: names, types, sizes, first values as text, and small cells. Private: show it to the owner only."""
        found = values.decode(self._desk.blob(self._row)).values()
        return [{**v.describe(), "preview": _preview(v), "small": small_cells(v, cohorts.LEAST)} for v in found]

    def private(self) -> dict[str, Any]:
        """What the owner alone may see of it, as text: cohorts, what one person changes, why a rule held it, the error."""
        run, found = self.run or {}, self._desk.noted(self._row, "dropped")
        error = run.get("error") or {}
        return {"cohorts": self.cohorts, "influence": behaviour.influence(found, "person") if found else "",
                "held": run.get("held", ""), "error": f"{error['type']}, line {error['line']}" if error else ""}  # fmt: skip

    def _card(self) -> Card:
        said = self.facts()
        earlier = said["earlier"]
        near = ", ".join(f"{n['number']} ({n['state']})" for n in earlier["near"])
        pairs: list[tuple[str, object]] = [
            ("analyst", said["analyst"]),
            ("reads", ", ".join(said["datasets"])),
            ("returns", ", ".join(said["outputs"])),
            ("reason", said["reason"] or "none given"),
            ("parameters", ", ".join(f"{k} = {v!r}" for k, v in said["params"].items())),
            ("code", said["code"].rstrip()),
            ("like earlier", near + (f"; changed since {earlier['against']}:" if earlier["diff"] else "")),
            ("", "\n".join(earlier["diff"])),
            ("on the mock", behaviour.describe(said["mock"])),
            ("growth", behaviour.growth(said["mock"])),
            ("influence", said["influence"]),
            ("hints", "\n".join(said["hints"])),
            (
                "whom it reads",
                "request.cohorts says, and request.drop_people(): real data, for your eyes"
                if said["open"] and said["datasets"]
                else "",
            ),
            ("may take", said["limits"]),
            ("approvals", said["approvals"]),
            ("cost", self.cost),
            ("digest", said["digest"]),
            ("comments", "\n".join(f"{c['by']}: {c['text']}" for c in said["comments"])),
            ("told", said["why"]),
            ("next", NEXT.get(said["state"], "nothing: it is over")),
        ]
        return Card(f"Request {said['number']}: {said['says']}", [(k, v) for k, v in pairs if v])

    @printed
    def __repr__(self) -> str:
        return repr(self._card())

    def _repr_html_(self) -> str:
        return self._card()._repr_html_()


_DECIDE = 'request.approve(digest=request.digest), or request.deny("…")'
NEXT = {
    "filed": _DECIDE, "seen": _DECIDE, "partly": f"somebody else decides too: {_DECIDE}",
    "review": "look at request.result and request.log, then request.release() or request.withhold(\"…\")",
    "approved": "request.cancel() stops it", "running": "request.cancel() stops it",
    "joined": "request.cancel() leaves the federation",
    "failed": "look at request.log; request.release_error() lets the kind of error and its line leave",
}  # fmt: skip


def _preview(value: values.Value) -> str:
    if value.kind in ("series", "table"):
        return str(value.value().head(PREVIEW_ROWS))[:PREVIEW_TEXT]
    import numpy as np

    return np.array2string(np.asarray(value.value()), threshold=40, edgeitems=4, precision=6)[:PREVIEW_TEXT]


def facts(desk: Desk, row: Row) -> dict[str, Any]:
    """What may be shown, and saved, of a request: see `Request.facts`."""
    said = desk.public(row)
    cell, limits, mock = said["cell"], said["limits"], desk.noted(row, "mock")
    earlier = desk.noted(row, "earlier") or {"against": None, "diff": [], "near": [], "hints": []}
    approvers = desk.approvers(row)
    return {
        "id": row.request, "number": row.number, "analyst": row.analyst, "digest": row.digest, "state": row.state,
        "says": STATES[row.state], "why": row.why, "filed": said["filed"], "changed": said["changed"], "code": cell["code"],
        "reason": cell["reason"], "datasets": [_reads(u) for u in cell["use"]], "outputs": cell["returns"],
        "params": cell["params"], "mock": mock, "checked": mock is not None and desk.noted(row, "cohorts") is not None,
        "explained": row.explained is not None, "approving": _approving(desk.terms(row)),
        "open": row.state in LIVE, "follows": row.follows, "comments": said["comments"],
        "earlier": {k: v for k, v in earlier.items() if k != "hints"}, "hints": earlier["hints"], "decided": desk.decided(row),
        "approvals": f"{len(approvers)} of {row.needed}" + (f": {', '.join(approvers)}" if approvers else "")
        if row.needed > 1 else "",
        "influence": behaviour.influence((mock or {}).get("dropped")), "growth": behaviour.growth(mock),
        "limits": f"{limits['wall']:g} s, {limits['memory'] >> 20} MiB, {limits['threads']} threads, "
        f"{limits['output'] >> 10} KiB of results",
    }  # fmt: skip


def _approving(terms: Mapping[str, Any]) -> list[str]:
    """What the button that approves says, and what it does."""
    if "partnership" in terms:
        return ["Take part", "your kernel computes with these owners' from now on; what is opened is asked each time"]
    if "federation" in terms:
        return ["Let it go", "your part of this value leaves; with the other owners' parts it is the value"]
    return ["Approve", "let exactly this run; you see the result before it leaves"]


def brief(desk: Desk, row: Row) -> dict[str, Any]:
    """The first line of a request, and ``entry``, which changes when any of its facts do."""
    return {
        "brief": True, "id": row.request, "number": row.number, "analyst": row.analyst, "digest": row.digest,
        "state": row.state,
        "says": STATES[row.state], "reason": desk.terms(row)["cell"]["reason"], "open": row.state in LIVE,
        "entry": f"{row.entry} {desk.has(row, 'mock')} {desk.has(row, 'cohorts')} {desk.has(row, 'dropped')}",
    }  # fmt: skip


def _reads(use: Any) -> str:
    if isinstance(use, list):
        return f"{use[0]} v{use[1]}"
    part = [expression(use["filter"])] if use["filter"] is not None else []
    part += [f"columns {', '.join(use['columns'])}"] if use["columns"] else []
    return f"{use['dataset']} v{use['version']} as {use['name']}, {'; '.join(part)}"


_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|", "xor": "^", "add": "+",
          "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%"}  # fmt: skip


def expression(node: Mapping[str, Any]) -> str:
    """A frame expression as people write it."""
    if "column" in node:
        return str(node["column"])
    if "literal" in node:
        return repr(node["literal"])
    args = [expression(a) for a in node["args"]]
    if node["op"] in _SIGNS and len(args) == 2:
        return f"({args[0]} {_SIGNS[node['op']]} {args[1]})"
    return f"{node['op']}({', '.join(args)})"


class Requests(Sequence[Request]):
    """``owner.requests``: all requests, the newest first; those that wait for you come before the others."""

    def __init__(self, desk: Desk, runs: Runs) -> None:
        self._desk, self._runs = desk, runs

    def _ids(self) -> list[str]:
        rows = self._desk.rows()
        waiting = [r for r in rows if r.state in WAITING]
        others = [r for r in rows if r.state not in WAITING]
        return [r.request for r in (*reversed(waiting), *reversed(others))]

    def __len__(self) -> int:
        return self._desk.count()

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        ids = self._ids()
        if isinstance(index, slice):
            return [Request(self._desk, self._runs, i) for i in ids[index]]
        if not ids:
            raise UsageError("there are no requests yet")
        return Request(self._desk, self._runs, ids[index])

    def shown(self, over: int, full: int | None = None) -> tuple[list[dict[str, Any]], int]:
        """The facts of all that are open and of the ``over`` others that changed last, and how many others there are.

        Beyond the first ``full`` there is `brief` only.
        """
        open_now = self._desk.rows(states=LIVE)
        others = self._desk.latest(over, LIVE)
        rows = [*reversed(open_now), *reversed(others)]
        full = len(rows) if full is None else full
        shown = [facts(self._desk, r) for r in rows[:full]] + [brief(self._desk, r) for r in rows[full:]]
        return shown, self._desk.count() - len(open_now)

    @property
    def expire_after(self) -> timedelta:
        """How long a request waits for a decision; set it as "30d" or "12h"."""
        return self._desk.settings.expiry

    @expire_after.setter
    def expire_after(self, time: str) -> None:
        self._desk.settings.set_expiry(seconds_of(time, "expire_after"))

    def approve(self, digests: Mapping[int, str]) -> dict[int, str]:
        """Approve several, each by its digest: ``{7: digest, 8: digest}``. All digests are checked before any is approved."""
        chosen = {n: self.number(n) for n in digests}
        for number, request in chosen.items():
            if request.digest != digests[number]:
                raise UsageError(f"request {number} has another digest than the one given; nothing was approved")
        return {n: r.approve(digests[n]).state for n, r in chosen.items()}

    def deny(self, numbers: Iterable[int], reason: str) -> dict[int, str]:
        """Deny several for one reason."""
        return {n: r.deny(reason).state for n, r in {n: self.number(n) for n in numbers}.items()}

    def __iter__(self) -> Iterator[Request]:
        return iter(self[:])

    def number(self, number: int | str) -> Request:
        """The request with this number, or id."""
        return Request(self._desk, self._runs, self._desk.find(number).request)

    @printed
    def __repr__(self) -> str:
        lines = [
            f"{r.number:>4}  {r.state:<12} {r.analyst:<16} {', '.join(r.datasets)} → {', '.join(r.outputs)}"
            for r in self[:PRINTED]
        ]
        if len(self) > PRINTED:
            lines.append(f"… and {len(self) - PRINTED} more: owner.requests[{PRINTED}:]")
        return "\n".join(lines) or "no requests yet"


ACTIONS = {
    "list": "read", "show": "read", "seen": "approve", "approve": "approve", "deny": "approve", "comment": "read",
    "preview": OWNER, "release": OWNER, "withhold": OWNER, "cancel": OWNER, "release_error": OWNER, "drop": OWNER,
}  # fmt: skip


def manage(desk: Desk, requests: Requests, action: Mapping[str, str], by: str = OWNER, rights: Iterable[str] = RIGHTS) -> Any:
    """What a terminal, or somebody with rights, does about requests; raises UsageError, or RefusedError without the right."""
    do, needed = action.get("do", ""), ACTIONS.get(action.get("do", ""))
    if needed is None:
        raise UsageError(f"there is no action {ascii(do)[:40]}; there are: {', '.join(ACTIONS)}")
    if by != OWNER and needed not in rights:
        what = "decides about results: only the owner does" if needed == OWNER else f"may not {do} requests"
        raise RefusedError(f"{by} {what}; ask the owner")
    if do == "list":
        return requests.shown(LISTED)[0]
    request = requests.number(action.get("request", ""))
    id, digest, reason = request.id, action.get("digest", ""), action.get("reason", "")
    if do == "show":
        if by == OWNER or "approve" in rights:
            desk.seen(id, by)
        private = {"preview": request.preview() if request.state == "review" else [], "private": request.private()}
        return {**request.facts(), "behaviour": behaviour.describe(request.mock), **(private if by == OWNER else {})}
    acts: dict[str, Callable[[], object]] = {
        "seen": lambda: desk.seen(id, by),
        "approve": lambda: desk.approve(id, digest, by),
        "deny": lambda: desk.deny(id, reason, by),
        "comment": lambda: desk.comment(id, reason, by),
        "preview": lambda: None,
        "release": request.release,
        "withhold": lambda: request.withhold(reason),
        "cancel": request.cancel,
        "release_error": request.release_error,
        "drop": request.drop_people,
    }
    acts[do]()
    return {
        **request.facts(),
        **({"preview": request.preview(), "private": request.private()} if do in ("preview", "drop") else {}),
    }
