"""The link of one analyst to one owner: dials, greets, checks that the owner's log goes on, asks, and asks again.

What it knows of an owner lives in one folder (keys, trust file, last signed head). All waits have a timeout; everything
is awaited on an event loop in a thread of its own. `Session` is what people use; this is what it stands on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from syft_lab import __version__, canonical
from syft_lab.analyst.enrol import dial
from syft_lab.errors import (
    ConnectionLost,
    KeyMismatchError,
    LabError,
    UnreachableError,
    VerificationError,
)
from syft_lab.identity import Keys, PublicKeys, Trust
from syft_lab.receipt import Head, Receipt
from syft_lab.wire import messages as m
from syft_lab.wire.link import Client
from syft_lab.wire.loop import LoopThread

ANSWER_SECONDS = 30.0
QUESTION_SECONDS = 600.0
PATIENCE_SECONDS, RETRY_SECONDS, LONGEST_PAUSE, MAX_BREAKS = 20.0, 0.2, 2.0, 20
BROKEN = (ConnectionLost, UnreachableError, KeyMismatchError)  # the last: of a socket that is just closing
T = TypeVar("T")
M = TypeVar("M", bound=m.Message)
Asked = m.Release | m.File | m.Collect
# What an owner answers as before, or does once, however often it is asked. Decisions and new keys are asked for once, and a
# ping, which is about the link.
AGAIN = (m.Datasets, m.Mock, m.Price, m.Account, m.Watch, m.Log, m.Propose, m.Cancel, m.Comment)


class Patience:
    """How long to go on after a link broke: `PATIENCE_SECONDS` until it is back, and over `MAX_BREAKS` of them."""

    def __init__(self) -> None:
        self._end: float | None = None
        self._breaks = 0
        self._asked = 0.0

    def back(self) -> None:
        """The link stands, and something is asked now."""
        self._end, self._asked = None, time.monotonic()

    async def broke(self, timeout: float) -> bool:
        """Wait a moment after a break; False where it is no use: ``timeout`` s passed since asking, or it was away for long."""
        now = time.monotonic()
        if self._end is None:
            self._end, self._breaks = now + PATIENCE_SECONDS, self._breaks + 1
            if now - self._asked >= timeout:
                return False
        if now > self._end or self._breaks > MAX_BREAKS:
            return False
        await asyncio.sleep(min(RETRY_SECONDS * self._breaks, LONGEST_PAUSE))
        return True


def json_of(reply: m.Catalogue | m.Table | m.Released | m.Requests) -> Any:
    """The JSON in the one payload frame of a reply."""
    if len(reply.payload) != 1:
        raise LabError(f"the owner's {reply.kind} has no payload; tell the owner")
    return canonical.loads(bytes(reply.payload[0]), limit=reply.max_payload)


class Link:
    """A connection that comes back by itself. ``warning`` says what the owner's journal did, if it did not go on."""

    def __init__(self, alias: str, folder: Path, timeout: float) -> None:
        self.alias = alias
        self._folder, self._timeout = folder, timeout
        self._trust = Trust.load(folder)
        self._keys = Keys.load(folder / "keys.json")
        self._client: Client | None = None
        self._loop = LoopThread(f"syft-session-{alias}")
        self._connecting = asyncio.Lock()
        self._card: dict[str, Any] = {}
        self._closed = False
        self.warning = ""

    @property
    def owner(self) -> str:
        """The owner's name."""
        return self._trust.owner

    @property
    def fingerprint(self) -> str:
        """The owner's fingerprint, to compare with the owner by voice."""
        return self._trust.keys.fingerprint

    @property
    def analyst(self) -> str:
        """Your name at this owner."""
        return self._trust.analyst

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that everything is awaited on."""
        return self._loop.loop

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def head(self) -> Head | None:
        """The owner's last signed head that we accepted."""
        return None if self._trust.head is None else Head.from_json(self._trust.head)

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Await something on the loop, from any other thread; a reconnection on the way has its time too."""
        return self._loop.run(work, timeout + self._timeout * 2 * len(self._trust.addresses) + 5)

    def ping(self) -> float:
        """Seconds for a round trip to the owner."""
        start = time.perf_counter()
        self._ask(m.Ping(), m.Pong)
        return time.perf_counter() - start

    def rotate_keys(self) -> None:
        """Put new keys in place of this machine's at this owner; the old ones are refused from now on."""
        keys = Keys.generate()
        covered = canonical.dumps([self._trust.curve_keys[0], keys.public.curve, keys.public.signing])
        keys.save(self._folder / "next-keys.json")  # if the reply is lost, reconnecting tries both
        message = m.Rotate(
            keys.public.curve, keys.public.signing, self._keys.sign("rotate", covered), keys.sign("rotate", covered)
        )
        try:
            self._ask(message, m.Rotated)
        except ConnectionLost:  # reconnecting tries the keys that the owner knows
            self.reconnect()
            if self._keys.public != keys.public:
                raise
            return
        self._adopt_next_keys()
        self.reconnect()

    # Connection

    def reconnect(self) -> None:
        """Connect anew now; raises an error of the tree if that fails."""
        self.check_open()
        self._loop.run(self._connect(fresh=True), self._timeout * 2 * len(self._trust.addresses) + 5)

    def close(self) -> None:
        """End the session; idempotent."""
        if self._closed:
            return
        self._closed = True

        async def end() -> None:
            leaving, client = self._ending(), self._live()
            for message in leaving:  # so that the owner need not wait until it is idle
                with contextlib.suppress(LabError):
                    if client is not None:
                        await client.request(message, 1.0)
            if self._client is not None:
                self._client.close()

        self._loop.run(end(), 5)
        self._loop.stop()

    def _ending(self) -> list[m.Message]:
        """What else ends with the link, and what to tell the owner. On the loop."""
        return []

    def _owner_started_anew(self) -> None:
        """Its kernel is another than the one that was asked before. On the loop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_open(self) -> None:
        """Raises ConnectionLost once the session is closed."""
        if self._closed:
            raise ConnectionLost(f"this session is closed; connect again: %connect {self.alias}")

    def _live(self) -> Client | None:
        return self._client if self._client is not None and not self._client.closed else None

    async def _connect(self, fresh: bool = False) -> Client:
        """The live client; dials if there is none. On the loop."""
        live = None if fresh else self._live()
        if live is not None:
            return live
        async with self._connecting:
            live = None if fresh else self._live()  # somebody else may have been quicker
            if live is not None:
                return live
            if self._client is not None:
                self._client.close()
            try:
                self._client = await self._greet()
            except KeyMismatchError:
                if not (self._folder / "next-keys.json").exists():
                    raise
                self._adopt_next_keys()  # of a rotation whose reply was lost
                self._client = await self._greet()
            return self._client

    def freshen(self) -> None:
        """Connect now if the link broke, so that what is made next is made for the kernel that is there now.

        Where nobody answers, that is said when something is asked.
        """
        if self._client is not None and self._client.closed and not self._loop.here:
            with contextlib.suppress(*BROKEN):
                self._loop.run(self._connect(), self._timeout * 2 * len(self._trust.addresses) + 5)

    async def connected(self) -> None:
        """Connect, if the link broke; raises an error of the tree. On the loop."""
        await self._connect()

    async def _dial(self) -> tuple[Client, str]:
        """A client to the owner, and the key that it answered with."""
        return await dial(self._trust.addresses, self._trust.curve_keys, self._keys, self._timeout)

    async def _greet(self) -> Client:
        client, server_key = await self._dial()
        head = canonical.dumps(self._trust.head) if self._trust.head else b""
        try:
            welcome = await client.request(m.Hello(list(m.VERSIONS), f"syft-lab {__version__}", head), self._timeout)
            if not isinstance(welcome, m.Welcome):
                raise LabError("the owner answered hello with something else; tell the owner")
            if server_key != self._trust.curve_keys[0]:  # the owner switched to a key that it had announced
                self._trust = replace(self._trust, curve_keys=(server_key,))
                self._trust.save(self._folder)
            self._check_welcome(welcome)
        except BaseException:
            client.close()
            raise
        return client

    def _adopt_next_keys(self) -> None:
        self._keys = Keys.load(self._folder / "next-keys.json")
        (self._folder / "next-keys.json").replace(self._folder / "keys.json")

    def _check_welcome(self, welcome: m.Welcome) -> None:
        card = canonical.loads(welcome.owner)
        if not isinstance(card, dict):
            raise LabError("the owner's card is no card; tell the owner")
        before, self._card = self._card, card
        if before and before.get("start") != card.get("start"):
            self._owner_started_anew()
        head = Head.from_json(canonical.loads(welcome.head))
        held = None if self._trust.head is None else Head.from_json(self._trust.head)
        if not head.is_signed_by(self._trust.keys):
            raise VerificationError(f"{self.owner}'s head is not signed by the key that you trust; tell the owner")
        self.warning = ""
        if held is None or head.continues(held, welcome.proof):
            self._keep(head)
        else:
            self._accept_restored(head, held, welcome.restored)
        self._learn_next_key(welcome)

    def _accept_restored(self, head: Head, held: Head, confirmations: list[bytes]) -> None:
        """A log that does not continue ours is taken only with the owner's signed confirmation that it was restored."""
        for confirmation in confirmations:
            proof = Receipt.from_json(canonical.loads(confirmation))
            proof.verify(self._trust.keys, kind="restored")
            if proof.head == head and proof.time > held.time:
                self.warning = (f"{self.owner} restored an older copy of its journal on {proof.time[:10]} and confirmed it: "
                                "releases since that copy are not in its journal; keep your receipts")  # fmt: skip
                self._keep(head)
                return
        self.warning = (f"{self.owner}'s journal is older than the one it signed for you (you hold {held.size} entries): "
                        "it releases nothing until the owner confirms that an old copy was restored")  # fmt: skip

    def _learn_next_key(self, welcome: m.Welcome) -> None:
        key, trust = welcome.next_curve, self._trust
        announced = key and key not in trust.curve_keys
        if announced and trust.keys.verify("next-curve", key.encode(), welcome.next_signature):
            self._trust = replace(trust, curve_keys=(*trust.curve_keys, PublicKeys(key, trust.signing).curve))
            self._trust.save(self._folder)

    def _keep(self, head: Head) -> None:
        if self._trust.head != head.to_json():
            self._trust = replace(self._trust, head=head.to_json())
            self._trust.save(self._folder)

    def _ask(self, message: m.Message, expected: type[M], timeout: float = ANSWER_SECONDS) -> M:
        """Ask and wait; connects first if the link broke, and asks again if it breaks, where that changes nothing."""

        async def work() -> M:
            return await self.looking(message, expected, timeout)

        self.check_open()
        return self._loop.run(work(), timeout + self._timeout * 2 + PATIENCE_SECONDS + 5)

    def _payload(self, message: m.Message, expected: type[m.Catalogue | m.Table]) -> Any:
        """The JSON in the payload of the reply."""
        return json_of(self._ask(message, expected, QUESTION_SECONDS))

    async def asking(self, message: m.Message, expected: type[M], timeout: float, into: memoryview | None = None) -> M:
        """Ask once; connects first if the link broke. A large reply is received ``into`` memory that waits for it."""
        reply = await (await self._connect()).request(message, timeout, into)
        if not isinstance(reply, expected):
            raise LabError(f"the owner answered {message.kind} with {reply.kind}; tell the owner")
        return reply

    async def looking(self, message: m.Message, expected: type[M], timeout: float) -> M:
        """Ask; again over another connection if the link breaks, where the owner answers that as before."""
        if isinstance(message, AGAIN):
            return await self._again(lambda: self.asking(message, expected, timeout), timeout, "")
        try:
            return await self.asking(message, expected, timeout)
        except ConnectionLost:
            await self._ask_why()
            raise

    async def _ask_why(self) -> None:
        """After a break: raise what the owner says to a new connection, such as that access was revoked."""
        await asyncio.sleep(0.01)  # whoever reads the old one hears of it too
        with contextlib.suppress(*BROKEN):
            await self._connect()

    async def persistently(self, message: Asked, expected: type[M]) -> tuple[M, Head | None]:
        """Ask; if the link breaks, connect again and ask for the same request, which the owner answers once.

        Gives the reply, and the head that it must continue: the one we held when we asked.
        """

        async def once() -> tuple[M, Head | None]:
            held = self.head
            asked = message if isinstance(message, m.File) else replace(message, held=held.size if held else 0)
            return await self.asking(asked, expected, QUESTION_SECONDS), held

        return await self._again(once, QUESTION_SECONDS, " If it had begun, its cost counts as spent; ask the same again later")

    async def _again(self, once: Callable[[], Awaitable[T]], timeout: float, advice: str) -> T:
        """Do it, and again after each break of the link; raises ConnectionLost where the link does not come back."""
        patience, began = Patience(), False
        while True:
            try:
                await self._connect()
                began = True
                patience.back()
                return await once()
            except BROKEN as error:
                refused = isinstance(error, KeyMismatchError) and self._live() is not None
                if not began or self._closed or refused:
                    raise
                if not await patience.broke(timeout):
                    raise ConnectionLost(f"the connection to {self.owner} broke while the answer was pending, and it did not "
                                         f"come back within {PATIENCE_SECONDS:g} s ({error}).{advice}") from None  # fmt: skip

    def check_receipt(self, content: Any, sent: Head | None, kind: str) -> tuple[Receipt, dict[str, Any]]:
        """The receipt of a release, and what it says: signed, in the log, and the log continues the head we held."""
        receipt = Receipt.from_json(content)
        said = receipt.verify(self._trust.keys, kind=kind)
        if receipt.previous != sent:  # `verify` has checked that the receipt's head continues it
            raise VerificationError(f"{self.owner}'s journal does not continue the one it signed for you; tell the owner")
        return receipt, said

    def took(self, receipt: Receipt) -> None:
        """What a receipt proves was accepted: its head is the newest we know."""
        if self._trust.head is None or receipt.head.size > self._trust.head["size"]:
            self._keep(receipt.head)
