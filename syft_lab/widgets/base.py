"""What our widgets share: one synced dictionary that is shown, commands that come back, and a thread that keeps it live.

A widget is given plain callables and knows nothing of owners or analysts. ``view`` is all that the page is told, and all
that a saved notebook keeps, so nothing private is ever in it; a private preview travels as the reply to a command, lives in
the page, and is gone with it. Commands are ``{"do": …}``; the reply, ``{"reply": n, "ok": …}``, or one clear line.
"""

from __future__ import annotations

import contextlib
import html
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from syft_lab.errors import LabError, UsageError
from syft_lab.printable import printed
from syft_lab.widgets import cards, route

HERE = Path(__file__).parent
Command = Callable[[dict[str, Any]], Any]
REFRESH_SECONDS = 0.05


def assets(name: str) -> dict[str, str]:
    """Class attributes with the script and style of a widget: the shared part, then its own."""
    script = (HERE / "base.js").read_text() + (HERE / f"{name}.js").read_text()
    return {"_esm": script, "_css": (HERE / "base.css").read_text()}


class Panel(anywidget.AnyWidget):
    """Base of our widgets. ``look`` gives the view; ``commands`` answer what is clicked; ``text`` is shown without a page."""

    view = traitlets.Dict().tag(sync=True)

    def __init__(
        self, look: Callable[[], dict[str, Any]], commands: Mapping[str, Command] | None = None, text: Callable[[], str] = str
    ) -> None:
        super().__init__(view=look())
        self._look, self._commands, self._text = look, dict(commands or {}), text
        self._changing = threading.Lock()
        self.on_msg(_heard)
        if self.comm is not None:
            route.mine.add(self.comm.comm_id)

    def refresh(self) -> None:
        """Show what is true now; may be called from any thread."""
        with self._changing:
            self.view = self._look()

    def act(self, command: Any) -> Any:
        """Do what a command says; raises an error of the tree."""
        do = command.get("do") if isinstance(command, dict) else None
        if do not in self._commands:
            raise UsageError(f"there is no command {ascii(do)[:40]}")
        return self._commands[do](command)

    @printed
    def __repr__(self) -> str:
        return self._text()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Beside the live widget: text for terminals, and HTML for notebooks that are read without a kernel."""
        found = super()._repr_mimebundle_(**options)
        data, metadata = found if isinstance(found, tuple) else (found, {})
        if data is None:
            return found
        text = cards.visible(self._text())
        return {**data, "text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}, metadata


def _heard(panel: Panel, content: Any, buffers: Any) -> None:
    number = content.get("n") if isinstance(content, dict) else None
    try:
        panel.send({"reply": number, "ok": panel.act(content)})
    except LabError as error:
        panel.send({"reply": number, "error": str(error)})
    except Exception as fault:  # its text might hold anything
        panel.send({"reply": number, "error": f"this met a fault of ours ({type(fault).__name__}); look at the kernel's log"})


class Live:
    """Refreshes panels soon after `touch`, in a thread of its own: a burst of changes is shown at once."""

    def __init__(self) -> None:
        self._panels: weakref.WeakSet[Any] = weakref.WeakSet()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        self._ending = False

    def add(self, panel: Panel) -> Panel:
        """Keep a panel up to date for as long as somebody holds it."""
        self._panels.add(panel)
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="syft-widgets", daemon=True)
            self._thread.start()
        return panel

    def touch(self) -> None:
        """Something changed."""
        self._due.set()

    def stop(self) -> None:
        """Show what is true now, and follow no longer."""
        self._ending = True
        self._due.set()

    def _follow(self) -> None:
        while not self._ending:
            self._due.wait()
            self._due.clear()
            for panel in list(self._panels):
                with contextlib.suppress(Exception):  # a page that is gone; the next change tries again
                    panel.refresh()
            time.sleep(REFRESH_SECONDS)
