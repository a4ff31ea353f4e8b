"""`SharedTensor`: a torch tensor of which each owner of a federation holds a part; `SharedTape` has all of them do the same.

It records as any pointer does. What is recorded goes to every owner, numbered alike, and their parties run it in lock-step:
what ends one of them ends the session, and the values are shared anew.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from syft_lab import canonical, ops, plans
from syft_lab.analyst.pointer import PointerTensor
from syft_lab.analyst.request import RemoteRequest
from syft_lab.analyst.result import Released, Result
from syft_lab.analyst.tape import FETCHED, PART, SessionTape
from syft_lab.errors import (
    ConnectError,
    LabError,
    PartnerError,
    PartnerGoneError,
    PrivateValueError,
    StalePointerError,
    UsageError,
    VerificationError,
)
from syft_lab.labels import PUBLIC, Label
from syft_lab.mpc import sharing, tensor  # noqa: F401 - the rules
from syft_lab.mpc.aby3 import vouch
from syft_lab.mpc.share import check
from syft_lab.partnership import RETURNS
from syft_lab.printable import printed
from syft_lab.receipt import Receipt
from syft_lab.record import Value
from syft_lab.spec import Spec, check_dense
from syft_lab.wire import messages as m
from syft_lab.wire.messages import Ordered

if TYPE_CHECKING:
    from syft_lab.analyst.federation import Federation
    from syft_lab.analyst.session import Session

LEAVE_SECONDS = 5.0
WORD_SECONDS = 1.0  # after one owner says that another is gone: the others may say why
_ALONE = (m.Ask, m.Fetch)  # what one owner may refuse without the others' losing their turn
_AGAIN = "The session in the federation is over: share the values again, x.share(federation)"


class SharedTape(SessionTape):
    """The tape of one session in a federation. ``lanes`` carry its messages to the owners, in their order."""

    def __init__(self, federation: Federation, sessions: Sequence[Session]) -> None:
        super().__init__(sessions[0], SharedTensor)
        self.federation, self.owner = federation, federation.name
        self.lanes = [SessionTape(s, SharedTensor) for s in sessions]
        for lane in self.lanes:
            lane.space = self.space
        self._shared: set[int] = set()
        for session in sessions:
            session.joint.add(self)

    def begin(self) -> SharedTape:
        """Have the parties come together; gives itself. Raises what an owner refuses with, or PartnerError."""
        try:
            self._come_together()
        except BaseException:  # an interrupt too: no owner is left with a party that waits
            self.end(StalePointerError("the parties did not come together"))
            raise
        return self

    def _come_together(self) -> None:
        terms, count = self.federation.terms, len(self.lanes)
        gathered = self.ask_all([m.Gather(self.space, 0, terms.id)] * count, m.Gathered)
        offers = canonical.dumps([canonical.loads(reply.offer) for reply in gathered])
        self.ask_all([m.Meet(self.space, 0, offers)] * count, m.Ran)
        self.ask_all([m.Join(self.space, 0)] * count, m.Ran)

    # Recording

    def append(self, op: str, args: Sequence[Any], kwargs: Any, count: int) -> list[Value]:
        """Record a node; raises RefusedOpError for an operation that shares don't have."""
        read = {n for arg in (*args, *kwargs.values()) for n in plans._refs(arg)}
        if not read.isdisjoint(self._shared):
            check(ops.find(op))
            made = super().append(op, args, kwargs, count)
            self._shared.update(v.number for v in made)
            return made
        return super().append(op, args, kwargs, count)

    def check(self) -> None:
        """Raises the error that ended the session."""
        if self.dead is not None:
            text = str(self.dead)
            raise type(self.dead)(text if _AGAIN in text else f"{text}. {_AGAIN}")

    def flush(self, whole: bool = True) -> None:
        """Send what was recorded to all owners."""
        with self.lock:
            super().flush(whole)
            if not self.nodes:
                self._shared &= self._remote

    # What comes in

    def deal(self, given: torch.Tensor) -> Value:
        """Split a tensor of the analyst's: each owner gets two of its three parts."""
        check_dense(given)
        whole = sharing.encode(given.cpu(), self.federation.terms.fraction)
        split = sharing.split(whole, len(self.lanes))
        parts = [p.contiguous().numpy().reshape(-1).view(np.uint8).data for p in split]
        value, shape, size = self._new(), list(given.shape), 8 * given.numel()
        asked: list[Future[Any]] = []
        for half, start in [(h, s) for h in (0, 1) for s in range(0, max(size, 1), PART)]:
            messages = []
            for index in range(len(self.lanes)):
                part = parts[(index + half) % len(self.lanes)][start : start + PART]
                messages.append(m.Deal(self.space, 0, value.number, shape, half * size + start, [part]))
            if half == 0 or size:
                asked.append(self.all(messages, m.Ran, [value.number], work=(0, 3 * min(PART, size))))
            if len(asked) > 4:
                self.wait(asked.pop(0))
        for future in asked:  # no copy was made
            self.wait(future)
        return value

    def enter(self, pointer: PointerTensor, member: int) -> Value:
        """Split a value of an owner's, there: the owner keeps it as it is now, then its party shares it."""
        tape, number = pointer._tape, pointer.current.number
        tape.flush()
        reply, _ = tape.wait(tape.queue(m.Share(tape.space, 0, number, self.federation.terms.id), m.Shared))
        value = self._new()
        entered = m.Enter(self.space, 0, value.number, member, list(pointer.shape), reply.token)
        self.ask_all([entered] * len(self.lanes), m.Ran)
        return value

    def hand(self, pointer: PointerTensor, to: Session) -> PointerTensor:
        """Have a pointer's owner hand its value to another, over their own link; gives the pointer there."""
        federation, tape, target = self.federation, pointer._tape, to.tape
        giver, receiver = (federation.owners.index(s) for s in (pointer._session, to))
        number = pointer.current.number
        tape.flush()
        value = target.new()
        asked = tape.queue(m.Share(tape.space, 0, number, federation.id, to.owner), m.Shared)
        given, _ = tape.wait(asked)
        target.flush()
        expected = target.queue(m.Expect(target.space, 0, value.number, federation.id, giver), m.Shared)
        taken, _ = target.wait(expected)
        dtype, shape = str(pointer.dtype).removeprefix("torch."), list(pointer.shape)
        self.ask_all([m.Hand(self.space, 0, giver, receiver, dtype, shape, given.token, taken.token)] * len(self.lanes), m.Ran)
        target._remote.add(value.number)
        label = Label("private", (f"{pointer._session.owner}, moved here",))
        spec = Spec.of(torch.empty(shape, dtype=pointer.dtype, device="meta"), label, 0)
        found = target.make(spec, value)
        if not isinstance(found, PointerTensor):
            raise TypeError("a session's tape makes pointers")
        return found

    def _new(self) -> Value:
        value = self.new()
        self._shared.add(value.number)
        self._remote.add(value.number)
        return value

    # Sending

    def queue(
        self, message: Ordered, expected: type[m.Message], outputs: Sequence[int] = (), into: memoryview | None = None,
        work: tuple[int, int] = (0, 0),
    ) -> Future[Any]:  # fmt: skip
        """Send the same message to every owner; gives their replies."""
        return self.all([message] * len(self.lanes), expected, outputs, work)

    def all(
        self, messages: Sequence[Ordered], expected: type[m.Message], outputs: Sequence[int] = (),
        work: tuple[int, int] = (0, 0),
    ) -> Future[Any]:  # fmt: skip
        """Send each owner its message, in one turn; the future gives (their replies, None)."""
        joint = _Joint(self, messages, outputs, work)
        with self.lock:
            self.check()
            futures = [lane.queue(message, expected) for lane, message in zip(self.lanes, messages, strict=True)]
            self.sent += 1
        for index, future in enumerate(futures):
            future.add_done_callback(lambda f, i=index: joint.heard(i, f))  # type: ignore[misc]
        return joint.future

    def ask_all(self, messages: Sequence[Ordered], expected: type[m.Message]) -> list[Any]:
        """The owners' replies; waits for them."""
        replies, _ = self.wait(self.all(messages, expected))
        return list(replies)

    def count(self, work: tuple[int, int]) -> Callable[[object], None]:
        """Count work that was asked for, for people who wait."""
        return self._work.ask(*work)

    def end(self, why: LabError) -> None:
        """The session is over: every owner is told to end its party. From any thread; idempotent."""
        if self.dead is not None:
            return
        self._die(why)
        for lane in self.lanes:
            if lane.sent and not lane.session.closed:
                leave = lane.session.asking(m.Leave(self.space), m.Ran, LEAVE_SECONDS)
                told = asyncio.run_coroutine_threadsafe(leave, lane.session.loop)
                told.add_done_callback(lambda f: f.cancelled() or f.exception())
            lane._die(why)

    def lose(self, why: LabError) -> None:
        """One owner's kernel is another one: what was shared is gone."""
        if any(lane._begun for lane in self.lanes):
            self.end(why)

    # What comes back

    def fetch(self, number: int, spec: Spec) -> torch.Tensor:
        """The analyst's own value: the sum of what the owners hold of it."""
        self.flush()
        shared = number in self._shared
        size = 8 * math.prod(spec.shape) if shared else spec.nbytes
        parts = [np.empty(size, np.uint8) for _ in self.lanes]
        starts = range(0, max(size, 1), FETCHED)
        asked = [self.all([m.Fetch(self.space, 0, number, at)] * len(self.lanes), m.Part) for at in starts]
        for at, future in zip(starts, asked, strict=True):
            replies, _ = self.wait(future)
            self.value_of(number)
            for whole, reply in zip(parts, replies, strict=True):
                part = memoryview(reply.payload[0]).cast("B")
                if part.nbytes != min(FETCHED, size - at):
                    raise LabError("an owner sent another number of bytes than the value has; tell the owner")
                whole[at : at + part.nbytes] = part
        if not shared:
            flat = torch.from_numpy(parts[0]).view(spec.dtype) if size else torch.empty(0, dtype=spec.dtype)
            return flat.reshape(spec.shape)
        return self.decoded(sharing.join([torch.from_numpy(p.view(np.int64)).reshape(spec.shape) for p in parts]), spec)

    def decoded(self, total: torch.Tensor, spec: Spec) -> torch.Tensor:
        """The value that the shares add up to."""
        if spec.dtype.is_floating_point:
            return sharing.decode(total, self.federation.terms.fraction).to(spec.dtype)
        return total.to(spec.dtype)

    def close(self) -> None:
        """Nothing more is sent."""
        self.end(StalePointerError("this session in the federation was closed"))


