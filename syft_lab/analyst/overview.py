"""What the workbench shows of an analyst's notebook: owners, datasets, requests, budgets, and pointers that are alive.

`Overview.look` never waits for the network: it gives what is known, and has the sessions' own loops ask for news. Everything
in it is public, or the analyst's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

from syft_lab import canonical
from syft_lab.analyst.frame import PointerFrame
from syft_lab.analyst.link import ANSWER_SECONDS
from syft_lab.analyst.magics import sessions_in
from syft_lab.analyst.request import STATES, RemoteRequest
from syft_lab.analyst.result import Accounts
from syft_lab.analyst.series import PointerSeries
from syft_lab.analyst.session import Session
from syft_lab.errors import LabError, UsageError
from syft_lab.printable import printable
from syft_lab.receipt import Head
from syft_lab.widgets.side import shown
from syft_lab.wire import messages as m

NEWS_SECONDS = 10.0
LISTED = 200


class Overview:
    """Looks at one notebook's namespace. ``touch`` is called when there is news; it may be called from any thread."""

    def __init__(
        self, namespace: Callable[[], dict[str, Any]], forget: Callable[[str], None], touch: Callable[[], None]
    ) -> None:
        self._namespace, self._forget, self._touch = namespace, forget, touch
        self._news: weakref.WeakKeyDictionary[Session, _News] = weakref.WeakKeyDictionary()

    def look(self) -> dict[str, Any]:
        """Everything, as plain values."""
        names = dict(self._namespace())
        sessions = [self._session(name, session) for name, session in sessions_in(names).items()]
        return {"sessions": sessions, "pointers": pointers(names)}

    def act(self, command: dict[str, Any]) -> Any:
        """What the buttons do: ``free`` a variable, ``cancel`` a request, ``reconnect``."""
        do, name = command.get("do"), str(command.get("name", ""))
        names = self._namespace()
        if do == "free":
            if name not in {p["name"] for p in pointers(dict(names))}:
                raise UsageError(f"no pointer is called {ascii(name)[:60]}")
            self._forget(name)
            return name
        session = sessions_in(dict(names)).get(name)
        if session is None:
            raise UsageError(f"no connection is called {ascii(name)[:60]}")
        if do == "reconnect":
            session.reconnect()
        else:
            session.request(_number(command)).cancel()
        return name

    def _session(self, name: str, session: Session) -> dict[str, Any]:
        news = self._news.get(session)
        if news is None:
            news = self._news[session] = _News(session, self._touch)
        news.ask()
        card = session._card
        return {
            "name": name, "owner": session.owner, "fingerprint": session.fingerprint, "state": news.state, "why": news.why,
            "latency": news.latency, "isolation": card.get("isolation", "unknown"), "role": card.get("role", ""),
            "analyst": session.analyst, "warning": session.warning,
            "datasets": [shown(d) for d in session._catalogue.values()],
            "gauges": news.gauges, "requests": [_request(r) for r in session._filed.known()[:LISTED]],
        }  # fmt: skip


def _number(command: dict[str, Any]) -> int:
    number = command.get("number")
    if type(number) is not int:
        raise UsageError("which request? Give its number")
    return number


