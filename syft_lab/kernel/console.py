"""What the owner's notebook shows: cards, and the live console that follows the service from its own thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from syft_lab.printable import printable, printed
from syft_lab.widgets import cards

RECENT, KEPT = 8, 100


@dataclass(frozen=True)
class Card:
    """A titled list of facts, with gauges; shows itself as text or HTML."""

    title: str
    facts: Sequence[tuple[str, object]]
    gauges: Sequence[cards.Gauge] = field(default_factory=tuple)
    events: Sequence[tuple[str, str]] = field(default_factory=tuple)
    warning: str = ""
    qr: str = ""

    @printed
    def __repr__(self) -> str:
        width = max((len(k) for k, _ in self.facts), default=0)
        lines = [self.title, *([f"  {self.warning}"] if self.warning else [])]
        indent = "\n" + " " * (width + 4)
        lines += [f"  {printable(k):<{width}}  {cards.visible(v).replace(chr(10), indent)}" for k, v in self.facts]
        lines += [f"  {g.text()}" for g in self.gauges]
        lines += [f"  {time}  {printable(text)}" for time, text in self.events]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [cards.note(self.warning, warn=True)] if self.warning else []
        parts += [cards.facts(self.facts)] if self.facts else []
        parts += [g.html() for g in self.gauges]
        parts += [cards.facts(self.events)] if self.events else []
        parts += [_qr(self.qr)] if self.qr else []
        return cards.card(self.title, *parts)


class Console:
    """The owner's live display. `say` may be called from any thread; the display, if there is one, follows."""

    def __init__(self, summary: Callable[[], Card], panel: Callable[[], Any]) -> None:
        self._summary, self._panel = summary, panel
        self._events: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self.on_change: list[Callable[[], None]] = []
        self.on_event: Callable[[str], None] | None = None

    def say(self, text: str) -> None:
        """Note an event: words about what happened, never a value."""
        with self._lock:
            self._events.append((datetime.now().strftime("%H:%M:%S"), text))
        if self.on_event is not None:
            self.on_event(text)
        self.refresh()

    def card(self) -> Card:
        """The summary with the latest events."""
        found = self._summary()
        return Card(found.title, found.facts, found.gauges, self.events[-RECENT:], found.warning)

    @property
    def events(self) -> tuple[tuple[str, str], ...]:
        """What was said last, oldest first: time and words."""
        with self._lock:
            return tuple(self._events)

    def show(self) -> None:
        """Display the console in this cell; the widget stays up to date from here on."""
        from IPython.display import display

        display(self._panel())

    def refresh(self) -> None:
        """Bring the display up to date soon; a burst of events is shown at once, and holds up no answer."""
        for hear in list(self.on_change):
            hear()


def _qr(text: str) -> str:
    """The owner's fingerprint as a QR code, to compare by camera; nothing secret is in it. Needs the extra ``qr``."""
    try:
        import segno
    except ImportError:
        return ""
    code: str = segno.make(text, error="m").svg_inline(scale=3, dark="#000", light="#fff")
    return f'<div title="fingerprint">{code}</div>'
