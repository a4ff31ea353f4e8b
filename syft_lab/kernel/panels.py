"""The owner's widgets, given what they show and what their buttons do. Made when first asked for: they bring ipywidgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from syft_lab.errors import UsageError
from syft_lab.kernel.requests import behaviour
from syft_lab.kernel.requests.inbox import Request

if TYPE_CHECKING:
    from syft_lab.kernel.owner import Owner

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

    def inbox(self) -> Any:
        """Cards of requests, with their buttons."""
        from syft_lab.widgets.inbox import Inbox, tokens

        owner = self._owner

        def request(command: dict[str, Any]) -> Request:
            return owner.requests.number(str(command.get("id", "")))

        def coloured(one: dict[str, Any]) -> dict[str, Any]:
            code, mock = one.pop("code"), one.pop("mock")
            return {**one, "tokens": tokens(code), "behaviour": behaviour.describe(mock)}

        def look() -> dict[str, Any]:
            shown, over = owner.requests.shown(SHOWN, FULL)
            shown = [one if "brief" in one else coloured(one) for one in shown]
            return {"owner": owner.name, "requests": shown, "over": over}

        def preview(command: dict[str, Any]) -> dict[str, Any]:
            chosen = request(command)
            shown = chosen.preview() if chosen.state in ("review", "released") else []
            return {"values": shown, "log": chosen.log, **chosen.private()}

        def approve_all(command: dict[str, Any]) -> int:
            """Several at once, each by its digest."""
            chosen = command.get("digests")
            if not isinstance(chosen, dict) or not all(isinstance(v, str) for v in chosen.values()):
                raise UsageError("name requests and their digests")
            numbers = {owner.requests.number(str(id)).number: digest for id, digest in chosen.items()}
            return len(owner.requests.approve(numbers))

        return self._get("inbox", lambda: Inbox(look, {
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
            "card": lambda c: coloured(request(c).facts()),
            "explain": lambda c: repr(owner.policy.explain(request(c))),
            "approve_all": approve_all,
            "preview": preview,
        }, lambda: repr(owner.requests)))  # fmt: skip

    def console(self) -> Any:
        """What is hosted, who is there, what happened last."""
        from syft_lab.widgets.console import OwnerConsole

        owner = self._owner

        def look() -> dict[str, Any]:
            card = owner.console.card()
            gauges = [
                {"label": g.label, "cap": g.cap, "spent": g.spent, "reserved": g.reserved, "left": g.left, "note": g.note}
                for g in card.gauges
            ]
            facts = [[k, str(v)] for k, v in card.facts]
            return {"title": card.title, "running": owner.running, "warning": card.warning, "facts": facts, "gauges": gauges,
                    "events": [list(e) for e in card.events]}  # fmt: skip

        verify = {"verify": lambda _: str(owner.audit.verify())}
        return self._get("console", lambda: OwnerConsole(look, verify, lambda: repr(owner.console.card())))

    def gauge(self) -> Any:
        """Dials of budgets."""
        from syft_lab.widgets.budget import BudgetGauge

        owner, empty = self._owner, "no population has a budget yet: owner.publish(…)"
        return self._get("gauge", lambda: BudgetGauge(owner.name, owner.gauges, empty, lambda: repr(owner.budgets)))
