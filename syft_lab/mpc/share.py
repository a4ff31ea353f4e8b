"""`Share`: a torch tensor whose values are split among three owners. `tensor` has what torch's operations do to it.

Below autograd and modules there are only aten operations, and the table has a function for each that works on shares: so
modules run unmodified. Its downsides are those of any wrapper: what looks at values (print, bool, item) is refused, and so
is what is not in the table, by name.

Numbers are fixed-point (float32 to torch); zeros, ones and places, which comparisons give, are whole (bool, int64).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from syft_lab import ops
from syft_lab.errors import RefusedOpError
from syft_lab.mpc.aby3 import convert
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.aby3.truncate import truncate
from syft_lab.mpc.functions import Fixed
from syft_lab.printable import printed

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)
TABLE: dict[Any, Rule] = {}


class Product(NamedTuple):
    """Twice a product to be truncated: this party's part, with 2f + 1 fraction bits, of which f + 1 are to go; or a sum."""

    part: Tensor


class Rectified(NamedTuple):
    """The larger of ``of`` and 0, put off: it goes together with a truncation, and after max-pooling there is less of it."""

    of: Shared | Product


State = Shared | Product | Rectified


class Share(torch.Tensor):
    """One party's part of a tensor: its ``state``, and ``fixed``, the functions of its run."""

    state: State
    fixed: Fixed
    viewed: bool
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[Share], state: State, fixed: Fixed, dtype: torch.dtype = torch.float32) -> Share:
        """A wrapper around shares (int64, any shape); ``dtype`` is what it says it is.

        It says that it is on the CPU, wherever the party computes: torch chooses operations by the device (cuDNN's batch
        normalisation on a GPU, say), and all parties must run the same.
        """
        own = state.of[0] if isinstance(state, Rectified) else state[0]
        made: Share = torch.Tensor._make_wrapper_subclass(cls, own.shape, dtype=dtype, device="cpu")
        made.state, made.fixed, made.viewed = state, fixed, False
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """What `__new__` did."""

    @property
    def shared(self) -> Shared:
        """Its shares; what was put off is done now, by all parties alike."""
        state, fixed = self.state, self.fixed
        if isinstance(state, Product):
            state = truncate(fixed.party, state.part, fixed.f + 1)
        elif isinstance(state, Rectified):
            of = state.of
            state = convert.rectify(fixed.party, of.part, fixed.f + 1, fixed.k) if isinstance(of, Product) else fixed.relu(of)
        self.state = state
        return state

    @property
    def put_off(self) -> bool:
        """Whether its shares are not there yet: the parties will send each other messages for them."""
        return not isinstance(self.state, Shared)

    def settle(self) -> None:
        """Do what was put off."""
        self.shared  # noqa: B018 - by being asked for

    @property
    def whole(self) -> bool:
        """Whether it has no fraction bits."""
        return not self.dtype.is_floating_point

    @printed
    def __repr__(self, **_: Any) -> str:
        return f"Share(party {self.fixed.party.index}, {tuple(self.shape)}, {self.dtype})"

    def __bool__(self) -> bool:
        raise RefusedOpError("a shared condition can't decide what Python does next; use torch.where")

    def numpy(self, **_: Any) -> Any:
        """Refused: nobody has the values."""
        raise RefusedOpError("no party has the values of shares: open them with the federation first")

    item = tolist = __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        if schema.is_mutable:
            return _write(func, args, kwargs or {})
        check(func)
        _agree_on(args, kwargs or {})
        made = TABLE[func](*args, **(kwargs or {}))
        if schema.returns[0].alias_info is not None and isinstance(args[0], Share):
            for view in (args[0], *(made if isinstance(made, list) else [made])):
                view.viewed = True
        return made


def _agree_on(args: Any, kwargs: Mapping[str, Any]) -> None:
    """Hash the public tensors that meet shares into the name of the turn.

    Each party computed them by itself, and another processor, or another library, may have rounded otherwise. Shares times
    different numbers are no shares of anything: with this the run ends.
    """
    flat, _ = tree_flatten((args, kwargs))
    public = [t for t in flat if isinstance(t, Tensor) and type(t) is not Share and t.device.type != "meta"]
    if public:
        share = next(t for t in flat if type(t) is Share)
        share.fixed.party.turn(b"public" + b"".join(map(_digest, public)))


def _digest(tensor: Tensor) -> bytes:
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return hashlib.sha256(about + hashlib.sha256(data).digest()).digest()


def _write(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Share:
    """In place: the share takes the new value, unless others look at the old one."""
    target = args[0]
    if not isinstance(target, Share) or target.viewed:
        raise RefusedOpError(
            f"{func} would write to a view, or to a tensor that has views; use the operation that makes a new one"
        )
    made = Share.__torch_dispatch__(ops.functional(func), (), args, kwargs)
    if made.shape != target.shape:
        raise RefusedOpError(f"{func} would change the shape from {tuple(target.shape)} to {tuple(made.shape)}")
    target.state = made.state
    return target


_OPEN, _SIZE, _BEST = (
    "open it with the federation first",
    "its size would tell of values; use torch.where",
    "max and argmax work",
)
_INSTEAD = {
    "item": _OPEN, "_local_scalar_dense": _OPEN, "nonzero": _SIZE, "masked_select": _SIZE, "sort": _BEST, "topk": _BEST,
    "native_dropout": "model.eval() first", "copy_": "make a new tensor",
}  # fmt: skip


def check(func: Any) -> None:
    """Raises RefusedOpError, with the nearest that works, for an operation that shares don't have."""
    if func not in TABLE:
        raise RefusedOpError(f"{func} has no rule for shares{_near(str(func))}; docs/mpc.md lists what has")


def _near(name: str) -> str:
    packet = name.split(".")[1] if name.count(".") else name
    return f" ({_INSTEAD[packet]})" if packet in _INSTEAD else ""


def rule(*funcs: Any) -> Callable[[R], R]:
    """Enter a function in the table."""

    def enter(work: R) -> R:
        for func in funcs:
            TABLE[func] = work
        return work

    return enter