class _Joint:
    """The replies of all owners to what each was sent in one turn."""

    def __init__(self, tape: SharedTape, messages: Sequence[Ordered], outputs: Sequence[int], work: tuple[int, int]) -> None:
        self._tape, self._alone = tape, isinstance(messages[0], _ALONE)
        self.future: Future[Any] = Future()
        self._replies: list[Any] = [None] * len(messages)
        self._gone: LabError | None = None
        self._left, self._lock = len(messages), threading.Lock()
        if work != (0, 0):
            self.future.add_done_callback(tape.count(work))
        if outputs:
            self.future.add_done_callback(lambda f: tape._fail(f, outputs))

    def heard(self, index: int, future: Future[Any]) -> None:
        """Take in the reply of one owner."""
        error = future.exception() if not future.cancelled() else StalePointerError("the session was closed")
        with self._lock:
            self._left -= 1
            done = self.future.done()
            if error is None:
                self._replies[index] = future.result()[0]
                if not done and not self._left:
                    self.future.set_result((self._replies, None))
                return
        said = _of(self._tape.lanes[index].owner, error)
        self._gone = self._gone or said
        if not isinstance(error, PartnerGoneError):
            self._fail(said)
        elif not self._left:
            self._fail(self._gone)
        elif self._gone is said:
            loop = self._tape.lanes[index].session.loop
            try:
                loop.call_soon_threadsafe(loop.call_later, WORD_SECONDS, self._fail, said)
            except RuntimeError:  # the session was closed
                self._fail(said)

    def _fail(self, said: LabError) -> None:
        """No replies will come of all; the first that is told stays."""
        if not self._alone or isinstance(said, PartnerError | StalePointerError | ConnectError):
            said = type(said)(f"{said}. {_AGAIN}")
            self._tape.end(said)
        with self._lock:
            if not self.future.done():
                self.future.set_exception(said)


