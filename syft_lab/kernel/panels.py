"""What the owner sees, and what the buttons do: for widgets in cells, and for the workbench around the notebooks.

Widgets are made when first asked for: they bring ipywidgets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from syft_lab.budget.accountant import MICRO
from syft_lab.errors import UsageError
from syft_lab.kernel.requests import behaviour
from syft_lab.kernel.requests.inbox import WAITING, Request
from syft_lab.kernel.requests.rows import UNDECIDED
from syft_lab.widgets.cards import Gauge, exact_releases
from syft_lab.widgets.side import Command, View, shown

if TYPE_CHECKING:
    from syft_lab.kernel.owner import Owner

HISTORY = 200  # questions in the plot of what was spent
SHOWN, FULL = 50, 10  # cards; the page asks for others when they come into view


class Panels:
    """One live copy of each widget an owner; showing it twice shows the same."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._made: dict[str, Any] = {}
        self._live: Any = None

    def touch(self) -> None:
        """Something changed: those that are shown look again."""
        if self._live is not None:
            self._live.touch()

    def stop(self) -> None:
        """The owner has stopped: they show that, and change no more."""
        if self._live is not None:
            self._live.stop()

    def _get(self, name: str, make: Callable[[], Any]) -> Any:
        from syft_lab.widgets.base import Live

        if self._live is None:
            self._live = Live()
        if name not in self._made:
            self._made[name] = self._live.add(make())
        return self._made[name]

    # What is shown, and what the buttons do: the same for widgets in cells and for the workbench around the notebooks

    def views(self) -> dict[str, View]:
        """The views of the workbench: ``owner`` for its side panel, ``inbox`` at full width, ``history`` of the budgets."""
        return {
            "owner": View(self._look_owner, self._inbox_commands | {"verify": lambda _: str(self._owner.audit.verify())}),
            "inbox": View(self._look_inbox, self._inbox_commands),
            "history": View(lambda: {"owner": self._owner.name, "lines": _spending(self._owner)}, {"plotly": _plotly}),
        }

    def inbox(self) -> Any:
        """Cards of requests, with their buttons."""
        from syft_lab.widgets.inbox import Inbox

        return self._get("inbox", lambda: Inbox(self._look_inbox, self._inbox_commands, lambda: repr(self._owner.requests)))

    def console(self) -> Any:
        """What is hosted, who is there, what happened last."""
        from syft_lab.widgets.console import OwnerConsole

        owner = self._owner

        def look() -> dict[str, Any]:
            card = owner.console.card()
            facts = [[k, str(v)] for k, v in card.facts]
            return {"title": card.title, "running": owner.running, "warning": card.warning, "facts": facts,
                    "gauges": [_gauge(g) for g in card.gauges], "events": [list(e) for e in card.events]}  # fmt: skip

        verify = {"verify": lambda _: str(owner.audit.verify())}
        return self._get("console", lambda: OwnerConsole(look, verify, lambda: repr(owner.console.card())))

    def gauge(self) -> Any:
        """Dials of budgets."""
        from syft_lab.widgets.budget import BudgetGauge

        owner, empty = self._owner, "no population has a budget yet: owner.publish(…)"
        return self._get("gauge", lambda: BudgetGauge(owner.name, owner.gauges, empty, lambda: repr(owner.budgets)))

    def _look_owner(self) -> dict[str, Any]:
        owner = self._owner
        if not owner.running:
            return {"name": owner.name, "running": False}
        found, _ = owner.requests.shown(0, 0)
        undecided = [r for r in found if r["state"] in UNDECIDED]  # there may be hundreds; of others, as many as run
        others = [r for r in found if r["state"] not in (*UNDECIDED, "joined")]
        return {
            "name": owner.name, "running": True, "address": owner.address, "fingerprint": owner.keys.public.fingerprint,
            "isolation": owner.isolation, "device": owner.device, "warning": owner.console.card().warning,
            "datasets": _hosted(owner), "analysts": _present(owner), "requests": others + undecided[:SHOWN],
            "waiting": sum(1 for r in found if r["state"] in WAITING),
            "gauges": [_gauge(g) | {"note": exact_releases(exact)} for g, exact in owner.gauges()],
            "events": [list(e) for e in owner.console.events],
        }  # fmt: skip

    def _look_inbox(self) -> dict[str, Any]:
        from syft_lab.widgets.inbox import tokens

        found, over = self._owner.requests.shown(SHOWN, FULL)
        found = [one if "brief" in one else _coloured(one, tokens) for one in found]
        return {"owner": self._owner.name, "requests": found, "over": over}

    @cached_property
    def _inbox_commands(self) -> dict[str, Command]:
        from syft_lab.widgets.inbox import tokens

        owner = self._owner

        def request(command: dict[str, Any]) -> Request:
            return owner.requests.number(str(command.get("id", "")))

        def preview(command: dict[str, Any]) -> dict[str, Any]:
            chosen = request(command)
            values = chosen.preview() if chosen.state in ("review", "released") else []
            return {"values": values, "log": chosen.log, **chosen.private()}

        def approve_all(command: dict[str, Any]) -> int:
            """Several at once, each by its digest."""
            chosen = command.get("digests")
            if not isinstance(chosen, dict) or not all(isinstance(v, str) for v in chosen.values()):
                raise UsageError("name requests and their digests")
            numbers = {owner.requests.number(str(id)).number: digest for id, digest in chosen.items()}
            return len(owner.requests.approve(numbers))

        return {
            "approve": lambda c: request(c).approve(str(c.get("digest", ""))).number,
            "deny": lambda c: request(c).deny(str(c.get("reason", ""))).number,
            "release": lambda c: request(c).release().number,
            "withhold": lambda c: request(c).withhold(str(c.get("reason", ""))).number,
            "cancel": lambda c: request(c).cancel().number,
            "comment": lambda c: request(c).comment(str(c.get("text", ""))).number,
            "seen": lambda c: request(c).seen().number,
            "release_error": lambda c: request(c).release_error().number,
            "drop": lambda c: request(c).drop_people(),
            "private": lambda c: request(c).private(),
            "card": lambda c: _coloured(request(c).facts(), tokens),
            "source": lambda c: _source(owner, request(c)),
            "explain": lambda c: repr(owner.policy.explain(request(c))),
            "approve_all": approve_all,
            "preview": preview,
        }


