"""Sessions that compute on tensors: for each a place where its values are, its messages in their order, its releases.

A session counts its messages from 1, so that one which travels twice (a broken link) is done once, and none overtakes
another. What is lost (the kernel or the child was restarted) is lost as a whole: the session is told why, begins another
space, and computes again what it can. Nothing but public values, releases under noise and what the owner approves leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np

from syft_lab import canonical
from syft_lab.errors import (
    BusyError,
    ConnectionLost,
    LabError,
    PartnerError,
    RefusedError,
    StalePointerError,
    UsageError,
    WireError,
)
from syft_lab.kernel.catalogue import Catalogue, Dataset
from syft_lab.kernel.executor.data import Data
from syft_lab.kernel.executor.plans import Host
from syft_lab.kernel.executor.supervisor import Limits
from syft_lab.kernel.executor.wall import Wall
from syft_lab.kernel.registry import Analyst
from syft_lab.kernel.store import Store
from syft_lab.wire import messages as m
from syft_lab.wire.messages import Ordered

PART = 8 << 20
MAX_RUNS, SPACES, KEPT_REPLIES, TURN_SECONDS, IDLE_SECONDS = 1024, 4, 64, 60.0, 1800.0
WITH_PARTNERS = (m.Share, m.Expect, m.Gather, m.Meet, m.Join, m.Deal, m.Enter, m.Hand)
ORDERED = get_args(Ordered)
Start = Callable[[Limits, bool], Host]


class Seat:
    """One session's values. ``turn`` wakes messages that came before their time.

    ``joint``: it is a party of a federation, whose id is in ``federation`` once that is known.
    """

    def __init__(self, analyst: str, start: Callable[[], Host], joint: bool = False, memory: int = 0) -> None:
        self.analyst, self.joint, self.federation, self.memory = analyst, joint, "", memory
        self.next = 1
        self.gone = ""
        self.replies: OrderedDict[int, m.Message | LabError] = OrderedDict()
        self.turn = asyncio.Condition()
        self.touched = time.monotonic()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="syft-plans")
        self._start = start
        self._host: Host | None = None
        self._ended = False

    def call(self, do: str, facts: Mapping[str, Any], frames: Sequence[Any] = (), data: Data | None = None) -> tuple[Any, Any]:
        """Let the runner do something; in the worker's thread."""
        if self._host is None:
            self._host = self._start()
        if self._ended:  # meanwhile: nobody else will close it
            self._host.close()
        return self._host.call(do, facts, frames, data)

    def begun(self, work: Callable[..., m.Message], *given: Any) -> asyncio.Future[m.Message]:
        """What comes of work in the session's own thread; raises StalePointerError, or ConnectionLost where the owner stops."""
        try:
            return asyncio.get_running_loop().run_in_executor(self.worker, work, *given)
        except RuntimeError:
            if self.gone:
                raise StalePointerError(self.gone) from None
            raise ConnectionLost("the owner's kernel is stopping; ask again once it is back") from None

    def close(self) -> None:
        """End it, also while it computes."""
        self._ended = True
        if self._host is not None:
            self._host.close()
        self.worker.shutdown(wait=False, cancel_futures=True)