class _News:
    """What one session's owner said last, and when to ask again."""

    def __init__(self, session: Session, touch: Callable[[], None]) -> None:
        self._session, self._touch = weakref.ref(session), touch
        self._due = 0.0
        self._head: Head | None = None  # of the owner's journal, when we asked: each release to us moves it, and the budget
        self._asking = False
        self.latency: float | None = None
        self.gauges: list[dict[str, Any]] = []
        self.state, self.why = "connected", ""
        session._filed.on_change.append(self._changed)

    def _changed(self, request: RemoteRequest) -> None:
        if request.over:
            self._due = 0.0  # a release has changed a budget
        self._touch()

    def ask(self) -> None:
        """Have the session ask for news, if it is time; never waits."""
        session = self._session()
        if session is None or session.closed:
            self.state, self.why = "closed", "connect again with %connect"
            return
        now, head = time.monotonic(), session.head
        if self._asking or (now < self._due and head == self._head):
            return
        self._asking, self._due, self._head = True, now + NEWS_SECONDS, head
        work = self._ask(session)
        try:
            asyncio.run_coroutine_threadsafe(work, session.loop)
        except RuntimeError:  # closed a moment ago
            work.close()
            self._asking = False

    async def _ask(self, session: Session) -> None:
        try:
            start = time.perf_counter()
            await session.asking(m.Ping(), m.Pong, ANSWER_SECONDS)
            self.latency = round((time.perf_counter() - start) * 1000, 1)
            accounts = await session.asking(m.Account(), m.Accounts, ANSWER_SECONDS)
            found = Accounts(session.owner, canonical.loads(accounts.accounts), session._next_epsilon).gauges
            self.gauges = [{"label": g.label, "cap": g.cap, "spent": g.spent, "reserved": g.reserved, "left": g.left,
                            "next": g.next, "note": g.note} for g, _ in found]  # fmt: skip
            await session.renew()
            self.state, self.why = "connected", ""
        except LabError as error:
            self.state, self.why, self.latency = "lost", str(error), None
        finally:
            self._asking = False
            self._touch()


def _request(request: RemoteRequest) -> dict[str, Any]:
    cell = request.facts["cell"]
    return {"number": request.number, "state": request.state, "says": STATES.get(request.state, request.state),
            "why": request.why, "error": request.error, "reason": cell["reason"], "returns": request.returns,
            "over": request.over, "filed": request.facts["filed"], "comments": len(request.comments)}  # fmt: skip


def pointers(names: dict[str, Any]) -> list[dict[str, Any]]:
    """The pointers and plans that variables of a notebook hold: name, kind, owner, shape, label, size in bytes."""
    found = []
    torch_kinds = _torch_kinds()
    for name, value in names.items():
        if name.startswith("_"):
            continue
        facts: dict[str, Any] | None = None
        with contextlib.suppress(LabError, AttributeError):  # its session is closed
            facts = _pointer(value, torch_kinds)
        if facts is not None:
            found.append({"name": name, **facts, "about": printable(facts["about"])})
    return found


def _pointer(value: Any, torch_kinds: tuple[Any, ...]) -> dict[str, Any] | None:
    if isinstance(value, PointerFrame):
        chosen, source = "chosen rows" if value._chosen is not None else "all rows", value._source
        about = f"{source.name} v{source.version}, {chosen}, {len(value._names)} columns"
        return {"kind": "table", "owner": source.session.owner, "label": "private", "bytes": None, "about": about}
    if isinstance(value, PointerSeries):
        owner = value._frame._source.session.owner
        return {"kind": "column", "owner": owner, "label": "private", "bytes": None, "about": value.name}
    if torch_kinds and isinstance(value, torch_kinds[0]):
        shape = "×".join(map(str, value.shape)) or "one number"
        about = f"{str(value.dtype).removeprefix('torch.')} {shape}, {value.state}"
        size, label = value.numel() * value.element_size(), value._spec.label  # .label may record
        return {"kind": "tensor", "owner": value._session.owner, "label": str(label), "bytes": size, "about": about}
    if torch_kinds and isinstance(value, torch_kinds[1]):
        return {"kind": "plan", "owner": "", "label": "", "bytes": None, "about": _about_plan(value)}
    return None


def _torch_kinds() -> tuple[Any, ...]:
    """Pointer tensors and plans, once somebody has imported what makes them; torch is not imported for this."""
    pointer, capture = sys.modules.get("syft_lab.analyst.pointer"), sys.modules.get("syft_lab.analyst.capture")
    if pointer is None or capture is None:
        return ()
    return pointer.PointerTensor, (capture.Plan, capture.Captured)


def _about_plan(plan: Any) -> str:
    found = getattr(plan, "plan", plan)
    return "not recorded yet" if found is None else f"{len(found.nodes)} operations, {found.digest[7:19]}"
