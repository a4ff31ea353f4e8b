"""Cells that one analyst filed at one owner: filed once, followed in one long poll, their results fetched when wanted."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any

from syft_lab import canonical, values
from syft_lab.analyst.link import ANSWER_SECONDS, PATIENCE_SECONDS, QUESTION_SECONDS, Link, json_of
from syft_lab.analyst.remote import Rerun
from syft_lab.analyst.request import RemoteRequest
from syft_lab.cell import Cell, check, parse
from syft_lab.errors import (
    BusyError,
    ConnectionLost,
    KeyMismatchError,
    LabError,
    UnreachableError,
    VerificationError,
    WireError,
)
from syft_lab.receipt import LIMIT, Head, Receipt
from syft_lab.wire import messages as m

WATCH_MS = 15_000
RETRY_SECONDS = (0.2, 5.0)
MALFORMED = "what the owner says of a request is malformed; tell the owner"
Collected = tuple[dict[str, values.Value], Receipt]
CLOSED = "the session was closed; connect again: the request goes on, and %requests finds it"


class Filings:
    """The requests of a session. What it awaits runs on the link's loop."""

    def __init__(self, link: Link, rerun: Callable[[Cell], Rerun]) -> None:
        self._link, self._rerun = link, rerun
        self._known: dict[str, RemoteRequest] = {}
        self._seen = -1
        self._following: asyncio.Task[None] | None = None
        self.on_change: list[Callable[[RemoteRequest], None]] = []  # called in the link's thread

    def known(self) -> list[RemoteRequest]:
        """Those that are known here, newest first; never waits."""
        found = list(self._known.values())  # a copy: the link goes on
        found.sort(key=lambda r: -r.number)
        return found

    async def renew(self, after: int | None = None) -> None:
        """Ask what is new, or what changed ``after`` an entry of the owner's journal. On the link's loop."""
        watch = m.Watch(self._seen if after is None else after, 0)
        self._hear(await self._link.looking(watch, m.Requests, ANSWER_SECONDS))
        self._follow()

    def all(self) -> list[RemoteRequest]:
        """All requests that the owner lists, oldest first."""
        self._link.check_open()

        async def work() -> list[RemoteRequest]:
            await self.renew(-1)
            return sorted(self._known.values(), key=lambda r: r.number)

        return self._link.run(work(), ANSWER_SECONDS + PATIENCE_SECONDS)

    def file(self, cell: Cell, follows: int = 0) -> RemoteRequest:
        """File a cell; gives its request. ``follows``: the number of the request that it mends."""
        self._link.check_open()
        check(cell)
        message = m.File(secrets.token_hex(16), canonical.dumps(cell.to_json()), follows)

        async def work() -> RemoteRequest:
            reply, _ = await self._link.persistently(message, m.Filed)
            found = self._meet(canonical.loads(reply.request))
            if canonical.dumps(found.facts["cell"]) != message.terms:
                raise VerificationError("the owner filed another cell than this one; tell the owner")
            found.wanted = True
            self._follow()
            return found

        return self._link.run(work(), PATIENCE_SECONDS + QUESTION_SECONDS)

    def adopt(self, public: dict[str, Any]) -> RemoteRequest:
        """A request that the owner filed for us: of a value that it holds."""

        async def work() -> RemoteRequest:
            found = self._meet(public)
            found.wanted = True
            self._follow()
            return found

        return self._link.run(work(), ANSWER_SECONDS)

    def cancel(self, request: RemoteRequest) -> None:
        """Take a request back; raises UsageError once it is over."""

        async def work() -> None:
            reply = await self._link.looking(m.Cancel(request.id), m.Filed, ANSWER_SECONDS)
            self._meet(canonical.loads(reply.request))

        self._link.check_open()
        self._link.run(work(), ANSWER_SECONDS + PATIENCE_SECONDS)

    def comment(self, request: RemoteRequest, text: str) -> None:
        """Say something about a request, to those who decide."""

        async def work() -> None:
            reply = await self._link.looking(m.Comment(request.id, text), m.Filed, ANSWER_SECONDS)
            self._meet(canonical.loads(reply.request))

        self._link.check_open()
        self._link.run(work(), ANSWER_SECONDS + PATIENCE_SECONDS)

    def explain(self, request: RemoteRequest) -> Receipt:
        """The receipt for the kind of error that the owner released of a failed run."""
        self._link.check_open()

        async def work() -> Receipt:
            reply, sent = await self._link.persistently(m.Collect(request.id, 0), m.Collected)
            receipt, said = self._judged(request, reply, sent, "explained")
            if said["error"] != request.facts["error"]:
                raise VerificationError("the receipt is about another error than the one shown; tell the owner")
            self._link.took(receipt)
            return receipt

        return self._link.run(work(), PATIENCE_SECONDS + ANSWER_SECONDS)

    def rerun(self, request: RemoteRequest) -> Rerun:
        """Run a cell here again: see `RemoteRequest.rerun`."""
        return self._rerun(parse(canonical.dumps(request.facts["cell"])))

    def want(self, request: RemoteRequest) -> None:
        """Somebody asks for the results of a request: fetch them when they are released. From any thread."""

        async def work() -> None:
            request.wanted = True
            if self._following is not None and request.state == "released":
                self._following.cancel()  # it may be in the middle of a long poll
            self._follow()

        if not request.wanted:
            self._link.check_open()
            self._link.run(work(), ANSWER_SECONDS)

    def end(self) -> None:
        """The session is closed: what is open will not come through it."""
        if self._following is not None:
            self._following.cancel()
        for request in self._known.values():
            request.fail(ConnectionLost(CLOSED))

    def _meet(self, public: dict[str, Any]) -> RemoteRequest:
        """The request that these facts are about, brought up to date."""
        try:
            found = self._known.get(public["request"])
            if found is None:
                found = self._known[public["request"]] = RemoteRequest(self, self._link.owner, {**public, "entry": -1})
            news = found.update(public)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise LabError(MALFORMED) from None
        if news:
            for hear in list(self.on_change):
                hear(found)
        return found

    def _hear(self, reply: m.Requests) -> None:
        said = json_of(reply)
        for public in said["requests"]:
            self._meet(public)
        self._seen = max(self._seen, said["at"])

    def _follow(self) -> None:
        """Keep following what is open, in one long poll for all of it."""
        if self._following is None or self._following.done() or self._following.cancelling():
            self._following = asyncio.get_running_loop().create_task(self._news())

    async def _news(self) -> None:
        pause, well = RETRY_SECONDS[0], time.monotonic()
        while True:
            try:
                for request in [r for r in self._known.values() if r.wanted and r.state == "released" and not r.settled]:
                    await self._collect(request)
                if all(r.settled or r.state == "released" for r in self._known.values()):
                    return
                watch = m.Watch(self._seen, WATCH_MS)
                self._hear(await self._link.asking(watch, m.Requests, WATCH_MS / 1000 + ANSWER_SECONDS))
                pause, well = RETRY_SECONDS[0], time.monotonic()
            except Exception as fault:
                # The owner restarts, or this machine slept: wait on. An address that answers with another key may be a
                # socket that is just closing, so that is believed only after a while. Revoked, or a fault: it is over.
                patient = isinstance(fault, KeyMismatchError) and time.monotonic() - well < PATIENCE_SECONDS
                if patient or isinstance(fault, ConnectionLost | UnreachableError | BusyError):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, RETRY_SECONDS[1])
                    continue
                error = fault if isinstance(fault, LabError) else LabError(MALFORMED)
                for request in self._known.values():
                    request.fail(error)
                return

    async def _collect(self, request: RemoteRequest) -> None:
        """Fetch released values, and check them and their receipt against what was filed."""
        reply, sent = await self._link.persistently(m.Collect(request.id, 0), m.Collected)
        try:
            request.resolve(*self._checked(request, reply, sent))
        except (VerificationError, WireError) as error:
            request.fail(error)

    def _checked(self, request: RemoteRequest, reply: m.Collected, sent: Head | None) -> Collected:
        receipt, said = self._judged(request, reply, sent, "exact")
        _, salt, blob = map(bytes, reply.payload)
        if hmac.new(salt, blob, hashlib.sha256).hexdigest() != said["result"]:
            raise VerificationError("the values are not those that the receipt is about; tell the owner")
        self._link.took(receipt)
        return values.decode(blob, request.returns), receipt

    def _judged(
        self, request: RemoteRequest, reply: m.Collected, sent: Head | None, kind: str
    ) -> tuple[Receipt, dict[str, Any]]:
        """The receipt, checked against what was filed."""
        if len(reply.payload) != 3:
            raise WireError("the owner's answer has no result; tell the owner")
        receipt, said = self._link.check_receipt(canonical.loads(bytes(reply.payload[0]), limit=LIMIT), sent, kind)
        asked = (self._link.analyst, request.id, request.digest, request.facts["cell"])
        if asked != (said["analyst"], said["request"], said["digest"], said["cell"]):
            raise VerificationError("the receipt is about another request than this one; tell the owner")
        cell = parse(canonical.dumps(said["cell"]), exists=True)
        if cell.digest([d["commitment"] for d in said["data"]], said["environment"]) != said["digest"]:
            raise VerificationError("the receipt's digest is not that of what it says has run; tell the owner")
        return receipt, said
