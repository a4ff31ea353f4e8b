"""`PointerTensor`: a torch tensor whose values are at an owner; `get`, `release` and `request` bring values back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from syft_lab.analyst import arrays
from syft_lab.analyst.result import Released, Result
from syft_lab.analyst.tape import SessionTape
from syft_lab.budget import accountant
from syft_lab.errors import LabError, PrivateValueError, RefusedOpError, UsageError, VerificationError
from syft_lab.labels import PUBLIC, Label
from syft_lab.printable import printed
from syft_lab.receipt import Head
from syft_lab.record import Recorded, Value
from syft_lab.spec import Spec, check_dense
from syft_lab.wire import messages as m

if TYPE_CHECKING:
    from syft_lab.analyst.session import Session

Thing = TypeVar("Thing", torch.Tensor, torch.nn.Module)
_OUT = "x.get() brings a public value back; x.release(epsilon=…) an aggregate under noise; x.request(reason=…) asks the owner"


class RemoteValue(NamedTuple):
    """What a pointer wraps: a number that names a value at an owner."""

    owner: str
    number: int


class PointerTensor(Recorded):
    """A tensor at an owner. Made by ``tensor.send(owner)``, ``owner["dataset"]``, and by torch on other pointers."""

    # Where it is

    @property
    def _session(self) -> Session:
        return self._tape.session

    @property
    def _owner(self) -> str:
        tape = self.tape
        return tape.owner if isinstance(tape, SessionTape) else "its owner"

    @property
    def _tape(self) -> SessionTape:
        tape = self.tape
        if not isinstance(tape, SessionTape):
            raise UsageError("inside lab.plan and lab.each there are no values yet: run the whole, and look at what it gives")
        return tape

    @property
    def location(self) -> Any:
        """The session at the owner who holds it."""
        return self._session

    @property
    def label(self) -> Label:
        """What is known about how one person shows in it: public, private, rows, or aggregate."""
        self.current  # noqa: B018 - what was written to what it is a view of counts
        return self._spec.label

    @property
    def child(self) -> RemoteValue:
        """What it wraps."""
        return RemoteValue(self._tape.owner, self._value.number)

    @property
    def parent(self) -> PointerTensor | None:
        """The whole that it is a view of; None where it is no view."""
        storage = self._storage
        if storage is None or storage.spec.shape == self._spec.shape:
            return None
        found = PointerTensor(storage.spec, storage.value)
        found._storage, found._seen = storage, storage.version
        return found

    @property
    def state(self) -> str:
        """Recorded, at the owner, or lost."""
        tape = self._tape
        if tape.dead is not None:
            return "lost"
        return "recorded, not sent yet" if tape.waits(self._value.number) else "at the owner"

    # Its values

    def get(self) -> torch.Tensor:
        """The tensor, where it is public. Raises PrivateValueError, which names the ways out, for any other."""
        tape, value = self._tape, self.current
        if self._spec.label.kind != "public":
            raise PrivateValueError(ways_out(self._spec.label))
        found = tape.fetch(value.number, self._spec)
        return found.requires_grad_(True) if self.requires_grad and self.is_leaf else found

    def release(self, *, epsilon: float, delta: float = 0.0) -> Result:
        """The value under noise: a `Result`. For an aggregate; with ``delta`` the noise is Gaussian, else Laplace.

        Raises PrivateValueError where its label is no aggregate, and what `Question.release` raises.
        """
        label = self._spec.label
        if label.kind == "public":
            raise UsageError("this value is public: x.get() brings it back, without noise")
        if label.kind != "aggregate":
            raise PrivateValueError("only an aggregate is released under noise: clamp, then sum or average over the records "
                                    f"(x.clamp(0, 1).mean(0)); {ways_out(label)}")  # fmt: skip
        cost = accountant.cost(epsilon, delta)
        tape, value = self._tape, self.current
        tape.flush()
        request = secrets.token_hex(16)
        asked = tape.queue(m.Noise(request, tape.space, 0, value.number, cost.epsilon, cost.delta, 0), m.Released)
        shape, dtype = tuple(self.shape), self.dtype

        def taken(reply: m.Released, sent: Head | None) -> Released:
            receipt, said = tape.session.check_release(reply, sent)
            claimed = (
                *(said.get(k) for k in ("analyst", "epsilon_micro", "delta_pico")),
                f"{said.get('dataset')} v{said.get('version')}",
            )
            if claimed != (tape.session.analyst, cost.epsilon, cost.delta, label.sources[0]) or "plan" not in said:
                raise VerificationError("the receipt is about another question than this one; tell the owner")
            answer = said["value"]
            if tuple(answer["shape"]) != shape or len(answer["values"]) != self.numel():
                raise LabError("the owner's answer has another shape than the value; tell the owner")
            tape.session.took(receipt)
            kind = dtype if dtype.is_floating_point else torch.float64
            whole = torch.tensor(answer["values"], dtype=kind).reshape(shape)
            return Released(whole, answer["accuracy"], receipt, None, (_moved(label.sources[0]),))

        return Result(_then(asked, taken), f"a tensor {list(shape)}")

    def request(self, *, reason: str) -> Result:
        """Ask the owner for the exact value: a Request there, a `Result` here."""
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError('say why, for the owner: x.request(reason="convergence of study 12")')
        tape, value = self._tape, self.current
        tape.flush()
        asked = tape.queue(m.Ask(secrets.token_hex(16), tape.space, 0, value.number, reason), m.Filed)
        reply, _ = tape.wait(asked)
        return tape.session.adopt(reply).results["value"]

    def share(self, federation: Any) -> Any:
        """Split it among the owners of a federation: its own owner does that, where it agreed to. A `SharedTensor`."""
        return _federation(federation).share(self)

    def move(self, owner: Any) -> PointerTensor:
        """Hand it to another owner, over the link of a federation that both are in; both must have a rule for that.

        Gives the pointer there. The other owner sees the value, and decides what leaves.
        """
        from syft_lab.analyst.federation import move

        return move(self, owner)

    def recompute(self) -> PointerTensor:
        """Compute it again from what made it, after its owner lost it; gives itself. Raises StalePointerError."""
        recompute([self])
        return self

    # What would tell it

    def tolist(self) -> Any:
        """Refused: values are at the owner."""
        raise PrivateValueError(f"tolist() on a pointer is refused: its values are at {self._owner}. {_OUT}")

    def item(self) -> Any:
        """Refused: values are at the owner."""
        raise PrivateValueError(f"item() on a pointer is refused: its value is at {self._owner}. {_OUT}")

    def numpy(self, *, force: bool = False) -> Any:
        """Refused: values are at the owner."""
        raise PrivateValueError(f"numpy() on a pointer is refused: its values are at {self._owner}. {_OUT}, then .numpy()")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise PrivateValueError(f"a pointer is no numpy array: its values are at {self._owner}. {_OUT}")

    def __bool__(self) -> bool:
        raise PrivateValueError(
            f"a pointer is neither true nor false here: its value is at {self._owner}; use torch.where(condition, a, b)"
        )

    def _number(self, *_: Any) -> Any:
        raise PrivateValueError(f"a pointer is no Python number: its value is at {self._owner}. {_OUT}")

    __int__ = __float__ = __index__ = __complex__ = _number

    def __contains__(self, item: Any) -> bool:
        raise PrivateValueError("whether a value is in a pointer is private; (x == value).any() stays at the owner")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError("a pointer can't be pickled or saved: its values are at the owner. x.get() brings public ones back")

    def __deepcopy__(self, memo: dict[int, Any]) -> PointerTensor:
        """A pointer to the same value, with a life of its own."""
        found: PointerTensor | None = memo.get(id(self))
        if found is None:
            found = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                found = torch.nn.Parameter(found, self.requires_grad)
            memo[id(self)] = found
        return found

    # NumPy

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return arrays.call(func, args, kwargs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise RefusedOpError(f"np.{ufunc.__name__}.{method} has no counterpart for pointers; use torch")
        return arrays.call(ufunc, inputs, kwargs)

    # Display

    @printed
    def __repr__(self) -> str:
        there = isinstance(self.tape, SessionTape)
        where = f"at {self._owner}; {self._spec.label}; {self.state}" if there else "in a recording"
        return f"<PointerTensor {_shape(self)} {where}{_grad(self)}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        from syft_lab.widgets import cards

        if not isinstance(self.tape, SessionTape):
            return cards.card("PointerTensor", cards.text(repr(self)))
        label = self._spec.label
        pairs = [("owner", self._tape.owner), ("shape", _shape(self)), ("label", str(label)), ("state", self.state),
                 ("gradients", "flow through it" if self.requires_grad else ""), ("ways out", _ways(label))]  # fmt: skip
        return cards.card("PointerTensor", cards.facts([(k, v) for k, v in pairs if v]))


def ways_out(label: Label) -> str:
    """Why a value does not come back, and what does."""
    return f"this value is {label}; {_ways(label)}"


def _ways(label: Label) -> str:
    if label.kind == "public":
        return "x.get()"
    ask = "x.request(reason=…) asks the owner for the exact value"
    if label.kind == "aggregate":
        return f"x.release(epsilon=…) brings it back under noise, and {ask}"
    if label.kind == "rows":
        way = f"x.clamp(0, 1).mean({label.axis}).release(epsilon=…)"
        return f"clamp it, sum or average over the records, and release that: {way}; {ask}"
    return ask


def _shape(t: torch.Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}"


def _grad(t: torch.Tensor) -> str:
    return f"; grad_fn {type(t.grad_fn).__name__}" if t.grad_fn is not None else "; requires grad" if t.requires_grad else ""


def _moved(source: str) -> str:
    """What a release of an aggregate moves, by its form alone."""
    return f"entries beyond the published bounds of {source}, or a clamp's, count as the nearest, and NaN as the lowest"


def _then(asked: Future[Any], taken: Callable[..., Released]) -> Future[Released]:
    """The future of what is made of a reply."""
    found: Future[Released] = Future()

    def done(future: Future[Any]) -> None:
        try:
            found.set_result(taken(*future.result()))
        except BaseException as error:
            found.set_exception(error)

    asked.add_done_callback(done)
    return found


# Sending


def send(thing: Thing, owner: Any) -> Any:
    """Send a tensor, or a module's parameters and buffers (in place), to an owner. Gives the pointer, or the module.

    Only numbers travel: dtypes, shapes and bytes. A module stays here; what it computes is recorded as plans.
    Raises UsageError for what is no tensor or module, and for sparse or quantised tensors.
    """
    tape = _tape_of(owner)
    if isinstance(thing, torch.nn.Module):
        return _converted(thing, lambda t: t if isinstance(t, PointerTensor) else _sent(t, tape))
    if isinstance(thing, Recorded):
        raise UsageError(f"this tensor is at {getattr(thing.tape, 'owner', 'an owner')} already")
    if not isinstance(thing, torch.Tensor):
        raise UsageError(f"send takes a torch tensor or module, not {type(thing).__name__}; for numpy: torch.from_numpy(array)")
    found = _sent(thing, tape)
    return found.requires_grad_(True) if thing.requires_grad else found


def get(module: torch.nn.Module) -> torch.nn.Module:
    """Bring a module's parameters and buffers back (in place), where they are public."""
    return _converted(module, lambda t: t.get() if isinstance(t, PointerTensor) else t)