class Tensors:
    """All sessions of an owner. ``start`` makes a place for values; ``room`` are the bytes that all of them may be promised."""

    def __init__(
        self, catalogue: Catalogue, store: Store, start: Start, limits: Callable[[str], Limits], wall: Wall, room: int = 1 << 62
    ) -> None:  # fmt: skip
        self._room = room
        self._catalogue, self._store, self._start, self._limits, self._wall = catalogue, store, start, limits, wall
        self._seats: dict[tuple[str, str], Seat] = {}
        self._gone: OrderedDict[tuple[str, str], str] = OrderedDict()
        self.noise: Callable[[Analyst, Seat, m.Noise], m.Message] | None = None
        self.ask: Callable[[Analyst, Seat, m.Ask], m.Message] | None = None
        self.with_partners: Callable[[Analyst, Seat, Any], m.Message] | None = None

    async def handle(self, analyst: Analyst, message: Ordered) -> m.Message:
        """Answer a message in its turn."""
        analyst.need("ask")
        seat = self._seat(analyst, message)
        seat.touched = time.monotonic()
        async with seat.turn:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    while message.number > seat.next and not seat.gone:
                        await seat.turn.wait()
            except TimeoutError:
                raise WireError(f"message {message.number} of this session came, and {seat.next} did not") from None
            if seat.gone:
                raise StalePointerError(seat.gone)
            if message.number < seat.next and not isinstance(message, m.Fetch):  # which only reads, and is not kept
                return self._again(seat, message.number)
            reply: m.Message | LabError
            try:
                reply = await seat.begun(self._do, analyst, seat, message)
            except ConnectionLost:  # it was not begun: it comes again, with the same number
                raise
            except (StalePointerError, PartnerError) as error:
                self._drop((analyst.name, message.space), str(error))
                seat.turn.notify_all()
                raise
            except LabError as error:
                reply = error
            except Exception as fault:
                if seat.gone:
                    raise StalePointerError(seat.gone) from None
                reply = LabError(f"the owner's kernel met a fault ({type(fault).__name__}); tell the owner")
            seat.next = max(seat.next, message.number + 1)
            seat.touched = time.monotonic()
            if not isinstance(message, m.Fetch):
                seat.replies[message.number] = reply
            while len(seat.replies) > KEPT_REPLIES:
                seat.replies.popitem(last=False)
            seat.turn.notify_all()
        if isinstance(reply, LabError):
            raise reply
        return reply

    async def leave(self, analyst: Analyst, message: m.Leave) -> m.Message:
        """End a session at once, whatever runs for it."""
        seat = self._seats.get((analyst.name, message.space))
        await asyncio.to_thread(self._drop, (analyst.name, message.space), "the session ended")
        if seat is not None:
            async with seat.turn:
                seat.turn.notify_all()
        return m.Ran(b"")

    def idle(self) -> None:
        """End sessions that nobody used for a while."""
        now = time.monotonic()
        for key, seat in list(self._seats.items()):
            if now - seat.touched > IDLE_SECONDS and not seat.turn.locked():
                self._drop(key, f"the session was idle for {IDLE_SECONDS / 60:g} minutes, and its memory was freed")

    def keep(self, analysts: Collection[str]) -> None:
        """End the sessions of all others, whatever runs for them."""
        for key in list(self._seats):
            if key[0] not in analysts:
                self._drop(key, "the owner revoked your access")

    def stop(self) -> None:
        """End all sessions."""
        for key in list(self._seats):
            self._drop(key, "the owner stopped")
        self._wall.close()

    def end(self, federation: str, analyst: str, why: str) -> None:
        """End an analyst's sessions in a federation; the partners hear of it."""
        for key, seat in list(self._seats.items()):
            if seat.federation == federation and seat.analyst == analyst:
                self._drop(key, why)

    def seats(self) -> list[tuple[str, Seat]]:
        """Analyst and session, of all that are open."""
        return [(analyst, seat) for (analyst, _), seat in list(self._seats.items())]

    def _again(self, seat: Seat, number: int) -> m.Message:
        reply = seat.replies.get(number)
        if reply is None:
            raise WireError("a message of this session came twice, and its answer is no longer kept")
        if isinstance(reply, LabError):
            raise reply
        return reply

    def _seat(self, analyst: Analyst, message: Ordered) -> Seat:
        key = (analyst.name, message.space)
        found = self._seats.get(key)
        if found is None:
            if key in self._gone:
                raise StalePointerError(self._gone[key])
            if message.number != 1:
                raise StalePointerError("the owner's kernel was restarted, and what it held for this session is gone")
            if not re.fullmatch(r"[0-9a-f]{32}", message.space):
                raise WireError("a session is named by 32 hexadecimal digits")
            self.idle()
            own = sorted((s.touched, k) for k, s in self._seats.items() if k[0] == analyst.name)
            if len(own) >= SPACES:
                raise BusyError(f"{len(own)} sessions of yours hold tensors here; close one of them: session.close()")
            joint, limits = isinstance(message, m.Gather), self._limits(analyst.role)
            self._check_room(limits.memory)
            found = self._seats[key] = Seat(analyst.name, lambda: self._start(limits, joint), joint, limits.memory)
        return found

    def _check_room(self, memory: int) -> None:
        """Raise BusyError where one more session could take what others were promised: else all end when memory does."""
        promised = sum(seat.memory for seat in self._seats.values())
        if promised + memory > self._room:
            raise BusyError(
                f"a session on tensors may take {_gigabytes(memory)} here, of {_gigabytes(self._room)} on the owner's machine "
                f"{_gigabytes(promised)} are promised to sessions that are open: close one, wait until one ends, or ask the "
                "owner for smaller ones (owner.set_limits)"
            )

    def _drop(self, key: tuple[str, str], why: str) -> None:
        seat = self._seats.pop(key, None)
        if seat is not None:
            self._gone[key] = seat.gone = why
            while len(self._gone) > 1000:
                self._gone.popitem(last=False)
            seat.close()

    # In the worker's thread

    def leaving(self, seat: Seat, do: str, facts: Mapping[str, Any]) -> tuple[Any, Any]:
        """What a runner lets go because of a label, once what that rests on was tried; raises PrivateValueError otherwise."""
        found, frames = seat.call(do, facts)
        if isinstance(found, dict) and "owed" in found:
            claims = [bytes(f) for f in frames]
            self._wall.prove(claims)
            seat.call("tried", {}, claims)
            found, frames = seat.call(do, facts)
        return found, frames

    def _do(self, analyst: Analyst, seat: Seat, message: Ordered) -> m.Message:
        if isinstance(message, WITH_PARTNERS) and self.with_partners is not None:
            return self.with_partners(analyst, seat, message)
        if seat.joint and isinstance(message, m.Load | m.Noise):
            raise RefusedError("a session in a federation takes in shares, and opens what all owners let go")
        if isinstance(message, m.Run):
            runs, given = _frames(message.payload)
            found, _ = seat.call("run", {"runs": runs}, given)
            return m.Ran(canonical.dumps(found))
        if isinstance(message, m.Put):
            part = one_frame(message.payload)
            facts = {k: getattr(message, k) for k in ("value", "dtype", "shape", "start")}
            found, _ = seat.call("put", facts, [part])
            return m.Ran(canonical.dumps(found))
        if isinstance(message, m.Load):
            return self._load(analyst, seat, message)
        if isinstance(message, m.Fetch):
            facts = {"value": message.value, "start": max(0, message.start), "length": PART}
            return m.Part(list(self.leaving(seat, "fetch", facts)[1]))
        if isinstance(message, m.Noise) and self.noise is not None:
            return self.noise(analyst, seat, message)
        if isinstance(message, m.Ask) and self.ask is not None:
            return self.ask(analyst, seat, message)
        raise RefusedError("this owner does not do that")

    def _load(self, analyst: Analyst, seat: Seat, message: m.Load) -> m.Message:
        dataset = self._catalogue.find(analyst, message.dataset, message.version)
        columns = canonical.loads(message.columns)
        label = label_of(dataset, columns)
        file, form = dataset.meta["file"], dataset.tensor or dataset.schema
        data = self._store.part(file, form, None, columns)
        try:
            facts = {"value": message.value, "label": label, "name": f"{dataset.name} v{dataset.version}{columns or ''}",
                     "columns": columns,
                     "layout": data.layout}  # fmt: skip
            found, _ = seat.call("load", facts, (), data)
        finally:
            with contextlib.suppress(OSError):
                data.close()
        return m.Ran(canonical.dumps(found))


