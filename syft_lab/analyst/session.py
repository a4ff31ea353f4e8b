"""A session: one analyst at one owner. Connects, enrols, keeps the link alive, asks, and checks every answer.

All waits have a timeout; everything is awaited on an event loop in a thread of its own. What the session knows of an
owner lives in one folder (keys, trust file, last signed head), so that the next notebook connects by name.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from syft_lab import __version__, canonical, state, values
from syft_lab.analyst import result as results
from syft_lab.analyst.enrol import dial, enrol
from syft_lab.analyst.frame import PointerFrame
from syft_lab.analyst.question import Source
from syft_lab.analyst.remote import as_frame
from syft_lab.analyst.request import RemoteRequest
from syft_lab.analyst.result import Accounts, Price, Released, Result
from syft_lab.budget import accountant
from syft_lab.cell import Cell, check, parse, tensor_mock
from syft_lab.errors import (
    BusyError,
    ConnectionLost,
    InvitationError,
    KeyMismatchError,
    LabError,
    UnreachableError,
    UnsupportedError,
    UsageError,
    VerificationError,
    WireError,
)  # fmt: skip
from syft_lab.expr import Query
from syft_lab.identity import Invitation, Keys, PublicKeys, Trust, check_name
from syft_lab.receipt import LIMIT, Head, Receipt
from syft_lab.schema import schema_from_json
from syft_lab.widgets import cards
from syft_lab.wire import messages as m
from syft_lab.wire.link import Client
from syft_lab.wire.loop import LoopThread

CONNECT_SECONDS = 2.5
ANSWER_SECONDS = 30.0
QUESTION_SECONDS = 600.0
PATIENCE_SECONDS = 20.0
IN_FLIGHT = 16
GROUP_SIZES = (100, 1_000, 10_000, 100_000)
WATCH_MS = 15_000
RETRY_SECONDS = (0.2, 5.0)
MALFORMED = "what the owner says of a request is malformed; tell the owner"
M = TypeVar("M", bound=m.Message)
Asked = m.Release | m.File | m.Collect


def connect(target: str | Path, *, alias: str | None = None, timeout: float = CONNECT_SECONDS) -> Session:
    """Connect with an invitation file (the first time: enrols this machine's own keys), or by the owner's name.

    ``alias`` is the name to keep the connection under (default: the owner's name). Raises an error of the tree, with
    one clear line, within ``timeout`` seconds an address.
    """
    path = Path(target)
    if path.suffix == ".syft" or (str(target) not in connections() and path.is_file()):
        return _with_invitation(Invitation.read(path), alias, timeout)
    name = check_name(str(target), "the connection's name")
    folder = state.connection_folder(name)
    if not (folder / "trust.json").is_file():
        known = ", ".join(connections()) or "none yet"
        raise UsageError(f"no connection is called {name}; known are: {known}. The first time, give the invitation file")
    return _open(name, folder, timeout)


def connections() -> list[str]:
    """Names of the connections that this machine knows."""
    folder = state.home() / "connections"
    return sorted(p.parent.name for p in folder.glob("*/trust.json")) if folder.is_dir() else []


def _with_invitation(invitation: Invitation, alias: str | None, timeout: float) -> Session:
    name = check_name(alias or invitation.owner, "the connection's name")
    folder = state.connection_folder(name)
    if (folder / "trust.json").is_file():
        trust = Trust.load(folder)
        if trust.invitation == invitation.id:
            return _open(name, folder, timeout)  # used here before: the long-term keys take over
        if (trust.signing, trust.analyst) != (invitation.signing, invitation.analyst):
            raise UsageError(f"a connection {name} is to another owner or analyst; choose a name: %connect FILE --as NAME")
    if invitation.expired:
        raise InvitationError(f"this invitation expired on {invitation.expires[:10]}; ask the owner for a new one")
    loop = LoopThread(f"syft-enrol-{name}")
    try:
        loop.run(enrol(invitation, state.make_private(folder), timeout), timeout * len(invitation.addresses) + 5)
    finally:
        loop.stop()
    return _open(name, folder, timeout)


def _json(reply: m.Catalogue | m.Table | m.Released | m.Requests) -> Any:
    """The JSON in the one payload frame of a reply."""
    if len(reply.payload) != 1:
        raise LabError(f"the owner's {reply.kind} has no payload; tell the owner")
    return canonical.loads(bytes(reply.payload[0]), limit=reply.max_payload)


def _open(alias: str, folder: Path, timeout: float) -> Session:
    session = Session(alias, folder, timeout)
    try:
        session.reconnect()
    except BaseException:
        session.close()
        raise
    return session


class Session:
    """A connection to one owner: ``session["patients"]`` is a `PointerFrame`. Made by `connect`."""

    def __init__(self, alias: str, folder: Path, timeout: float) -> None:
        self.alias = alias
        self._folder, self._timeout = folder, timeout
        self._trust = Trust.load(folder)
        self._keys = Keys.load(folder / "keys.json")
        self._client: Client | None = None
        self._loop = LoopThread(f"syft-session-{alias}")
        self._connecting = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)  # the rest wait here, rather than be told that the owner is busy
        self._card: dict[str, Any] = {}
        self._catalogue: dict[str, dict[str, Any]] = {}
        self._mocks: dict[tuple[str, int], Any] = {}
        self._next_epsilon = 0.0
        self._requests: dict[str, RemoteRequest] = {}
        self._seen = -1
        self._following: asyncio.Task[None] | None = None
        self._closed = False
        self.warning = ""

    # Public facts

    @property
    def owner(self) -> str:
        """The owner's name."""
        return self._trust.owner

    @property
    def fingerprint(self) -> str:
        """The owner's fingerprint, to compare with the owner by voice."""
        return self._trust.keys.fingerprint

    @property
    def environment(self) -> dict[str, str]:
        """Versions of what computes at the owner."""
        return dict(self._card.get("environment", {}))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets open to you, asked anew."""
        self._refresh()
        return list(self._catalogue)

    @property
    def known_datasets(self) -> list[str]:
        """Names of the datasets open to you when last asked; never waits."""
        return list(self._catalogue)

    def __getitem__(self, name: str) -> PointerFrame:
        """A pointer to the dataset called ``name``, in its newest version."""
        source = self.source(name)
        if "tensor" in source.public:
            shape = tuple(source.public["tensor"]["shape"])
            raise UnsupportedError(f"{name} is a tensor {shape}; use it in a cell: %%remote {self.alias} --use {name} …")
        return PointerFrame(source, tuple(c.name for c in source.schema.columns), None, {})

    def source(self, name: str) -> Source:
        """What is public about the dataset called ``name``, in its newest version, asked anew."""
        if not isinstance(name, str):
            raise UsageError("name a dataset: session['patients']")
        self._refresh()
        if name not in self._catalogue:
            raise UsageError(f"no dataset {ascii(name)[:80]} is open to you at {self.owner}; open are: "
                             f"{', '.join(self._catalogue) or 'none'}")  # fmt: skip
        public = self._catalogue[name]
        return Source(self, name, public["version"], schema_from_json(public["schema"]), public)

    def ping(self) -> float:
        """Seconds for a round trip to the owner."""
        start = time.perf_counter()
        self._ask(m.Ping(), m.Pong)
        return time.perf_counter() - start

    def budget(self) -> Accounts:
        """Your accounts at this owner: spent, reserved, left, and what the question priced last would take."""
        reply = self._ask(m.Account(), m.Accounts)
        return Accounts(self.owner, canonical.loads(reply.accounts), self._next_epsilon)

    @property
    def gauge(self) -> Any:
        """Dials of your accounts at this owner: spent, reserved, left, and exact releases; a click asks anew."""
        from syft_lab.widgets.budget import BudgetGauge

        empty = "the owner opened no account for you; ask for one"
        return BudgetGauge(self.owner, lambda: self.budget().gauges, empty, lambda: repr(self.budget()))

    def rotate_keys(self) -> None:
        """Put new keys in place of this machine's at this owner; the old ones are refused from now on."""
        keys = Keys.generate()
        covered = canonical.dumps([self._trust.curve_keys[0], keys.public.curve, keys.public.signing])
        keys.save(self._folder / "next-keys.json")  # if the reply is lost, reconnecting tries both
        message = m.Rotate(
            keys.public.curve, keys.public.signing, self._keys.sign("rotate", covered), keys.sign("rotate", covered)
        )
        self._ask(message, m.Rotated)
        self._adopt_next_keys()
        self.reconnect()

    # Connection

    def reconnect(self) -> None:
        """Connect anew now; raises an error of the tree if that fails."""
        self._check_open()
        self._loop.run(self._connect(fresh=True), self._timeout * 2 * len(self._trust.addresses) + 5)

    def close(self) -> None:
        """End the session; idempotent."""
        if self._closed:
            return
        self._closed = True

        async def end() -> None:
            if self._following is not None:
                self._following.cancel()
            if self._client is not None:
                self._client.close()
            for request in self._requests.values():
                request.fail(
                    ConnectionLost("the session was closed; connect again: the request goes on, and %requests finds it")
                )

        self._loop.run(end(), 5)
        self._loop.stop()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
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

    async def _greet(self) -> Client:
        client, server_key = await dial(self._trust.addresses, self._trust.curve_keys, self._keys, self._timeout)
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
        self._card = card
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
        """Ask and wait; connects first if the link broke."""

        async def work() -> M:
            return await self._asking(message, expected, timeout)

        self._check_open()
        return self._loop.run(work(), timeout + self._timeout * 2 + 5)

    def _payload(self, message: m.Message, expected: type[m.Catalogue | m.Table]) -> Any:
        """The JSON in the payload of the reply."""
        return _json(self._ask(message, expected, QUESTION_SECONDS))

    async def _asking(self, message: m.Message, expected: type[M], timeout: float) -> M:
        reply = await (await self._connect()).request(message, timeout)
        if not isinstance(reply, expected):
            raise LabError(f"the owner answered {message.kind} with {reply.kind}; tell the owner")
        return reply

    # Questions

    def price(self, source: Source, query: Query, epsilon: float, delta: float) -> Price:
        """What a question would cost: see `Question.price`."""
        cost = accountant.cost(epsilon, delta)
        message = m.Price(source.name, source.version, query.canonical(), cost.epsilon, cost.delta)
        quote = canonical.loads(self._ask(message, m.Priced).quote)
        self._next_epsilon = cost.epsilon / accountant.MICRO
        accuracy, basis = quote["accuracy"], "of what is released"
        if accuracy is None:
            accuracy, basis = (
                self._error_by_size(source, query, quote["errors"]),
                "in a group of so many rows, if values are as on the mock",
            )
        left = quote["account"]["available"]["epsilon_micro"] / accountant.MICRO
        delta = quote["delta_pico"] / accountant.PICO
        return Price(self._next_epsilon, delta, accuracy, basis, left, quote["allowed"], quote["why"])

    def _error_by_size(self, source: Source, query: Query, errors: Mapping[str, float]) -> Any:
        """95 % error of a mean by the size of its group, for values whose mean lies where the mock's does."""
        import pandas as pd

        from syft_lab.budget import mechanisms, queries

        found = query.check(source.schema)
        (mean,) = queries.exact(source.schema, replace(query, by=()), self.mock_of(source)).values
        off = 0.0 if mean is None else mean - queries.middle_of(found)
        width = found.high - found.low
        bounds = {n: mechanisms.mean_error(off * n, n, errors["s"], errors["n"], width) for n in GROUP_SIZES}
        return pd.Series(bounds, name="accuracy").rename_axis("rows")

    def release(self, source: Source, query: Query, epsilon: float, delta: float, about: str, name: str) -> Result:
        """Ask a question: see `Question.release`."""
        self._check_open()
        cost = accountant.cost(epsilon, delta)
        message = m.Release(secrets.token_hex(16), source.name, source.version, query.canonical(), cost.epsilon, cost.delta, 0)

        async def work() -> Released:
            async with self._in_flight:
                reply, sent = await self._persistently(message, m.Released)
            self._next_epsilon = 0.0
            return self._take(reply, message, sent, name)

        future: Future[Released] = asyncio.run_coroutine_threadsafe(work(), self._loop.loop)
        return Result(future, about)

    # Requests to run code

    @property
    def requests(self) -> list[RemoteRequest]:
        """Your requests at this owner, oldest first, asked anew; also those of other notebooks and days."""
        self._check_open()

        async def work() -> list[RemoteRequest]:
            self._hear(await self._asking(m.Watch(-1, 0), m.Requests, ANSWER_SECONDS))
            self._follow()
            return sorted(self._requests.values(), key=lambda r: r.number)

        return self._loop.run(work(), ANSWER_SECONDS + self._timeout * 2 + 5)

    def request(self, number: int) -> RemoteRequest:
        """Your request with this number; raises UsageError."""
        for request in self.requests:
            if request.number == number:
                return request
        raise UsageError(f"you have no request {number} at {self.owner}")

    def file(self, cell: Cell) -> RemoteRequest:
        """File a cell as it is, without running it on the mock first; gives the request once the owner has it.

        Asked again after a broken connection, it is still filed once.
        """
        self._check_open()
        check(cell)
        message = m.File(secrets.token_hex(16), canonical.dumps(cell.to_json()))

        async def work() -> RemoteRequest:
            reply, _ = await self._persistently(message, m.Filed)
            found = self._meet(canonical.loads(reply.request))
            if canonical.dumps(found.facts["cell"]) != message.terms:
                raise VerificationError("the owner filed another cell than this one; tell the owner")
            self._follow()
            return found

        return self._loop.run(work(), PATIENCE_SECONDS + QUESTION_SECONDS)

    def cancel(self, request: RemoteRequest) -> None:
        """Take a request back: see `RemoteRequest.cancel`."""
        reply = self._ask(m.Cancel(request.id), m.Filed)

        async def work() -> None:
            self._meet(canonical.loads(reply.request))

        self._loop.run(work(), ANSWER_SECONDS)

    def _meet(self, public: dict[str, Any]) -> RemoteRequest:
        """The request that these facts are about, brought up to date. On the loop."""
        try:
            found = self._requests.get(public["request"])
            if found is None:
                found = self._requests[public["request"]] = RemoteRequest(self, {**public, "entry": -1})
            found.update(public)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise LabError(MALFORMED) from None
        return found

    def _hear(self, reply: m.Requests) -> None:
        said = _json(reply)
        for public in said["requests"]:
            self._meet(public)
        self._seen = max(self._seen, said["at"])

    def _follow(self) -> None:
        """Keep following open requests, in one long poll for all of them. On the loop."""
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._news())

    async def _news(self) -> None:
        pause = RETRY_SECONDS[0]
        while not self._closed:
            try:
                for request in [r for r in self._requests.values() if r.state == "released" and not r.settled]:
                    await self._collect(request)
                if all(r.settled for r in self._requests.values()):
                    return
                self._hear(await self._asking(m.Watch(self._seen, WATCH_MS), m.Requests, WATCH_MS / 1000 + ANSWER_SECONDS))
                pause = RETRY_SECONDS[0]
            except (ConnectionLost, UnreachableError, BusyError):  # the owner restarts, or this machine slept
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS[1])
            except Exception as fault:  # revoked, or a fault: waiting longer would not help
                error = fault if isinstance(fault, LabError) else LabError(MALFORMED)
                for request in self._requests.values():
                    request.fail(error)
                return

    async def _collect(self, request: RemoteRequest) -> None:
        """Fetch released values, and check them and their receipt against what was filed."""
        message = m.Collect(request.id, 0)
        reply, sent = await self._persistently(message, m.Collected)
        try:
            request.resolve(*self._check_collected(request, reply, sent))
        except (VerificationError, WireError) as error:
            request.fail(error)

    def _check_collected(
        self, request: RemoteRequest, reply: m.Collected, sent: Head | None
    ) -> tuple[dict[str, values.Value], Receipt]:
        if len(reply.payload) != 2:
            raise WireError("the owner's answer has no result; tell the owner")
        receipt = Receipt.from_json(canonical.loads(bytes(reply.payload[0]), limit=LIMIT))
        said = receipt.verify(self._trust.keys, kind="exact")
        if receipt.previous != sent:
            raise VerificationError(f"{self.owner}'s journal does not continue the one it signed for you; tell the owner")
        asked = (self._trust.analyst, request.id, request.digest, request.facts["cell"])
        if asked != (said["analyst"], said["request"], said["digest"], said["cell"]):
            raise VerificationError("the receipt is about another request than this one; tell the owner")
        cell = parse(canonical.dumps(said["cell"]))
        if cell.digest([d["commitment"] for d in said["data"]], said["environment"]) != said["digest"]:
            raise VerificationError("the receipt's digest is not that of what it says has run; tell the owner")
        blob = reply.payload[1]
        if hashlib.sha256(blob).hexdigest() != said["result"]:
            raise VerificationError("the values are not those that the receipt is about; tell the owner")
        if self._trust.head is None or receipt.head.size > self._trust.head["size"]:
            self._keep(receipt.head)
        return values.decode(blob, list(cell.returns)), receipt

    async def _persistently(self, message: Asked, expected: type[M]) -> tuple[M, Head | None]:
        """Ask; if the link breaks, connect again and ask for the same request, which the owner answers once.

        Gives the reply, and the head that it must continue: the one we held when we asked.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        began = False
        while True:
            try:
                await self._connect()
                began = True
                held = None if self._trust.head is None else Head.from_json(self._trust.head)
                asked = message if isinstance(message, m.File) else replace(message, held=held.size if held else 0)
                return await self._asking(asked, expected, QUESTION_SECONDS), held
            except (ConnectionLost, UnreachableError) as error:
                if not began or self._closed:
                    raise
                if time.monotonic() > end:
                    raise ConnectionLost(
                        f"the connection to {self.owner} broke while the answer was pending, and it did not come back within "
                        f"{PATIENCE_SECONDS:g} s ({error}). If it had begun, its cost counts as spent; ask the same again later"
                    ) from None
                await asyncio.sleep(0.2)

    def _take(self, reply: m.Released, message: m.Release, sent: Head | None, name: str) -> Released:
        """Check the receipt against what was asked and the head we held then, and unpack the value."""
        receipt = Receipt.from_json(_json(reply))
        said = receipt.verify(self._trust.keys, kind="released")
        if receipt.previous != sent:  # `verify` has checked that the receipt's head continues it
            raise VerificationError(f"{self.owner}'s journal does not continue the one it signed for you; tell the owner")
        asked = (self._trust.analyst, message.dataset, message.version, message.epsilon, canonical.loads(message.query))
        if asked != tuple(said.get(k) for k in ("analyst", "dataset", "version", "epsilon_micro", "query")):
            raise VerificationError("the receipt is about another question than this one; tell the owner")
        answer = results.check_answer(said.get("value"))
        if self._trust.head is None or receipt.head.size > self._trust.head["size"]:
            self._keep(receipt.head)
        value = results.as_value(answer, answer["values"], name)
        return Released(value, results.as_value(answer, answer["accuracy"], name), receipt)

    def stand_in(self, source: Source) -> Any:
        """What stands for a dataset when a cell runs here: its mock as a pandas frame, or a torch tensor."""
        if "tensor" not in source.public:
            return as_frame(self.mock_of(source))
        try:
            import torch
        except ImportError:
            raise UsageError(f"{source.name} is a tensor, and torch is not installed here: pip install torch") from None
        return torch.from_numpy(tensor_mock(source.public["tensor"]))

    def answer_on_mock(self, source: Source, query: Query, name: str) -> Any:
        """The answer on the mock, without noise: see `Question.mock`."""
        from syft_lab.budget import queries

        answer = queries.exact(source.schema, query, self.mock_of(source))
        return results.as_value({"by": list(query.by), "keys": answer.keys}, list(answer.values), name)

    def mock_of(self, source: Source) -> Any:
        """The mock of a dataset as polars, under its own column names; fetched once."""
        import polars as pl

        from syft_lab.budget.tables import STORED

        key = (source.name, source.version)
        if key not in self._mocks:
            columns = self._payload(m.Mock(*key), m.Table)
            try:
                made = {c.name: pl.Series(columns[c.name], dtype=STORED[c.kind], strict=True) for c in source.schema.columns}
                self._mocks[key] = pl.DataFrame(made)
            except (KeyError, TypeError, IndexError, pl.exceptions.PolarsError):
                raise LabError(f"the mock of {source.name} does not fit its schema; tell the owner") from None
        return self._mocks[key]

    # Display

    def _refresh(self) -> None:
        datasets = self._payload(m.Datasets(), m.Catalogue)
        self._catalogue = {d["name"]: d for d in datasets}

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._catalogue) or self.datasets

    def _facts(self) -> list[tuple[str, object]]:
        return [
            ("you are", f"{self._trust.analyst} ({self._card.get('role', 'unknown')})"),
            ("address", ", ".join(self._trust.addresses)),
            ("fingerprint", f"{self.fingerprint}: compare it with the owner"),
            ("isolation", self._card.get("isolation", "unknown")),
            ("datasets", ", ".join(f"{n} v{d['version']}" for n, d in self._catalogue.items()) or "none open to you"),
        ]

    def __repr__(self) -> str:
        if self._closed:
            return f"<Session at {self.owner}: closed>"
        try:
            self._refresh()
        except LabError as error:
            return f"<Session at {self.owner}: {error}>"
        lines = [f"Connected to {self.owner}", *([f"  {self.warning}"] if self.warning else [])]
        lines += [f"  {k:<11}  {cards.visible(v)}" for k, v in self._facts()]
        return "\n".join([*lines, repr(self.budget())])

    def _repr_html_(self) -> str:
        if self._closed:
            return cards.card(self.owner, cards.note("closed; connect again"))
        try:
            self._refresh()
        except LabError as error:
            return cards.card(self.owner, cards.note(str(error), warn=True))
        warning = [cards.note(self.warning, warn=True)] if self.warning else []
        return cards.card(f"Connected to {self.owner}", *warning, cards.facts(self._facts())) + self.budget()._repr_html_()