def _tape_of(owner: Any) -> SessionTape:
    tape = getattr(owner, "tape", None)
    if not isinstance(tape, SessionTape):
        raise UsageError("send to an owner you are connected to: t.send(hospital_a)")
    return tape


def _sent(tensor: torch.Tensor, tape: SessionTape) -> PointerTensor:
    check_dense(tensor)
    spec = Spec.of(tensor.detach().cpu().contiguous(), PUBLIC, 0)
    value: Value = tape.put(tensor)
    return PointerTensor(spec, value)


def _converted(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """The module with other parameters and buffers; shared ones stay shared. All are made before any is put in place."""
    made: dict[int, torch.Tensor] = {}
    places: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    with torch.no_grad():
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                for name, old in held.items():
                    if old is None:
                        continue
                    if id(old) not in made:
                        new = change(old.detach() if type(old) is torch.nn.Parameter else old)
                        made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if held is part._parameters else new
                    places.append((held, name, made[id(old)]))
    for held, name, new in places:
        held[name] = new
    return module


def recompute(pointers: list[PointerTensor]) -> None:
    """Compute pointers again on a live session, sharing what they share."""
    made: dict[SessionTape, dict[int, int]] = {}
    for pointer in pointers:
        old = pointer._tape
        if old.dead is None:
            continue
        fresh = old.session.tape
        pointer._value, pointer._storage = old.again(pointer.current.number, fresh, made.setdefault(old, {})), None
    for pointer in pointers:
        pointer._tape.holding.clear()


def share(thing: Thing, federation: Any) -> Any:
    """Split a tensor, or a module's parameters and buffers (in place), among the owners of a federation."""
    return _federation(federation).share(thing)


def fix_prec(tensor: torch.Tensor) -> Any:
    """The tensor as fixed-point numbers, to be shared: ``tensor.fix_prec().share(federation)``."""
    from syft_lab.analyst.shared import FixedPrecision

    return FixedPrecision(tensor)


def _federation(given: Any) -> Any:
    if not hasattr(given, "terms") or not hasattr(given, "share"):
        raise UsageError("share among a federation: x.share(lab.federation(hospital_a, hospital_b, hospital_c))")
    return given


_TENSORS: dict[str, Any] = {"send": send, "share": share, "fix_prec": fix_prec}
_MODULES: dict[str, Any] = {"send": send, "get": get, "share": share}


def install() -> None:
    """Give torch's tensors `send`, `share` and `fix_prec`, and modules `send`, `get` and `share`; touch nothing else.

    A name that is taken stays as it is.
    """
    for kind, names in ((torch.Tensor, _TENSORS), (torch.nn.Module, _MODULES)):
        for name, function in names.items():
            if not hasattr(kind, name):
                setattr(kind, name, function)