def _gigabytes(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB"


def label_of(dataset: Dataset, columns: Sequence[str]) -> dict[str, Any]:
    """The label of a published tensor, or of columns of a table; raises an error where they can't be one."""
    source = f"{dataset.name} v{dataset.version}"
    if dataset.tensor is not None:
        if columns:
            raise UsageError(f"{dataset.name} is a tensor, which has no columns")
        bounds: Any = dataset.tensor["bounds"]
        return {"kind": "rows", "sources": [source], "axis": 0, "k": 1, "bounds": bounds, "l1": 0.0, "l2": 0.0}
    if not isinstance(columns, list) or not 1 <= len(columns) <= 1000 or not all(isinstance(c, str) for c in columns):
        raise UsageError("name the columns of the table: frame.to_tensor(['age', 'los_days'])")
    if dataset.meta["rows"] is None:
        raise RefusedError(f"the number of rows of {dataset.name} is private, and a tensor would show it; "
                           "use the table's own questions, or a %%remote cell")  # fmt: skip
    found = [dataset.schema.column(c) for c in columns]
    if any(c.kind == "text" for c in found):
        raise UsageError("columns of text are no tensor; choose numbers and booleans")
    limits = [c.bounds for c in found]
    same = limits[0] if len(set(limits)) == 1 else None
    bounds = None if same is None else list(same)
    return {
        "kind": "rows",
        "sources": [source],
        "axis": 0,
        "k": dataset.schema.max_contributions,
        "bounds": bounds,
        "l1": 0.0,
        "l2": 0.0,
    }


def as_array(data: bytes, dtype: str, shape: Sequence[int]) -> Any:
    """Bytes of a tensor as an array that results can have: bfloat16 as the float32 that it is the front half of."""
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(data, np.dtype("?" if dtype == "bool" else dtype)).reshape(shape)


def one_frame(payload: Sequence[Any]) -> Any:
    """The part of a tensor that a message brings; none is an empty one. Raises WireError for several."""
    if len(payload) > 1:
        raise WireError("a part of a tensor comes as one frame")
    return payload[0] if payload else b""


def _frames(payload: Sequence[Any]) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """The runs of a message, and the plans that came with them."""
    if len(payload) != 2:
        raise WireError("a run has two frames")
    said, whole = canonical.loads(bytes(payload[0]), limit=16 << 20), memoryview(payload[1]).cast("B")
    if (
        not isinstance(said, dict)
        or set(said) != {"runs", "plans"}
        or not _whole(said["plans"])
        or len(said["plans"]) > MAX_RUNS
    ):
        raise WireError("a run has runs, and the sizes of the plans that come with it")
    lists = ("inputs", "outputs", "free", "seeds")
    runs = said["runs"]
    if not isinstance(runs, list) or len(runs) > MAX_RUNS:
        raise WireError(f"a message has at most {MAX_RUNS} runs")
    for run in runs:
        if not isinstance(run, dict) or set(run) != {*lists, "plan"} or not isinstance(run["plan"], str):
            raise WireError("a run has inputs, outputs, what to free, seeds, and a plan")
        if not all(_whole(run[k]) for k in lists):
            raise WireError("the values and seeds of a run are whole numbers")
    if sum(said["plans"]) != whole.nbytes or min(said["plans"], default=0) < 0:
        raise WireError("the plans of a message are as long as it says")
    given, at = [], 0
    for size in said["plans"]:
        given.append(whole[at : at + size])
        at += size
    return runs, given


def _whole(found: Any) -> bool:
    return isinstance(found, list) and all(type(n) is int and -(2**63) <= n < 2**63 for n in found)
