"""The owner's side of requests: `Request`, which decides about one, and `Requests`, the list of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from syft_lab import values
from syft_lab.errors import FailedError, UsageError
from syft_lab.kernel.console import Card
from syft_lab.kernel.desk import OPEN, Desk, Row
from syft_lab.widgets.cards import visible

STATES = {
    "filed": "waits for you", "approved": "approved, about to run", "running": "running", "review": "ran; awaits your release",
    "released": "released", "denied": "denied", "withheld": "withheld", "failed": "failed", "cancelled": "cancelled",
    "interrupted": "interrupted",
}  # fmt: skip
PREVIEW_ROWS, PREVIEW_TEXT, LISTED = 8, 4_000, 200


class Request:
    """Something an owner must decide. It shows what is asked, and what became of it; its state is always the newest."""

    def __init__(self, desk: Desk, request: str) -> None:
        self._desk, self.id = desk, request

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
        """filed, approved, running, review, released, denied, withheld, failed, cancelled or interrupted."""
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
        return [f"{name} v{version}" for name, version in self._desk.cell(self._row).use]

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
        """Let exactly this run, once: ``request.approve(digest=request.digest)``. You see the result before it leaves."""
        self._desk.approve(self.id, digest)
        return self

    def deny(self, reason: str) -> Request:
        """Refuse; the reason reaches the analyst."""
        self._desk.deny(self.id, reason)
        return self

    def release(self) -> Request:
        """Let the result leave, as `result` shows it."""
        self._desk.release(self.id)
        return self

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
            while self.state in ("approved", "running") or (self.state == "filed" and self.mock is None):
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
        """What would leave: names, types, sizes and the first values, as text. Private: show it to the owner only."""
        return [{**v.describe(), "preview": _preview(v)} for v in values.decode(self._desk.blob(self._row)).values()]

    def _card(self) -> Card:
        said = self.facts()
        pairs: list[tuple[str, object]] = [
            ("analyst", said["analyst"]),
            ("reads", ", ".join(said["datasets"])),
            ("returns", ", ".join(said["outputs"])),
            ("reason", said["reason"] or "none given"),
            *([("parameters", ", ".join(f"{k} = {v!r}" for k, v in said["params"].items()))] if said["params"] else []),
            ("code", said["code"].rstrip()),
            ("on the mock", behaviour(said["mock"])),
            ("cost", self.cost),
            ("digest", said["digest"]),
            *([("told", said["why"])] if said["why"] else []),
            ("next", NEXT.get(said["state"], "nothing: it is over")),
        ]
        return Card(f"Request {said['number']}: {said['says']}", pairs)

    def __repr__(self) -> str:
        return repr(self._card())

    def _repr_html_(self) -> str:
        return self._card()._repr_html_()


NEXT = {
    "filed": "request.approve(digest=request.digest), or request.deny(\"…\")",
    "review": "look at request.result and request.log, then request.release() or request.withhold(\"…\")",
    "approved": "request.cancel() stops it", "running": "request.cancel() stops it",
}  # fmt: skip


def behaviour(mock: dict[str, Any] | None) -> str:
    """A run on the mock, in words."""
    if mock is None:
        return "not run yet"
    how = f"fails: {mock['why']}" if mock["why"] else "gives " + ", ".join(map(_shape, mock["outputs"]))
    touched = mock["touched"]
    reached = [f"imports {', '.join(touched['modules'])}"] if touched.get("modules") else []
    reached += [f"tried to open {', '.join(touched['files'][:5])}"] if touched.get("files") else []
    reached += [f"called {', '.join(touched['other'][:8])}"] if touched.get("other") else []
    memory = f"{mock['peak'] >> 20} MiB" if mock["peak"] >> 20 else "under 1 MiB"
    return "; ".join([how, *reached, f"{mock['seconds']:.2g} s", memory])


def _shape(output: dict[str, Any]) -> str:
    size = "×".join(map(str, output["shape"]))
    return f"{output['name']} ({output['kind']}{f' {size}' if size else ''})"


def _preview(value: values.Value) -> str:
    if value.kind in ("series", "table"):
        return str(value.value().head(PREVIEW_ROWS))[:PREVIEW_TEXT]
    import numpy as np

    return np.array2string(np.asarray(value.value()), threshold=40, edgeitems=4, precision=6)[:PREVIEW_TEXT]


def facts(desk: Desk, row: Row) -> dict[str, Any]:
    """What may be shown, and saved, of a request: see `Request.facts`."""
    said = desk.public(row)
    cell = said["cell"]
    return {
        "id": row.request, "number": row.number, "analyst": row.analyst, "digest": row.digest, "state": row.state,
        "says": STATES[row.state], "why": row.why, "filed": said["filed"], "changed": said["changed"], "code": cell["code"],
        "reason": cell["reason"], "datasets": [f"{n} v{v}" for n, v in cell["use"]], "outputs": cell["returns"],
        "params": cell["params"], "mock": desk.noted(row, "mock"), "open": row.state in OPEN,
    }  # fmt: skip


class Requests(Sequence[Request]):
    """``owner.requests``: all requests, the newest first; those that wait for you come before the others."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def _ids(self) -> list[str]:
        rows = self._desk.rows()
        waiting = [r for r in rows if r.state in ("filed", "review")]
        others = [r for r in rows if r.state not in ("filed", "review")]
        return [r.request for r in (*reversed(waiting), *reversed(others))]

    def __len__(self) -> int:
        return len(self._desk.rows())

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        ids = self._ids()
        if isinstance(index, slice):
            return [Request(self._desk, i) for i in ids[index]]
        if not ids:
            raise UsageError("there are no requests yet")
        return Request(self._desk, ids[index])

    def shown(self, over: int) -> tuple[list[dict[str, Any]], int]:
        """The facts of all that are open and of the newest ``over`` others, and how many others there are."""
        rows = self._desk.rows()
        open_now = [r for r in reversed(rows) if r.state in OPEN]
        others = [r for r in reversed(rows) if r.state not in OPEN]
        return [facts(self._desk, r) for r in (*open_now, *others[:over])], len(others)

    def __iter__(self) -> Iterator[Request]:
        return iter(self[:])

    def number(self, number: int | str) -> Request:
        """The request with this number, or id."""
        return Request(self._desk, self._desk.find(number).request)

    def __repr__(self) -> str:
        lines = [f"{r.number:>4}  {r.state:<12} {r.analyst:<16} {', '.join(r.datasets)} → {', '.join(r.outputs)}" for r in self]
        return "\n".join(lines) or "no requests yet"


def manage(requests: Requests, action: dict[str, Any]) -> Any:
    """What a terminal asks for: list, show, approve, deny, release, withhold, cancel; raises UsageError."""
    do = action.get("do")
    if do == "list":
        return requests.shown(LISTED)[0]
    request = requests.number(action.get("request", ""))
    if do == "show":
        return {**request.facts(), "behaviour": behaviour(request.mock),
                "preview": request.preview() if request.state == "review" else []}  # fmt: skip
    acts: dict[str, Callable[[], Request]] = {
        "approve": lambda: request.approve(action.get("digest", "")),
        "deny": lambda: request.deny(action.get("reason", "")),
        "release": request.release,
        "withhold": lambda: request.withhold(action.get("reason", "")),
        "cancel": request.cancel,
    }
    if do not in acts:
        raise UsageError(f"there is no action {ascii(do)[:40]}; there are: list, show, {', '.join(acts)}")
    return acts[do]().facts()