def _of(owner: str, error: BaseException) -> LabError:
    """An owner's error, with the owner's name."""
    kind = type(error) if isinstance(error, LabError) else LabError
    return kind(str(error) if owner in str(error) else f"{owner}: {error}")


class SharedTensor(PointerTensor):
    """A tensor on shares. Made by ``federation.share(x)``, ``pointer.share(federation)``, and by torch on other such tensors.

    Numbers have ``federation.terms.fraction`` bits after the point, and sizes below ``federation.terms.limit``.
    """

    @property
    def _joint(self) -> SharedTape:
        tape = self.tape
        if not isinstance(tape, SharedTape):
            raise UsageError("this tensor belongs to a recording, which has no values")
        return tape

    @property
    def location(self) -> Any:
        """The federation whose owners hold it."""
        return self._joint.federation

    @property
    def state(self) -> str:
        """Recorded, at the owners, or lost."""
        return super().state.replace("at the owner", "at the owners")

    def get(self) -> torch.Tensor:
        """The tensor, where it is made of your own data alone. Raises PrivateValueError for any other."""
        tape, value = self._joint, self.current
        if self._spec.label.kind != "public":
            raise PrivateValueError(f"this value is of data at {self._owners()}: {_ASK}")
        return tape.fetch(value.number, self._spec)

    def release(self, *, epsilon: float, delta: float = 0.0) -> Result:
        """Refused: noise is not drawn on shares yet."""
        raise PrivateValueError(f"a shared value has no release under noise: {_ASK}")

    def request(self, *, reason: str) -> Result:
        """Ask every owner to open the value: a request at each, one `Result` here once all of them have let it go."""
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError('say why, for the owners: x.request(reason="mean of three clinics, study 12")')
        if self._spec.label.kind == "public":
            raise UsageError("this value is made of your own data: x.get() brings it back")
        tape, value = self._joint, self.current
        tape.flush()
        messages = [m.Ask(secrets.token_hex(16), tape.space, 0, value.number, reason) for _ in tape.lanes]
        replies = tape.ask_all(messages, m.Filed)
        requests = [lane.session.adopt(reply) for lane, reply in zip(tape.lanes, replies, strict=True)]
        return _opening(tape, requests, self._spec)

    def recompute(self) -> PointerTensor:
        """Refused: what a federation computed is not kept anywhere else."""
        raise StalePointerError(f"shares can't be computed again from here: {_AGAIN}")

    def _owners(self) -> str:
        return ", ".join(self._spec.label.sources) or "the owners"

    @printed
    def __repr__(self) -> str:
        shape = f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"
        grad = f"; grad_fn {type(self.grad_fn).__name__}" if self.grad_fn is not None else ""
        return f"<SharedTensor {shape} on shares at {self._joint.owner}; {self._whose()}; {self.state}{grad}>"

    __str__ = __repr__

    def _whose(self) -> str:
        return "your own data" if self._spec.label.kind == "public" else f"from {self._owners()}"

    def _repr_html_(self) -> str:
        from syft_lab.widgets import cards

        federation, public = self._joint.federation, self._spec.label.kind == "public"
        pairs = [("owners", self._joint.owner), ("shape", f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"),
                 ("made of", self._whose()), ("state", self.state),
                 ("way out", "x.get()" if public else _ASK)]  # fmt: skip
        return cards.card("SharedTensor", cards.facts(pairs), cards.note(federation.terms.badge))


_ASK = "x.request(reason=…) asks every owner to open it"


class Opening:
    """The requests at all owners for the parts of one value, as `Result` knows one request."""

    broke = False

    def __init__(self, requests: Sequence[RemoteRequest]) -> None:
        self.requests = list(requests)

    @property
    def progress(self) -> str:
        """How far each owner is."""
        return "; ".join(r.progress for r in self.requests)

    def cancel(self) -> None:
        """Take all back that are not over."""
        for request in self.requests:
            if not request.over:
                request.cancel()

    def rerun(self) -> Any:
        """Refused: there is no code to run here."""
        raise UsageError("a value that a federation computed has no cell to run again")

    @property
    def receipts(self) -> dict[str, Receipt]:
        """Each owner's signed word for the part that it let go."""
        return {r.owner: r.results["value"].receipt for r in self.requests}


def _opening(tape: SharedTape, requests: Sequence[RemoteRequest], spec: Spec) -> Result:
    """One result of all owners' parts."""
    found: Future[Released] = Future()
    strange = [r.owner for r in requests if tuple(r.returns) != RETURNS]
    if strange:
        raise VerificationError(f"{strange[0]}'s part of this value has another form than it should: bring all owners, and "
                                "yourself, to the same release of Syft Lab, and ask for the value again")  # fmt: skip
    futures = [r.results[name]._future for r in requests for name in RETURNS]
    owners = [r.owner for r in requests for _ in RETURNS]
    lock = threading.Lock()

    def heard(owner: str, future: Future[Released]) -> None:
        with lock:
            if found.done():
                return
            error = None if future.cancelled() else future.exception()
            if error is not None:
                found.set_exception(_of(owner, error))
            elif all(f.done() for f in futures):
                released = [f.result() for f in futures]
                try:
                    words = [torch.as_tensor(r.value, dtype=torch.int64).numpy().tobytes() for r in released]
                    parts = [vouchers + masked for masked, vouchers in zip(words[::2], words[1::2], strict=True)]
                    total = vouch.joined(parts, spec.shape, [r.owner for r in requests])
                    found.set_result(Released(tape.decoded(total, spec), None, released[0].receipt))
                except LabError as error:
                    found.set_exception(error)
                except Exception:  # a future that is never settled would be waited for
                    found.set_exception(LabError("an owner's part has another form than the value; tell the owner"))

    for owner, future in zip(owners, futures, strict=True):
        future.add_done_callback(lambda f, o=owner: heard(o, f))  # type: ignore[misc]
    return Result(found, f"a tensor {list(spec.shape)}", Opening(requests))


def shared_spec(shape: Sequence[int], label: Label = PUBLIC) -> Spec:
    """What is known of a value that was just shared."""
    return Spec.of(torch.empty(tuple(shape), dtype=torch.float32, device="meta"), label, 0)


class FixedPrecision:
    """A tensor that is about to be shared: ``tensor.fix_prec().share(federation)``."""

    def __init__(self, of: torch.Tensor) -> None:
        if isinstance(of, PointerTensor):
            raise UsageError("a pointer is shared as it is: x.share(federation); its owner turns it into fixed-point numbers")
        if of.is_complex():
            raise UsageError("shares are of real numbers: share x.real and x.imag")
        self.of = of

    def share(self, federation: Federation) -> SharedTensor:
        """Split it among the owners of a federation."""
        found: SharedTensor = federation.share(self.of)
        return found

    def float_prec(self) -> torch.Tensor:
        """The tensor again."""
        return self.of

    @printed
    def __repr__(self) -> str:
        return f"<a tensor {list(self.of.shape)}, to be shared as fixed-point numbers: .share(federation)>"
