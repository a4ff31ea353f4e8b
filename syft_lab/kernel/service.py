"""The corridor: every request walks it.

    authenticate → policy → reserve (journal) → execute → release (checks) → journal (stores, commits) → send

The service lives on an event loop in a thread of its own, so it answers while a cell of the owner runs. Questions to
data run in two worker threads (polars hangs in a forked child, and releases the GIL). One function a kind of message,
in a table; nothing private leaves but through `release.seal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

from syft_lab import __version__, canonical, values, wording
from syft_lab.budget import queries
from syft_lab.budget.accountant import MAX_QUERY_EPSILON, MICRO, PICO, Cost
from syft_lab.cell import Cell, Use
from syft_lab.errors import (
    BusyError,
    ConnectionLost,
    FailedError,
    InvitationError,
    KeyMismatchError,
    LabError,
    RefusedError,
    UsageError,
    WireError,
)
from syft_lab.expr import Query, parse_query
from syft_lab.identity import Keys, PublicKeys
from syft_lab.kernel import exports, policy, release
from syft_lab.kernel.catalogue import Catalogue, Dataset, dataset_of
from syft_lab.kernel.journal import Entry, Journal
from syft_lab.kernel.ledger import Ledger, Question
from syft_lab.kernel.partners import Partners
from syft_lab.kernel.registry import Analyst, Registry, agree
from syft_lab.kernel.requests.desk import Desk, environment
from syft_lab.kernel.requests.rows import Row
from syft_lab.kernel.roles import OWNER, RIGHTS
from syft_lab.kernel.rulebook import Rulebook
from syft_lab.kernel.store import Store
from syft_lab.kernel.tensors import ORDERED, Seat, Tensors, as_array
from syft_lab.kernel.views import REPLACE
from syft_lab.receipt import Head, Receipt
from syft_lab.wire import messages as m
from syft_lab.wire.link import Hub
from syft_lab.wire.loop import LoopThread
from syft_lab.wire.rates import Bucket
from syft_lab.wire.zmq_link import ZmqServer

MAX_PAYLOAD = 64 << 20
MAX_WAIT_MS, MAX_LISTED = 20_000, 200
WORKERS = 2
SWITCH_SECONDS = 0.00005
START_SECONDS, TIDY_SECONDS = 30.0, 60.0
# What a person does, and what writes to the journal: so much at once, then one a second. Filing a notebook's cells fits.
FILED_AT_ONCE, FILED_A_SECOND = 50, 1.0
# Text of theirs stays in the journal for ever, and keys are known for ever: so much at once, then so much a second.
TEXT_AT_ONCE, TEXT_A_SECOND = 16 << 20, 2048.0
ROTATED_AT_ONCE, ROTATED_A_SECOND = 10, 1 / 3600
RATED = (m.File, m.Propose, m.Cancel, m.Comment, m.Rotate)
LARGE = (m.Run, m.Put, m.Deal)  # all else that comes is small: it has at most 1 MiB, and travels whole
PINGED = 64 << 10
STOPPING = "the owner's kernel is stopping; ask again once it is back"
T = TypeVar("T")
Notify = Callable[[str], None]
Handler = Callable[[Analyst, Any], Awaitable[m.Message]]


class Service:
    """Answers analysts. Made by `Owner`, which shares its journal, registry and store with it."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        journal: Journal,
        registry: Registry,
        store: Store,
        desk: Desk,
        rulebook: Rulebook,
        isolation: str,
        notify: Notify,
        tensors: Tensors | None = None,
        partners: Partners | None = None,
    ) -> None:
        self.name, self.keys, self._partners = name, keys, partners
        self._desk, self._rulebook, self._isolation = desk, rulebook, isolation
        self.manager: Callable[[dict[str, Any], str, Iterable[str]], Any] | None = None
        self.next_keys: Keys | None = None
        self.tensors = tensors
        self._journal, self._registry, self._store, self._notify = journal, registry, store, notify
        self._ledger, self._catalogue = Ledger(journal), Catalogue(journal)
        self._asking: dict[tuple[Any, ...], threading.Lock] = {}
        self.heard: dict[str, float] = {}  # an analyst's key → when it asked last
        self._asking_lock = threading.Lock()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._loop: LoopThread | None = None
        self._stopping = False
        self._start_id = secrets.token_hex(8)  # another at each start: by it a session hears that its values are gone
        self._server: ZmqServer | None = None
        self._hub: Hub | None = None
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="syft-query")
        self._handlers: Mapping[type[m.Message], Handler] = {
            m.Ping: self._ping,
            m.Hello: self._hello,
            m.Datasets: self._datasets,
            m.Mock: self._mock,
            m.Price: self._in_worker(self._price),
            m.Release: self._padded(self._in_worker(self._release)),
            m.Account: self._account,
            m.Rotate: self._rotate,
            m.File: self._in_worker(self._file),
            m.Propose: self._in_worker(self._propose),
            m.Watch: self._watch,
            m.Collect: self._in_worker(self._collect),
            m.Cancel: self._in_worker(self._cancel),
            m.Comment: self._in_worker(self._comment),
            m.Log: self._in_worker(self._log),
            **dict.fromkeys(ORDERED, self._tensor),
            m.Leave: self._leave,
        }
        if tensors is not None:
            tensors.noise, tensors.ask = self._noise, self._ask
        self._waiting: dict[asyncio.Event, str] = {}
        self._revoked = registry.revoked
        desk.on_change.append(self._wake)
        registry.on_change += [self._wake, self._let_in]

    def start(self, host: str, port: int) -> int:
        """Listen on ``host:port`` (0: any free port); gives the port. Raises UsageError if it is taken."""
        loop = LoopThread("syft-service")
        # While a cell of the owner runs Python, each of our many short steps waits for the interpreter's lock: 5 ms each time
        # by default, and 40 ms where the cell gives it up and takes it back all the time (files, numpy, torch), for then the
        # wait never times out. docs/architecture.md has the figures.
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch, SWITCH_SECONDS))

        async def begin() -> int:
            self._hub = Hub(self.handle, MAX_PAYLOAD, self._may_carry)
            registry = self._registry
            self._server = ZmqServer(self.keys, registry.admitted, self._hub, self._notify, registry.name_of)
            self._tidying = asyncio.create_task(self._tidy())
            return await self._server.bind(host, port)

        try:
            bound = loop.run(begin(), START_SECONDS)
        except BaseException:
            loop.stop()
            raise
        self._loop = loop
        return bound

    def start_here(self) -> None:
        """Serve without a socket: for owners in the process of their analyst."""
        self._loop, self._hub = LoopThread("syft-service"), Hub(self.handle, MAX_PAYLOAD, self._may_carry)
        self._switch = sys.getswitchinterval()

    @property
    def hub(self) -> Hub | None:
        """Where messages come in."""
        return self._hub

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it lives on, while it runs."""
        return None if self._loop is None else self._loop.loop

    def stop(self, timeout: float = 5.0) -> None:
        """Answer what is in hand, for ``timeout`` seconds at most, then close; idempotent."""
        self._stopping = True
        loop, self._loop = self._loop, None
        if loop is None:
            return

        async def end() -> None:
            for changed in self._waiting:  # long polls end now, and are asked again of whoever starts next
                changed.set()
            if self._hub is not None:
                await self._hub.drain(timeout)
            if self._server is not None:
                self._server.close()

        loop.run(end(), timeout + 5)
        loop.stop()
        sys.setswitchinterval(self._switch)
        self._workers.shutdown(wait=True, cancel_futures=True)

    async def handle(self, key: str, message: m.Message) -> m.Message:
        """Answer one message from the holder of ``key``; raises the error to refuse with.

        Once the owner stops that is ConnectionLost: the analyst's side asks again until the owner is back.
        """
        if self._stopping:
            raise ConnectionLost(STOPPING)
        if isinstance(message, m.Enrol):
            return self._enrol(key, message)
        if isinstance(message, m.Manage):
            return await self._manage(key, message)
        analyst = self._registry.analyst(key)
        self.heard[key] = time.time()
        if isinstance(message, RATED):
            self._check_rate(analyst)
            self._check_amount(analyst, message)
        handler = self._handlers.get(type(message))
        if handler is None:
            raise WireError(f"an owner does not answer messages of kind {message.kind}")
        return await handler(analyst, message)

    def _may_carry(self, key: str, kind: type[m.Message]) -> int:
        """Bytes that a large message of a key may have, judged before any is taken in. Raises what it is refused with."""
        if self._stopping:
            raise ConnectionLost(STOPPING)
        self._registry.analyst(key).need("ask")
        return kind.max_payload if issubclass(kind, LARGE) else 0

    def _check_rate(self, analyst: Analyst) -> None:
        """Raise BusyError where somebody files, cancels, comments or rotates faster than people do."""
        wait = self._wait(("filed", analyst.name), FILED_A_SECOND, FILED_AT_ONCE, 1)
        if wait:
            raise BusyError(f"{FILED_AT_ONCE} requests, comments and cancellations of yours came at once; after that the owner "
                            f"takes one a second: try again in {math.ceil(wait)} s")  # fmt: skip

    def _check_amount(self, analyst: Analyst, message: m.Message) -> None:
        """Raise BusyError where somebody writes more to the journal than people do: it is kept for ever."""
        if isinstance(message, m.Rotate):
            wait = self._wait(("rotated", analyst.name), ROTATED_A_SECOND, ROTATED_AT_ONCE, 1)
            if wait:
                raise BusyError(f"you rotated keys {ROTATED_AT_ONCE} times; after that the owner takes new ones once an hour")
            return
        self._check_text(analyst, sum(len(v) for v in vars(message).values() if isinstance(v, str | bytes)))

    def _check_text(self, analyst: Analyst, size: int) -> None:
        wait = self._wait(("text", analyst.name), TEXT_A_SECOND, TEXT_AT_ONCE, size)
        if wait:
            raise BusyError(f"you filed {TEXT_AT_ONCE >> 20} MiB of text, which the owner keeps for ever; after that it takes "
                            f"{TEXT_A_SECOND / 1024:g} KiB a second: try again in {math.ceil(wait)} s")  # fmt: skip

    def _wait(self, of: tuple[str, str], rate: float, burst: float, amount: float) -> float:
        """Take from a bucket; gives the seconds to wait where it does not hold as much."""
        with self._asking_lock:
            bucket = self._buckets.setdefault(of, Bucket(rate, burst))
            now = time.monotonic()
            wait = bucket.wait(now, amount)
            if not wait:
                bucket.take(now, amount)
        return wait

    def _in_worker(self, work: Callable[[Analyst, Any], m.Message]) -> Handler:
        def judged(analyst: Analyst, message: Any) -> m.Message:
            # A revocation bites while a question waits for a worker, and while it is computed.
            reply = work(self._registry.analyst(analyst.keys.curve), message)
            self._registry.analyst(analyst.keys.curve)
            return reply

        async def handler(analyst: Analyst, message: Any) -> m.Message:
            return await _begun(self._workers, judged, analyst, message)

        return handler

    def _padded(
        self, handler: Callable[[Analyst, Any], Awaitable[m.Message]]
    ) -> Callable[[Analyst, Any], Awaitable[m.Message]]:
        """Where the owner asked for it, answers leave at multiples of a time after they were asked, errors too, and have
        multiples of a size. The dataset's public settings alone say which."""  # noqa: D209

        async def padded(analyst: Analyst, message: m.Release) -> m.Message:
            found = [d for d in self._catalogue.live() if (d.name, d.version) == (message.dataset, message.version)]
            ms, size = (found[0].meta.get(k, 0) for k in ("answer_ms", "answer_bytes")) if found else (0, 0)
            start = asyncio.get_running_loop().time()
            try:
                reply = await handler(analyst, message)
            finally:
                if ms:
                    taken = (asyncio.get_running_loop().time() - start) * 1000
                    await asyncio.sleep((-taken % ms) / 1000)
            if size and isinstance(reply, m.Released):
                (frame,) = map(bytes, reply.payload)
                reply = m.Released([frame + b" " * (-len(frame) % size)])  # JSON ends in spaces as well as not
            return reply

        return padded

    # Who is there

    def _enrol(self, key: str, message: m.Enrol) -> m.Message:
        version = agree(message.versions)
        keys = PublicKeys(message.curve, message.signing)
        covered = enrolment(self.keys.public, key, keys)
        if not keys.verify("enrol", covered, message.signature):
            raise InvitationError("the enrolment is not signed by the key that it brings")
        analyst = self._registry.enrol(key, keys)
        self._notify(f"{analyst.name} enrolled as {analyst.role}; key fingerprint {keys.fingerprint}")
        return m.Enrolled(version, analyst.name, analyst.role)

    async def _rotate(self, analyst: Analyst, message: m.Rotate) -> m.Message:
        keys = PublicKeys(message.curve, message.signing)
        covered = rotation(self.keys.public, keys)
        old, new = message.old_signature, message.new_signature
        if not analyst.keys.verify("rotate", covered, old) or not keys.verify("rotate", covered, new):
            raise KeyMismatchError("a rotation must be signed by the old and by the new key")
        self._registry.rotate(analyst, keys)
        self._notify(f"{analyst.name} rotated keys; fingerprint now {keys.fingerprint}")
        return m.Rotated()

    async def _hello(self, analyst: Analyst, message: m.Hello) -> m.Message:
        version = agree(message.versions)
        proof: tuple[bytes, ...] = ()
        restored: list[bytes] = []
        if message.head:
            held = Head.from_json(canonical.loads(message.head))
            if not self._journal.signed(held):
                raise KeyMismatchError("the signed head that you hold is not this owner's; connect with a new invitation")
            found = self._journal.continuation(held, len(self._journal))
            if found is None:
                restored = self._explain(analyst, held)
            else:
                proof = found
        card = {"name": self.name, "role": analyst.role, "analyst": analyst.name, "software": f"syft-lab {__version__}",
                "isolation": self._isolation, "environment": _environment(), "start": self._start_id}  # fmt: skip
        announced, signature = ("", b"")
        if self.next_keys is not None:
            announced = self.next_keys.public.curve
            signature = self.keys.sign("next-curve", announced.encode())
        head = canonical.dumps(self._journal.head.to_json())
        return m.Welcome(version, canonical.dumps(card), head, list(proof), restored, announced, signature)

    def _explain(self, analyst: Analyst, held: Head) -> list[bytes]:
        """The owner's confirmation that covers a head our log does not continue; without one, suspend."""
        for entry in self._journal.of_kinds("restored"):
            # All that was signed before the confirmation and is gone was lost with the copy that it is about.
            if held.time < entry.time:
                return [canonical.dumps(self._prove(entry).to_json())]
        heads = [e.body["head"] for e in self._journal.of_kinds("suspended")]
        if held.to_json() not in heads:
            self._journal.append("suspended", {"analyst": analyst.name, "head": held.to_json()})
            self._notify(
                f"SUSPENDED: {analyst.name} holds a head of {held.size} entries that this owner signed, and this journal "
                f"has {len(self._journal) - 1} others. An old copy of the state folder was restored: nothing is released "
                "until you run owner.confirm_restore()"
            )
        return []

    # What there is

    async def _ping(self, analyst: Analyst, message: m.Ping) -> m.Message:
        if sum(memoryview(frame).nbytes for frame in message.payload) > PINGED:
            raise WireError(f"a ping has at most {PINGED >> 10} KiB")
        return m.Pong(message.payload)

    async def _datasets(self, analyst: Analyst, message: m.Datasets) -> m.Message:
        if "mock" not in analyst.rights:
            return m.Catalogue([canonical.dumps([])])
        return m.Catalogue([canonical.dumps([d.public() for d in self._catalogue.open_to(analyst)])])

    async def _mock(self, analyst: Analyst, message: m.Mock) -> m.Message:
        analyst.need("mock")
        dataset = self._catalogue.find(analyst, message.dataset, message.version)
        mock = self._store.mock(dataset.meta["file"])
        columns = {name: series.to_list() for name, series in mock.to_dict().items()}
        return m.Table([canonical.dumps(_without_infinity(columns))])

    async def _account(self, analyst: Analyst, message: m.Account) -> m.Message:
        shown = [
            {"population": population, **self._balance(analyst, population)}
            for population in self._ledger.accounts(analyst.name)
        ]
        return m.Accounts(canonical.dumps(shown))

    def _balance(self, analyst: Analyst, population: str) -> dict[str, Any]:
        """An analyst's account, and what of it is available: what others spent shows only where their cap binds."""
        own, together = self._ledger.account(analyst.name, population), self._ledger.population(population)
        exact = self._ledger.exact(population, analyst.name)
        return {**own.to_json(), "available": own.left.at_most(together.left).to_json(), "exact": exact}

    # Questions

    def _price(self, analyst: Analyst, message: m.Price) -> m.Message:
        dataset, query, cost = self._question(analyst, message)
        prepared = queries.prepare(dataset.schema, query, cost)
        decision = self._decide(analyst, dataset, cost)
        quote = {
            **cost.to_json(),
            "accuracy": prepared.accuracy,
            "scales": prepared.scales,
            "allowed": isinstance(decision, policy.Allow),
            "why": decision.why if isinstance(decision, policy.Refuse) else "",
            "account": self._balance(analyst, dataset.population),
        }
        return m.Priced(canonical.dumps(quote))

    def _release(self, analyst: Analyst, message: m.Release) -> m.Message:
        if not re.fullmatch(r"[0-9a-f]{32}", message.request):
            raise WireError("a request id has 32 hexadecimal digits")
        dataset, query, cost = self._question(analyst, message)
        question = Question(
            message.request, analyst.name, dataset.name, dataset.version, dataset.population, query.digest, cost
        )
        self._ledger.check_not_suspended()
        with self._alone(question):
            entry = self._earlier(question) or self._walk(analyst, dataset, query, question)
        return m.Released([canonical.dumps(self._prove(entry, message.held).to_json())])

    def _alone(self, question: Question) -> threading.Lock:
        """One at a time for the same question of the same analyst, so that asking twice at once costs once."""
        key = (question.analyst, question.dataset, question.version, question.digest, question.cost)
        with self._asking_lock:
            if len(self._asking) > 1024:
                self._asking = {k: lock for k, lock in self._asking.items() if lock.locked()}
            return self._asking.setdefault(key, threading.Lock())

    def _earlier(self, question: Question) -> Entry | None:
        """The answer that was released for this request or question before; raises FailedError for one that broke."""
        state = self._ledger.known(question)
        if state in ("failed", "interrupted"):
            broke = "was interrupted when the owner's kernel stopped" if state == "interrupted" else "failed"
            raise FailedError(f"this question {broke}; its cost ({question.cost}) counts as spent. Ask again to pay anew")
        seq = self._ledger.earlier(question)
        return None if seq is None else self._journal.entry(seq)

    def _walk(self, analyst: Analyst, dataset: Dataset, query: Query, question: Question) -> Entry:
        """The corridor from policy to journal."""
        rule = self._allowed(analyst, dataset, question.cost)
        prepared = queries.prepare(dataset.schema, query, question.cost)
        table = self._store.table(dataset.meta["file"])  # lazily: no row is read yet, and if it is gone nothing is spent
        said = {"query": query.to_json(), "question": wording.question(query, dataset.name), "policy": str(rule)}

        def work() -> dict[str, Any]:
            value = release.seal(prepared, queries.run(prepared, table))
            return {**said, "data": dataset.meta["commitment"], "value": value, **release.guarantee(prepared, dataset.unit)}

        entry = self._settled(question, {**said, "rule": rule.id}, work)
        self._notify(f"{analyst.name} asked for the {said['question']}: released at {question.cost}")
        return entry

    def _allowed(self, analyst: Analyst, dataset: Dataset, cost: Cost) -> policy.Rule:
        """The rule that lets a question run; raises RefusedError where none does."""
        decision = self._decide(analyst, dataset, cost)
        if isinstance(decision, policy.Allow):
            return decision.rule
        raise RefusedError(decision.why if isinstance(decision, policy.Refuse) else "a person must decide; ask the owner")

    def _settled(self, question: Question, reserved: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Entry:
        """Reserve the cost, do the work, and journal what it gives; whatever goes wrong after the reservation is paid for."""
        self._ledger.reserve(question, reserved)
        try:
            return self._ledger.release(question, work())
        except BaseException as error:
            self._ledger.fail(question.request)
            if isinstance(error, LabError):
                raise
            raise FailedError("the owner's kernel could not compute this query; its cost counts as spent") from None

    def _noise(self, analyst: Analyst, seat: Seat, message: m.Noise) -> m.Message:
        """An aggregate of a plan under noise. It walks as a question does."""
        if not re.fullmatch(r"[0-9a-f]{32}", message.request):
            raise WireError("a request id has 32 hexadecimal digits")
        cost = _cost(message.epsilon, message.delta)
        if self.tensors is None:
            raise RefusedError("this owner does not do that")
        found, _ = self.tensors.leaving(seat, "aggregate", {"value": message.value})
        (source,) = found["label"]["sources"]
        named = dataset_of(source)
        if named is None:
            raise RefusedError("only aggregates of datasets of this owner leave under noise")
        dataset = self._catalogue.find(analyst, *named)
        question = Question(
            message.request, analyst.name, dataset.name, dataset.version, dataset.population, found["digest"], cost, REPLACE
        )
        self._ledger.check_not_suspended()
        with self._alone(question):
            entry = self._earlier(question) or self._walk_plan(analyst, dataset, question, found)
        return m.Released([canonical.dumps(self._prove(entry, message.held).to_json())])

    def _walk_plan(self, analyst: Analyst, dataset: Dataset, question: Question, found: Mapping[str, Any]) -> Entry:
        """The same corridor for an aggregate that the owner holds."""
        from syft_lab.budget import noise

        rule = self._allowed(analyst, dataset, question.cost)
        if len(found["ints"]) > noise.MAX_NUMBERS:
            raise UsageError(f"at most {noise.MAX_NUMBERS} numbers are released at a time; this has {len(found['ints'])}")
        plan = {k: found[k] for k in ("text", "digest", "shape", "dtype", "said")}
        said = {"plan": plan, "question": wording.tensor(plan, dataset.name), "policy": str(rule), "rule": rule.id}

        def work() -> dict[str, Any]:
            made = noise.prepare(found["l1"], found["l2"], question.cost)
            promise = release.guarantee_of_plan(made, dataset, self._isolation, found["tried"])
            return {**said, "data": dataset.meta["commitment"], "value": release.seal_tensor(found, made), **promise}

        entry = self._settled(question, said, work)
        gaps = f"; {found['filled']} entries on the way had no value, such as a place out of range" if found["filled"] else ""
        self._notify(f"{analyst.name} asked for {said['question']}: released at {question.cost}{gaps}")
        return entry

    def _question(self, analyst: Analyst, message: m.Price | m.Release) -> tuple[Dataset, Query, Cost]:
        analyst.need("ask")
        dataset = self._catalogue.find(analyst, message.dataset, message.version)
        if dataset.tensor is not None:
            raise RefusedError(f"{dataset.name} is a tensor, which answers no such questions; use it in a %%remote cell")
        cost = Cost(
            _cost(message.epsilon, message.delta).epsilon
        )  # every mechanism here is pure: a δ that was offered is not taken
        query = parse_query(message.query)
        query.check(dataset.schema)
        return dataset, query, cost

    def _decide(self, analyst: Analyst, dataset: Dataset, cost: Cost) -> policy.Decision:
        return self._rulebook.decide(policy.Case("dp", analyst.name, analyst.role, (dataset.name,), self._journal.now(), cost))

    # Code

    def _file(self, analyst: Analyst, message: m.File) -> m.Message:
        if self._isolation.startswith("L0"):
            raise RefusedError(f"{self.name} can't run code: its isolation is {self._isolation}")
        new = not self._journal.read("SELECT 1 FROM requests WHERE request = ?", message.request)
        row = self._desk.file(analyst, message.request, message.terms, message.follows)
        if new and row.state == "filed":
            self._notify(f"{analyst.name} asks to run code: request {row.number}. owner.inbox shows it")
        return m.Filed(canonical.dumps(self._desk.public(row)))

    def _ask(self, analyst: Analyst, seat: Seat, message: m.Ask) -> m.Message:
        """An exact value, asked for: it is kept as it is now, and the owner decides about it as about a cell's result."""
        self._check_rate(analyst)
        if seat.joint and self._partners is not None:
            return self._filed(
                analyst, message.request, lambda partners: partners.ask(analyst, seat, message), "a part of a value"
            )
        found, _ = seat.call("describe", {"value": message.value})
        if found["label"]["kind"] == "public" and found["lost"]:  # for public reasons
            raise FailedError(found["lost"])
        if found["label"]["kind"] == "public":
            raise UsageError("this value is public: x.get() brings it back")
        size = math.prod(found["shape"]) * 8
        if size > self._desk.settings.limits(analyst.role).output:
            raise UsageError(f"this value has {found['shape']} entries, more than an owner lets out; ask for less of it")
        blob = b""
        if not found["lost"]:
            _, frames = seat.call("fetch", {"value": message.value, "start": 0, "length": 1 << 62, "private": True})
            blob = values.of_tensors({"value": as_array(bytes(frames[0]), found["dtype"], found["shape"])})
        uses = [d for s in found["label"]["sources"] if (d := dataset_of(s)) is not None]
        cell = Cell(found["code"], tuple(Use(*u) for u in uses), ("value",), {}, message.reason)
        new = not self._journal.read("SELECT 1 FROM requests WHERE request = ?", message.request)
        terms = canonical.dumps(cell.to_json())
        self._check_text(analyst, len(terms))
        row = self._desk.file(analyst, message.request, terms, 0, (blob, found["lost"]))
        if new and row.state == "filed":
            self._notify(f"{analyst.name} asks for an exact value: request {row.number}. owner.inbox shows it")
        return m.Filed(canonical.dumps(self._desk.public(row)))

    def _propose(self, analyst: Analyst, message: m.Propose) -> m.Message:
        return self._filed(analyst, message.request, lambda partners: partners.propose(analyst, message), "a partnership")

    def _filed(self, analyst: Analyst, request: str, work: Callable[[Partners], Row], what: str) -> m.Message:
        if self._partners is None:
            raise RefusedError(f"{self.name} has no torch, so it takes part in no federation")
        new = not self._journal.read("SELECT 1 FROM requests WHERE request = ?", request)
        row = work(self._partners)
        if new and row.state == "filed" and row.request == request:
            self._notify(f"{analyst.name} asks for {what}: request {row.number}. owner.inbox shows it")
        return m.Filed(canonical.dumps(self._desk.public(row)))

    async def _watch(self, analyst: Analyst, message: m.Watch) -> m.Message:
        """A long poll: one a session, whatever the number of its requests."""
        end = asyncio.get_running_loop().time() + min(max(message.wait, 0), MAX_WAIT_MS) / 1000
        changed = asyncio.Event()
        self._waiting[changed] = analyst.name
        try:
            while True:
                if self._stopping:
                    raise ConnectionLost(STOPPING)
                at, found = await _begun(None, self._news, analyst, message.after)
                left = end - asyncio.get_running_loop().time()
                if found or left <= 0:
                    return m.Requests([canonical.dumps({"at": at, "requests": found})])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
                changed.clear()
                self._registry.analyst(analyst.keys.curve)  # a revocation ends the wait
        finally:
            del self._waiting[changed]

    def _news(self, analyst: Analyst, after: int) -> tuple[int, list[dict[str, Any]]]:
        """The newest requests of an analyst that changed after an entry, and the entry to ask from next time."""
        rows = self._desk.rows(analyst.name, after)[-MAX_LISTED:]
        return max((r.entry for r in rows), default=after), [self._desk.public(r) for r in rows]

    def _wake(self, row: Row | None = None) -> None:
        """From any thread: those who wait for this analyst's requests look again, or all, where rights have changed."""

        def wake() -> None:
            for changed, analyst in self._waiting.items():
                if row is None or row.analyst == analyst:
                    changed.set()

        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.loop.call_soon_threadsafe(wake)

    def _let_in(self) -> None:
        """From any thread: who may shake hands has changed. Returns once the door knows; who was revoked is cut off now."""
        server, loop = self._server, self._loop
        revoked, self._revoked = self._registry.revoked - self._revoked, self._registry.revoked
        if revoked and self.tensors is not None:
            self.tensors.keep({a.name for a in self._registry.analysts})
        if server is None or loop is None:
            return
        if loop.here:
            server.tell(revoked)
            return
        with contextlib.suppress(RuntimeError, ConnectionLost):  # the loop is closing; or is held up, and will tell
            loop.run(server.told(revoked), START_SECONDS)

    async def _tidy(self) -> None:
        """Free the memory of sessions that nobody uses."""
        while self.tensors is not None:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(self.tensors.idle)

    def _collect(self, analyst: Analyst, message: m.Collect) -> m.Message:
        self._ledger.check_not_suspended()
        entry, salt, blob = self._desk.released(analyst.name, message.request)
        return m.Collected([canonical.dumps(self._prove(entry, message.held).to_json()), salt, blob])

    def _comment(self, analyst: Analyst, message: m.Comment) -> m.Message:
        analyst.need("file")
        row = self._desk.comment(message.request, message.text, analyst.name, analyst.name)
        self._notify(f"{analyst.name} commented on request {row.number}")
        return m.Filed(canonical.dumps(self._desk.public(row)))

    def _log(self, analyst: Analyst, message: m.Log) -> m.Message:
        analyst.need("log")
        return m.Logged([exports.part(self.name, self.keys.public, self._journal, max(0, message.start))])

    def _cancel(self, analyst: Analyst, message: m.Cancel) -> m.Message:
        row = self._desk.cancel(message.request, analyst.name)
        self._notify(f"{analyst.name} cancelled request {row.number}")
        return m.Filed(canonical.dumps(self._desk.public(row)))

    async def _manage(self, key: str, message: m.Manage) -> m.Message:
        """The owner's own key, from a terminal on this machine; or somebody enrolled, as far as their rights go."""
        by, rights = OWNER, tuple(RIGHTS)
        if key != self._registry.manager:
            analyst = self._registry.analyst(key)
            analyst.need("read")
            by, rights = analyst.name, analyst.rights
        if self.manager is None:
            raise RefusedError("this owner decides in its notebook")
        action = canonical.loads(message.action)
        if not isinstance(action, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in action.items()):
            raise WireError("an action is a mapping of texts")
        found = await _begun(self._workers, self.manager, action, by, rights)
        if by != OWNER:
            self._registry.analyst(key)  # a revocation bites while it is looked up
        return m.Managed([canonical.dumps(found)])

    # Tensors

    async def _tensor(self, analyst: Analyst, message: Any) -> m.Message:
        if self.tensors is None:
            raise RefusedError(f"{self.name} has no torch, so it computes on no tensors")
        reply: m.Message = await self.tensors.handle(analyst, message)
        self._registry.analyst(analyst.keys.curve)  # a revocation bites while it is computed
        return reply

    async def _leave(self, analyst: Analyst, message: m.Leave) -> m.Message:
        return m.Ran(b"") if self.tensors is None else await self.tensors.leave(analyst, message)

    def _prove(self, entry: Entry, held: int = 0) -> Receipt:
        """The receipt for an entry under the newest head, continuing the head of size ``held``."""
        size = self._journal.size_with(entry.seq)
        head = self._journal.head_at(size)
        previous = self._journal.head_at(held) if 0 < held <= size else None
        continuation = self._journal.continuation(previous, size) if previous else ()
        path = self._journal.inclusion(entry.seq, size)
        return Receipt(self.name, self.keys.public, entry.data, entry.seq, path, head, previous, continuation or ())


def enrolment(owner: PublicKeys, invitation: str, keys: PublicKeys) -> bytes:
    """What an enrolment's signature covers."""
    return canonical.dumps([owner.curve, invitation, keys.curve, keys.signing])


def rotation(owner: PublicKeys, keys: PublicKeys) -> bytes:
    """What the signatures of a rotation cover."""
    return canonical.dumps([owner.curve, keys.curve, keys.signing])


def _begun(executor: Executor | None, work: Callable[..., T], *given: Any) -> asyncio.Future[T]:
    """What comes of work in a thread of ``executor`` (None: the loop's own). Raises ConnectionLost once it takes no more.

    An interpreter that ends in good order stops all of them first, while this service still answers.
    """
    try:
        return asyncio.get_running_loop().run_in_executor(executor, work, *given)
    except RuntimeError:
        raise ConnectionLost(STOPPING) from None


def _cost(epsilon: int, delta: int) -> Cost:
    if not 0 < epsilon <= MAX_QUERY_EPSILON * MICRO or not 0 <= delta < PICO:
        raise UsageError(f"epsilon must be above 0 and at most {MAX_QUERY_EPSILON}, and delta from 0 to below 1")
    return Cost(epsilon, delta)


@cache  # the files that say so are read, which takes as long as a hundred answers
def _environment() -> Mapping[str, str]:
    return {**environment(), **{n: metadata.version(n) for n in ("opendp", "polars")}}


def _without_infinity(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    infinite = (float("inf"), float("-inf"))
    return {name: [None if v in infinite else v for v in values] for name, values in columns.items()}
