"""The line between the workbench in JupyterLab and a kernel: whole views out, commands in, over one comm a page.

A page opens a comm to `TARGET` and says which views it shows, again every half minute; a page that is gone says nothing, and is
forgotten. A view is one dictionary, sent whole when it changed; many changes at once are sent once. Nothing is computed
that no page shows. A connection that breaks takes along what was under way: views are numbered as they are sent, a page
says which it ``has``, and is sent those that it missed. Commands are ``{"n", "view", "do", …}``; the reply,
``{"reply": n, "ok": …}``, or one clear line. What a comm carries is in no notebook: views may hold what only the person at
this page may see.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from syft_lab.errors import LabError, UsageError
from syft_lab.widgets import route

TARGET = "syft_lab"
VERSION = 1
MOST_VIEWS = 20
REFRESH_SECONDS = 0.05  # a burst of changes is sent at once
POLL_SECONDS = 1.0  # how late a change is seen that nobody tells of
GONE_SECONDS = 180.0  # a page in the background says something once a minute

log = logging.getLogger("syft_lab.side")
Command = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class View:
    """What a page shows under one name, and what its buttons do."""

    look: Callable[[], dict[str, Any]]
    commands: Mapping[str, Command] = field(default_factory=dict)


def shown(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows of a dataset's public facts: the same for its owner and for analysts."""
    columns = [{"name": c["name"], "kind": c["kind"], "bounds": c.get("bounds"), "categories": c.get("categories")}
               for c in dataset["schema"]["columns"]]  # fmt: skip
    keys = ("name", "version", "population", "description", "tags", "privacy_unit", "rows")
    return {**{k: dataset[k] for k in keys}, "columns": columns, "tensor": dataset.get("tensor")}


@dataclass
class _Page:
    comm: Any
    heard: float
    shown: dict[str, tuple[int, str]] = field(default_factory=dict)  # view → what it was sent last, and which sending it was


class Side:
    """Keeps the pages of one kernel up to date. ``views`` gives what there is now, by name; it may change with time."""

    def __init__(self, views: Callable[[], Mapping[str, View]]) -> None:
        self._views = views
        self._pages: dict[str, _Page] = {}
        self._lock = threading.Lock()
        self._turn = 0
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    def install(self, manager: Any) -> None:
        """Answer pages from now on; those that are open already are told so."""
        route.targets.add(TARGET)
        manager.register_target(TARGET, self._opened)
        from comm import create_comm

        create_comm(target_name=TARGET, data={"version": VERSION})  # pages open their own once they hear of it

    def touch(self) -> None:
        """Something changed."""
        self._due.set()

    def _opened(self, comm: Any, message: Any) -> None:
        page = _Page(comm, time.monotonic())
        with self._lock:
            self._pages[comm.comm_id] = page
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="syft-side", daemon=True)
                self._thread.start()
        route.mine.add(comm.comm_id)
        comm.on_msg(lambda said: self._heard(page, said["content"]["data"]))
        comm.on_close(lambda _: self._closed(comm.comm_id))
        comm.send({"version": VERSION})

    def _closed(self, comm_id: str) -> None:
        route.mine.discard(comm_id)
        with self._lock:
            self._pages.pop(comm_id, None)

    def _heard(self, page: _Page, said: Any) -> None:
        page.heard = time.monotonic()
        number = said.get("n") if isinstance(said, dict) else None
        try:
            page.comm.send({"reply": number, "ok": self._act(page, said)})
        except LabError as error:
            page.comm.send({"reply": number, "error": str(error)})
        except Exception as fault:  # its text might hold anything
            page.comm.send(
                {"reply": number, "error": f"this met a fault of ours ({type(fault).__name__}); look at the kernel's log"}
            )

    def _act(self, page: _Page, said: Any) -> Any:
        do, view = (said.get("do"), said.get("view")) if isinstance(said, dict) else (None, None)
        if do == "watch":
            return self._watch(page, said.get("views"), said.get("has"))
        found = self._views().get(view) if isinstance(view, str) else None
        commands = found.commands if found is not None else {}
        if not isinstance(do, str) or do not in commands:
            raise UsageError(f"there is no command {ascii(do)[:40]} in {ascii(view)[:40]}")
        try:
            return commands[do](said)
        finally:
            self.touch()

    def _watch(self, page: _Page, names: Any, has: Any) -> int:
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise UsageError("name the views to watch")
        if not isinstance(has, dict):  # it has what it was sent, as far as it can tell
            has = {n: turn for n, (turn, _) in page.shown.items()}
        with self._lock:  # one that is not there yet may come
            sent = {n: page.shown.get(n, _NOTHING) for n in names[:MOST_VIEWS]}
            page.shown = {n: last if has.get(n, 0) == last[0] else _NOTHING for n, last in sent.items()}
        self.touch()
        return VERSION

    def _follow(self) -> None:
        fault = ""
        while True:
            self._due.wait(POLL_SECONDS if self._watched() else None)
            self._due.clear()
            try:
                self.refresh()
                fault = ""
            except Exception as found:  # its text might hold anything; the next look tries again
                if fault != type(found).__name__:  # once, not each second
                    log.error("pages could not be told what changed (%s)", type(found).__name__)
                fault = type(found).__name__
            time.sleep(REFRESH_SECONDS)

    def _watched(self) -> set[str]:
        late = time.monotonic() - GONE_SECONDS
        with self._lock:
            gone = [k for k, p in self._pages.items() if p.heard < late]
            pages = [self._pages.pop(k) for k in gone]
            found = {n for p in self._pages.values() for n in p.shown}
        for page in pages:
            route.mine.discard(page.comm.comm_id)
            page.comm.close()
        return found

    def refresh(self) -> None:
        """Send what changed to the pages that show it."""
        views = self._views()
        texts = {name: _text(views[name]) for name in self._watched() if name in views}
        with self._lock:
            pages = [(p.comm, p.shown) for p in self._pages.values()]
        for comm, shown in pages:
            for name in [n for n, (_, text) in shown.items() if n in texts and text != texts[n]]:
                self._turn += 1
                comm.send({"view": name, "turn": self._turn, "state": json.loads(texts[name])})
                shown[name] = (self._turn, texts[name])


_NOTHING = (0, "")  # of a view that was not sent yet


def _text(view: View) -> str:
    """A view as JSON; a fault of ours is shown in its place, without its text."""
    try:
        return json.dumps(view.look(), default=str, sort_keys=True)
    except LabError as error:
        return json.dumps({"fault": str(error)})
    except Exception as fault:
        return json.dumps({"fault": f"this met a fault of ours ({type(fault).__name__})"})
