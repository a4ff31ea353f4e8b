"""What one session records for its owner's device: sent in batches, in order, each message once; asked for when wanted.

A batch goes when a value is asked for, when it has `BATCH` operations, or when nothing was recorded for a while. Only what
pointers still hold is kept at the owner; what none holds is freed there with the next batch.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from syft_lab import canonical, plans
from syft_lab.analyst import loops, progress
from syft_lab.analyst.link import BROKEN, Patience
from syft_lab.errors import BusyError, ConnectionLost, LabError, StalePointerError
from syft_lab.plans import Node, Plan
from syft_lab.receipt import Head
from syft_lab.record import Recorded, Tape, Value, apart, draw
from syft_lab.spec import Spec, as_bytes
from syft_lab.wire import chunks
from syft_lab.wire import messages as m
from syft_lab.wire.messages import Ordered

if TYPE_CHECKING:
    from syft_lab.analyst.session import Session

BATCH, IDLE_SECONDS, WINDOW = 1024, 0.5, 16
PART, FETCHED = 8 << 20, 8 << 20  # bytes of a tensor in one message: there, and back (the owner's `PART`)
RUNS, PLANS = 256, 128  # a message; remembered as known to the owner, who remembers more
ANSWER_SECONDS = 600.0
BUSY_SECONDS, BUSY_PAUSE = 45.0, 0.2  # what came after it waits for its turn there, 60 s at most
HISTORY, ORIGINS = 20_000, 64 << 20


@dataclass(frozen=True)
class Dataset:
    """Where a value came from: a published dataset, or columns of one."""

    name: str
    version: int
    columns: tuple[str, ...]


class _Run(NamedTuple):
    """A plan, what it runs on and makes, what to free then, its seeds, and whether the owner keeps it for the next time."""

    plan: Plan
    inputs: list[int]
    outputs: list[int]
    free: list[int]
    seeds: Sequence[int]
    kept: bool


class _Asked(NamedTuple):
    """A message that waits for its turn, what answers it, and where that goes."""

    message: Ordered
    expected: type[m.Message]
    future: Future[Any]
    into: memoryview | None


class SessionTape(Tape):
    """The tape of a session. Once what the owner held is lost, it is ``dead`` and says why; the session begins another."""

    def __init__(self, session: Session, kind: type[Recorded]) -> None:
        super().__init__(kind)
        self.session, self.owner = session, session.alias
        self.space = secrets.token_hex(16)
        self.sent, self._begun = 0, False
        self._remote: set[int] = set()
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None
        self._window = asyncio.Semaphore(WINDOW)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Future[Any]] = set()  # what somebody may wait for, wherever it is on its way
        self._last = 0.0
        self._waking = False
        self._failed: dict[int, LabError] = {}
        self._plans: OrderedDict[str, None] = OrderedDict()  # that the owner keeps
        self._seen: OrderedDict[str, None] = OrderedDict()  # that went there once
        self._loop = loops.NONE
        self.made: OrderedDict[int, Node] = OrderedDict()
        self.origins: dict[int, Dataset | torch.Tensor] = {}
        self._kept = 0
        self._runs: list[_Run] = []  # made ready, and not sent yet
        self._waiting = 0
        self._work = progress.Work()
        self.holding: dict[int, Value] = {}

    # Recording

    def check(self) -> None:
        """Raises StalePointerError once the owner has lost what it held."""
        if self.dead is not None and not isinstance(self.dead, StalePointerError):
            raise type(self.dead)(str(self.dead))
        if self.dead is not None:
            raise StalePointerError(f"{self.dead}. What pointers stood for is gone at {self.owner}: pointer.recompute() "
                                    "computes it again from what made it, where that is kept") from None  # fmt: skip

    def grown(self) -> None:
        """Send when there is enough, or nothing more comes for a while."""
        self._last = time.monotonic()
        if len(self.nodes) + self._waiting >= BATCH:
            self.flush(whole=False)
        elif not self._waking:
            self._waking = True
            self.session.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """On the loop: look whether the recording has come to rest."""
        left = self._last + IDLE_SECONDS - time.monotonic()
        if not self.nodes and not self.freed and not self._runs:
            self._waking = False
        elif left > 0:
            self.session.loop.call_later(left + 0.01, self._wake)
        else:
            self._waking = False
            threading.Thread(target=self._rest, name="syft-flush", daemon=True).start()

    def _rest(self) -> None:
        if self.dead is None:
            self.flush()

    def put(self, tensor: torch.Tensor) -> Value:
        """Send a local tensor; what is sent is what it holds now."""
        if tensor.nbytes > PART and self.freed:
            self.flush()  # first what is gone goes there too, and makes room
        value = self.new()
        data = as_bytes(tensor.cpu())
        about: dict[str, Any] = {
            "value": value.number,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
        }
        self._remote.add(value.number)  # so that what came of it is freed, whatever happens on the way
        small = data.numel() <= PART
        sent = data.clone() if small and _shared(data, tensor) else data
        asked: list[Future[Any]] = []
        for start in range(0, max(sent.numel(), 1), PART):
            message = m.Put(self.space, 0, start=start, payload=[sent[start : start + PART].numpy().data], **about)
            size = message.payload[0].nbytes  # type: ignore[union-attr]
            asked.append(self.queue(message, m.Ran, [value.number], work=(0, size)))
            if len(asked) > 2 * WINDOW:  # what is too large is said while it is on its way
                self.wait(asked.pop(0))
        if not small:  # no copy was made: until all of it is there, nobody may write to it
            for future in asked:
                self.wait(future)
        if small:
            self._kept += data.numel()
            self.origins[value.number] = (
                sent.view(tensor.dtype).reshape(tensor.shape) if data.numel() else torch.empty_like(tensor)
            )
        while self._kept > ORIGINS:  # the oldest tensors go; a dataset is only a name
            oldest = next(n for n, t in self.origins.items() if isinstance(t, torch.Tensor))
            self._kept -= self.origins.pop(oldest).nbytes  # type: ignore[union-attr]
        return value

    def load(self, dataset: Dataset, spec: Spec) -> Recorded:
        """A pointer to a published dataset."""
        value = self.new()
        columns = canonical.dumps(list(dataset.columns))
        self.queue(m.Load(self.space, 0, value.number, dataset.name, dataset.version, columns), m.Ran, [value.number])
        self._remote.add(value.number)
        self.origins[value.number] = dataset
        return self.make(spec, value)

    def run(self, plan: Plan, inputs: Sequence[Value]) -> list[Value]:
        """Run a plan that was captured: sent whole once, then by its digest. Gives its outputs.

        Raises OtherOwnerError where an input is another tape's: only numbers travel, and its number names another value here.
        """
        for value in inputs:
            if value.tape is not self:
                raise apart(self, value.tape, "one plan reads")
        with self.lock:
            self._close_batch()
            made = [self.new() for _ in plan.outputs]
            numbers = [v.number for v in made]
            seeds = [draw() for _ in plan.seeds]
            self._runs.append(_Run(plan, [v.number for v in inputs], numbers, [], seeds, True))
            self._remote.update(numbers)
            self.recorded += len(plan.nodes)
            self._waiting += len(plan.nodes)
        self.grown()
        return made

    def _close_batch(self, whole: bool = True) -> None:
        """Make plans of what was recorded, without what nobody holds any more; they wait to be sent.

        Unless all of it is asked for (``whole``), a loop's iteration that is not over stays for the next time.
        """
        cuts = self._cuts()
        end = len(self.nodes) if whole or not cuts else cuts[-1]
        nodes, self.nodes = self.nodes[:end], self.nodes[end:]
        count = len(self.freed)  # values end in any thread, also now
        gone = set(self.freed[:count])
        del self.freed[:count]
        gone_later = gone & {n for node in self.nodes for n in (*plans.refs(node), *node.outs) if n is not None}
        self.freed += gone_later  # they are read, or made, by what stays
        gone -= gone_later
        pending = {out for node in nodes for out in node.outs if out is not None}
        wanted = {n for n in pending if n not in gone}
        live = plans.alive(nodes, wanted)
        for node in live:
            for out in node.outs:
                if out is not None:
                    self.made[out] = node
        while len(self.made) > HISTORY:
            self.made.popitem(last=False)
        free = gone & self._remote
        self._remote.difference_update(free)
        kept, places = {id(node) for node in live}, [0, *(c for c in cuts if 0 < c < end), end]
        parts = [[n for n in nodes[a:b] if id(n) in kept] for a, b in pairwise(places)]
        self._add_runs([part for part in parts if part], wanted, free)
        self._remote.update(wanted)

    def _cuts(self) -> list[int]:
        """Where iterations of a loop begin and end in what was recorded."""
        cuts = loops.cut(self.nodes, self._loop)
        if not cuts and len(self.nodes) >= BATCH // 2:
            self._loop = loops.found(self.nodes)
            cuts = loops.cut(self.nodes, self._loop)
        return cuts

    def _add_runs(self, parts: Sequence[Sequence[Node]], wanted: set[int], free: set[int]) -> None:
        """A run for each part; a value that later parts read leaves one, and is freed after the last that does."""
        reads = [{n for node in part for n in plans.refs(node)} for part in parts]
        last = {n: i for i, read in enumerate(reads) for n in read}
        for i, part in enumerate(parts):
            made = {out for node in part for out in node.outs if out is not None}
            outputs = sorted(n for n in made if n in wanted or last.get(n, i) > i)
            passing = {n for n in reads[i] - wanted if last[n] == i and n not in made and (n in free or n not in self._remote)}
            plan = Plan.of(part, sorted(reads[i] - made), outputs)
            now = sorted(passing if i + 1 < len(parts) else passing | {n for n in free if n not in last})
            self._runs.append(_Run(plan, sorted(reads[i] - made), outputs, now, plan.seeds, False))
        if not parts and free:
            self._runs.append(_Run(Plan(0, (), ()), [], [], sorted(free), (), False))

    def flush(self, whole: bool = True) -> None:
        """Send what was recorded; or, if not the ``whole`` of it, up to an iteration of a loop that is not over."""
        with self.lock:
            self.check()
            self._close_batch(whole)
            runs, self._runs, self._waiting = self._runs, [], 0
            for start in range(0, len(runs), RUNS):
                self._send_runs(runs[start : start + RUNS])

    def _send_runs(self, runs: Sequence[_Run]) -> None:
        """Send plans with what they run on. Those that were captured, or come again, the owner keeps: their digest does."""
        sent: list[bytes] = []
        said = []
        for run in runs:
            name = run.plan.digest
            again = run.kept or name in self._seen
            if name not in self._plans:
                sent.append(run.plan.canonical)
                if not again:
                    name = f"#{len(sent) - 1}"
            _use(self._plans if again else self._seen, run.plan.digest)
            said.append({"inputs": run.inputs, "outputs": run.outputs, "free": run.free, "seeds": run.seeds, "plan": name})
        head = canonical.dumps({"runs": said, "plans": [len(p) for p in sent]})
        outputs, count = [o for run in runs for o in run.outputs], sum(len(run.plan.nodes) for run in runs)
        self.queue(m.Run(self.space, 0, payload=[head, b"".join(sent)]), m.Ran, outputs, work=(count, 0))

    # Sending

    def queue(
        self,
        message: Ordered,
        expected: type[m.Message],
        outputs: Sequence[int] = (),
        into: memoryview | None = None,
        work: tuple[int, int] = (0, 0),
    ) -> Future[Any]:
        """Send a message in its turn; ``outputs`` fail with it. A large reply is received ``into`` memory that waits for it.

        ``work`` is how many operations and bytes it stands for, for people who wait.
        """
        future: Future[Any] = Future()
        if work != (0, 0):
            future.add_done_callback(self._work.ask(*work))
        with self.lock:
            self.check()
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self.sent += 1
            numbered = replace(message, number=self.sent)
            if outputs:
                future.add_done_callback(lambda f: self._fail(f, outputs))
            self.session.loop.call_soon_threadsafe(self._enqueue, _Asked(numbered, expected, future, into))
        return future

    def _fail(self, future: Future[Any], outputs: Sequence[int]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, LabError) and self.dead is None:
            for number in outputs:
                self._failed.setdefault(number, error)

    def _enqueue(self, asked: _Asked) -> None:
        self._queue.put_nowait(asked)
        if self._pump is None or self._pump.done():
            self._pump = self.session.loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        while not self._queue.empty():
            asked = self._queue.get_nowait()
            await self._window.acquire()
            task = self.session.loop.create_task(self._one(*asked))
            self._tasks.add(task)
            task.add_done_callback(self._over)
            if asked.message.number == 1:  # it opens the session; what overtook it would look like one that the owner forgot
                await asyncio.wait([task])

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._window.release()

    async def _one(
        self, message: Ordered, expected: type[m.Message], future: Future[Any], into: memoryview | None = None
    ) -> None:
        """Send a message, again if the link broke: the owner does it once."""
        patience, end = Patience(), time.monotonic() + BUSY_SECONDS
        while True:
            if self.dead is not None:
                self._settle(future, StalePointerError(str(self.dead)))
                return
            held = self.session.head
            try:
                await self.session.connected()
                patience.back()
                asked = replace(message, held=held.size if held else 0) if isinstance(message, m.Noise) else message
                reply = await self.session.asking(asked, expected, ANSWER_SECONDS, into)
            except BROKEN as error:
                if not self.session.closed and await patience.broke(ANSWER_SECONDS):
                    continue
                self._die(ConnectionLost(f"the connection to {self.owner} broke, and did not come back ({error})"))
                self._settle(future, self.dead or error)
            except StalePointerError as error:
                self._die(error)
                self._settle(future, error)
            except BusyError as error:
                if message.number == 1:
                    self._die(error)
                if self.dead or not (_is_large(message) or isinstance(message, m.Fetch)) or time.monotonic() > end:
                    self._settle(future, error)
                    return
                await asyncio.sleep(BUSY_PAUSE)  # nothing was done: so much is on its way now, of this key's or of all
                continue
            except LabError as error:
                if message.number == 1:
                    self._die(error)
                self._settle(future, error)
            except asyncio.CancelledError:
                self._settle(future, ConnectionLost("the session was closed"))
                raise
            except Exception as fault:  # of ours: whoever waits must hear of it
                self._settle(future, LabError(f"{message.kind} could not be sent ({type(fault).__name__}: {fault})"))
            else:
                self._begun = True
                if not future.done():
                    future.set_result((reply, held))
            return

    @staticmethod
    def _settle(future: Future[Any], error: LabError) -> None:
        if not future.done():
            future.set_exception(error)

    def _die(self, why: LabError) -> None:
        self.dead = self.dead or why

    # Asking

    def value_of(self, number: int) -> None:
        """Raises the error that came of a value, where one did."""
        error = self._failed.get(number)
        if error is not None:
            raise type(error)(str(error))

    def wait(self, future: Future[Any], timeout: float = ANSWER_SECONDS) -> tuple[Any, Head | None]:
        """Wait for a reply; Interrupt ends the wait. In a notebook it is said how far it is, where that takes long."""
        try:
            found: tuple[Any, Head | None] = progress.watched(future, timeout, self.owner, self._work)
        except TimeoutError:
            raise ConnectionLost(f"{self.owner} did not answer within {timeout:g} s") from None
        except StalePointerError:
            self.check()
            raise
        return found

    def fetch(self, number: int, spec: Spec) -> torch.Tensor:
        """The tensor behind a number; raises PrivateValueError where it is private."""
        self.flush()
        size, whole = spec.nbytes, np.empty(0, np.uint8)
        asked: list[tuple[int, Future[Any]]] = [(0, self.queue(m.Fetch(self.space, 0, number, 0), m.Part))]
        for start, future in asked:
            try:
                reply, _ = self.wait(future)
            except StalePointerError:
                raise
            except LabError:
                self.value_of(number)
                raise
            part = memoryview(reply.payload[0]).cast("B")
            if part.nbytes != min(FETCHED, size - start):
                raise LabError("the owner sent another number of bytes than the value has; tell the owner")
            if start == 0:  # it is there, and may leave: now the rest, each part to its place
                whole = np.empty(size, np.uint8)  # of large pages, which are cheaper to come by
                view = whole.data
                for at in range(FETCHED, size, FETCHED):
                    ask = m.Fetch(self.space, 0, number, at)
                    place = view[at : min(at + FETCHED, size)]
                    asked.append((at, self.queue(ask, m.Part, into=place, work=(0, place.nbytes))))
            held: object = part.obj
            if held is not whole:
                whole[start : start + part.nbytes] = part
        found = torch.from_numpy(whole).view(spec.dtype) if size else torch.empty(0, dtype=spec.dtype)
        return found.reshape(spec.shape) if math.prod(spec.shape) else torch.empty(spec.shape, dtype=spec.dtype)

    def waits(self, number: int) -> bool:
        """Whether a value is recorded, and not sent."""
        return number not in self._remote or any(number in run.outputs for run in self._runs)

    def lose(self, why: LabError) -> None:
        """The owner's kernel is another one: what the one before held is gone. What it never heard of goes to the new one."""
        if self._begun:
            self._die(why)

    def close(self) -> None:
        """The session ends: nothing more is sent."""
        with self.lock:  # nothing is added after this
            self._die(ConnectionLost("this session is closed"))
            left = self._open.copy()
        for future in left:  # a task that is cancelled before it began would tell nobody
            self._settle(future, ConnectionLost("this session is closed"))
        for task in (*self._tasks, *([self._pump] if self._pump is not None else [])):
            task.cancel()

    # After a loss

    def again(self, number: int, other: SessionTape, made: dict[int, int]) -> Value:
        """Record on another tape what made a value here; raises StalePointerError where that is not kept whole."""
        order: list[Node] = []
        todo, seen = [number], set()
        sources: set[int] = set()
        pending = {out: node for node in self.nodes for out in node.outs if out is not None}
        while todo:
            n = todo.pop()
            if n in seen or n in made:
                continue
            seen.add(n)
            node = self.made.get(n) or pending.get(n)
            if node is not None:
                order.append(node)
                todo += plans.refs(node)
            elif n in self.origins:
                sources.add(n)
            else:
                raise StalePointerError(f"what made this value is not kept whole (the last {HISTORY} operations are, and "
                                        f"{ORIGINS >> 20} MB of what was sent): build it anew from datasets")  # fmt: skip
        for n in sorted(sources):
            origin = self.origins[n]
            value = other.put(origin) if isinstance(origin, torch.Tensor) else self.session.tensor_of(origin)._value
            other.hold(value)
            made[n] = value.number
        for node in sorted(
            {node.outs: node for node in order}.values(), key=lambda node: min(o for o in node.outs if o is not None)
        ):
            moved = plans.renamed(node, made)
            values = other.append(moved.op, moved.args, moved.kwargs, len(node.outs))
            for old, value in zip(node.outs, values, strict=True):
                if old is not None:
                    other.hold(value)
                    made[old] = value.number
        return other.holding[made[number]]

    def hold(self, value: Value) -> None:
        """Keep a value while something is computed again from it."""
        self.holding[value.number] = value


def _is_large(message: m.Message) -> bool:
    return chunks.size_of(getattr(message, "payload", ())) > chunks.PIECE


def _use(known: OrderedDict[str, None], name: str) -> None:
    """Note that a plan was used; the one that was not for the longest is forgotten."""
    known[name] = None
    known.move_to_end(name)
    while len(known) > PLANS:
        known.popitem(last=False)


def _shared(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether they lie in the same memory."""
    return bool(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr())