def _coloured(one: dict[str, Any], tokens: Callable[[str], list[tuple[str, str]]]) -> dict[str, Any]:
    code, mock = one.pop("code"), one.pop("mock")
    return {**one, "tokens": tokens(code), "behaviour": behaviour.describe(mock)}


def _source(owner: Owner, request: Request) -> dict[str, Any]:
    """The code of a request, and that of the one it is compared with."""
    against = request.earlier["against"]
    before = "" if against is None else owner.requests.number(int(against)).code
    return {"code": request.code, "against": against, "before": before}


def _hosted(owner: Owner) -> list[dict[str, Any]]:
    """The datasets, as their analysts see them; what is in them is not looked at."""
    caps = {p: owner._ledger.population(p).cap.epsilon / MICRO for p in owner._ledger.populations()}
    found = []
    for dataset in owner._catalogue.live():
        found.append(shown(dataset.public()) | {"cap": caps.get(dataset.population)})
    return found


def _present(owner: Owner) -> list[dict[str, Any]]:
    """Who may ask, and when they did so last."""
    heard = owner._service.heard
    return [{"name": a.name, "role": a.role, "datasets": list(a.datasets), "fingerprint": a.keys.fingerprint,
             "heard": heard.get(a.keys.curve)} for a in owner._registry.analysts]  # fmt: skip


def _spending(owner: Owner) -> list[dict[str, Any]]:
    """What was spent when, by population: running sums over the last questions, in ε."""
    rows = owner._journal.read("SELECT entry, population, analyst, epsilon FROM queries ORDER BY entry DESC LIMIT ?", HISTORY)
    sums = {p: owner._ledger.population(p).spent.epsilon for p in owner._ledger.populations()}
    lines: dict[str, list[tuple[str, float, str, float]]] = {}
    for entry, population, analyst, epsilon in rows:  # backwards from what is spent now
        time = owner._journal.entry(entry).time
        lines.setdefault(population, []).append((time, sums.get(population, 0) / MICRO, analyst, epsilon / MICRO))
        sums[population] = sums.get(population, 0) - epsilon
    caps = {p: owner._ledger.population(p).cap.epsilon / MICRO for p in lines}
    return [{"population": p, "cap": caps[p], "points": line[::-1]} for p, line in sorted(lines.items())]


def _plotly(command: dict[str, Any]) -> str:
    from syft_lab.widgets.budget import plotly

    return plotly(command)


def _gauge(gauge: Gauge) -> dict[str, Any]:
    return {k: getattr(gauge, k) for k in ("label", "cap", "spent", "reserved", "left", "note")}
