"""What a GPU does not check, or can't do.

On the CPU an index out of range is an error: of private data it is lost in silence, and the session goes on. On a GPU it is no
error but the end of the process's context, noticed at some later operation: all values of the session would be gone, and that
they are would tell the analyst something about private data. So places are looked at before such an operation runs, with
what torch says on the CPU; operations that check other values, and those that no GPU has, run on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab import ops
from syft_lab.kernel.executor import unchecked

Call = Callable[[list[Any], dict[str, Any], int | None], Sequence[Any]]
ALONG = frozenset("index_select gather scatter scatter_add scatter_reduce index_add index_copy index_fill index_reduce".split())
AT = frozenset("index _unsafe_index index_put _unsafe_index_put _index_put_impl".split())
CLASSES = frozenset("nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward".split())
CHECKED = ALONG | AT | CLASSES | {"embedding", "embedding_dense_backward"}
HOSTED = frozenset(
    "take put multi_margin_loss binary_cross_entropy binary_cross_entropy_backward bernoulli multinomial "
    "poisson masked_scatter max_unpool2d max_unpool3d".split()
)
MASKS = (torch.bool, torch.uint8)
KERNELS = ("CUDA", "CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")


def fitted(op: str, func: Any, call: Call, device: torch.device) -> Call:
    """How to call an operation on a GPU."""
    name = ops.packet(op)
    if name in CHECKED:
        return _checked(name, [a.name for a in func._schema.arguments], call)
    if name in HOSTED or not any(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key) for key in KERNELS):
        return hosted(call, device)
    return call


def hosted(call: Call, device: torch.device) -> Call:
    """On the CPU, with what it makes brought back."""

    def there(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        made = call([_moved(a, "cpu") for a in args], {k: _moved(v, "cpu") for k, v in kwargs.items()}, seed)
        return [_moved(m, device) for m in made]

    return there


def _moved(x: Any, device: torch.device | str) -> Any:
    if isinstance(x, Tensor):
        return x.to(device)
    return [_moved(v, device) for v in x] if isinstance(x, list) else x


def _checked(name: str, arguments: Sequence[str], call: Call) -> Call:
    def looked(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        for places, low, high, besides in _places(name, {**dict(zip(arguments, args, strict=False)), **kwargs}):
            if places.dtype not in MASKS:
                unchecked.within(places, low, high, besides)
        return call(args, kwargs, seed)

    return looked


def _places(name: str, given: Mapping[str, Any]) -> Iterator[tuple[Tensor, int, int, int | None]]:
    """The places that an operation goes by, the lowest, the first that is too high, and one that is let pass."""
    if name in ALONG:
        of, places = given["self"], given["index"]
        yield places, 0, of.shape[given["dim"]] if of.dim() else 1, None
    elif name in AT:
        whole, at = given["self"], 0
        for places in given["indices"]:
            if places is not None:
                yield places, -whole.shape[at], whole.shape[at], None
            at += places.dim() if places is not None and places.dtype in MASKS else 1
    elif name in CLASSES:
        scores = given["self"]
        yield given["target"], 0, scores.shape[1 if scores.dim() > 1 else 0], given["ignore_index"]
    else:
        size = given["num_weights"] if "num_weights" in given else given["weight"].shape[0]
        yield given["indices"], 0, size, None
