"""Exact products modulo 2^64 on tensors of int64, wherever torch multiplies float64 matrices.

Additions, products of elements and shifts of int64 wrap around in torch as the ring does. Matrix products do too, but CUDA has
none for int64, and on processors without AVX-512 torch's is ten times slower than the way over float64. Large ones go by
`ring_llvm` there, where llvmlite is installed. All others, and those on CUDA, go by balanced limbs, a = a0 + 2^22 a1 + 2^44 a2
modulo 2^64, with |a0|, |a1| ≤ 2^21 and |a2| ≤ 2^19:

    a·b = a0·b0 + 2^22 (a0·b1 + a1·b0) + 2^44 (a0·b2 + a1·b1 + a2·b0)   modulo 2^64

where the middle is (a0 + a1)(b0 + b1) − a0·b0 − a1·b1 (Karatsuba). Sums of K such products are integers of at most K·2^44, and
float64 adds integers up to 2^53 without rounding, in any order: so K ≤ 512, and longer sums are cut.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from syft_lab.mpc import ring_llvm

Limbs = tuple[Tensor, Tensor, Tensor]
DEEP = 512
LARGE = 1 << 24  # products of numbers, from which on machine code is worth its making (0.2 s, once)
_BITS, _TOP = 22, 20
_OFFSET = (1 << 21) + (1 << 43) + (1 << 63) - (1 << 64)  # half of each limb's range, as int64
_EXPONENT = 0x433 << 52


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for int64 tensors (…, m, K) and (…, K, n), exact modulo 2^64."""
    if a.device.type == "cpu" and native():
        return torch.matmul(a, b)
    if a.dim() == b.dim() == 2:
        return _product(a, b)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    flat = [t.expand(*batch, *t.shape[-2:]).reshape(math.prod(batch), *t.shape[-2:]) for t in (a, b)]
    return _product(flat[0], flat[1]).view(*batch, a.shape[-2], b.shape[-1])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of two matrices, or of two equal batches of them."""
    code = _code_for(a, a.shape[-2] * a.shape[-1] * b.shape[-1])
    if code is None:
        return by_limbs(limbs(a), limbs(b))
    return code(a, b) if a.dim() == 2 else torch.stack([code(x, y) for x, y in zip(a, b, strict=True)])


def _code_for(a: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    return machine_code() if a.device.type == "cpu" and size >= LARGE and not native() else None


Two = Sequence[int]


def conv2d(x: Tensor, weight: Tensor, stride: Two, padding: Two, dilation: Two, groups: int) -> Tensor:
    """As torch's for int64: x (N, C, H, W), weight (O, C/groups, h, w); exact modulo 2^64."""
    n, o, taps = x.shape[0], weight.shape[0], weight.shape[2:]
    sizes = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (taps[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    plain = tuple(taps) == (1, 1) and tuple(padding) == (0, 0)

    def columns(t: Tensor) -> Tensor:  # (N·groups, C/groups·h·w, positions)
        if plain:
            return t[..., :: stride[0], :: stride[1]].reshape(n * groups, t.shape[1] // groups, -1)
        return F.unfold(t, tuple(taps), tuple(dilation), tuple(padding), tuple(stride)).view(n * groups, -1, math.prod(sizes))

    rows = weight.reshape(groups, o // groups, -1)
    code = _code_for(x, rows[0].numel() * math.prod(sizes))
    if code is not None:
        images = columns(x.view(torch.float64)).view(torch.int64)  # torch takes no int64 apart; the bits are only moved
        return torch.stack([code(rows[i % groups], image) for i, image in enumerate(images)]).view(n, o, *sizes)
    rows = limbs(rows)
    a, b, c = (columns(limb) for limb in limbs(x))
    if n * groups == 1:
        return by_limbs((rows[0][0], rows[1][0], rows[2][0]), (a[0], b[0], c[0])).view(n, o, *sizes)
    low, middle, high = (r.repeat(n, 1, 1) for r in rows)
    return by_limbs((low, middle, high), (a, b, c)).view(n, o, *sizes)


def limbs(x: Tensor) -> Limbs:
    """The balanced limbs of int64 numbers, as float64 of the same shape."""
    shifted = x + _OFFSET  # makes every limb non-negative, and carries into the next
    return _limb(shifted, 0, _BITS), _limb(shifted, _BITS, _BITS), _limb(shifted, 2 * _BITS, _TOP)


def _limb(shifted: Tensor, at: int, bits: int) -> Tensor:
    """Bits of a number below 2^52, put under the exponent of 2^52: as float64 that is the number and 2^52, exactly."""
    taken = (shifted >> at).bitwise_and_((1 << bits) - 1) if at else shifted & ((1 << bits) - 1)
    return taken.bitwise_or_(_EXPONENT).view(torch.float64).sub_(2.0**52 + (1 << (bits - 1)))


def by_limbs(a: Limbs, b: Limbs) -> Tensor:
    """The product of two matrices, or of two equal batches of them, given as limbs: int64, modulo 2^64."""
    depth = a[0].shape[-1]
    total = _shallow([t[..., :DEEP] for t in a], [t[..., :DEEP, :] for t in b])
    for start in range(DEEP, depth, DEEP):
        end = start + DEEP
        total += _shallow([t[..., start:end] for t in a], [t[..., start:end, :] for t in b])
    return total


def _shallow(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    low, top = a[0] @ b[0], a[1] @ b[1]
    middle = (a[0] + a[1]) @ (b[0] + b[1])
    middle.sub_(low).sub_(top)
    for left, right in ((a[0], b[2]), (a[2], b[0])):
        if left.dim() == 2:
            top.addmm_(left, right)
        else:
            top.baddbmm_(left, right)
    return low.long().add_(middle.long().bitwise_left_shift_(_BITS)).add_(top.long().bitwise_left_shift_(2 * _BITS))


@cache
def machine_code() -> Callable[[Tensor, Tensor], Tensor] | None:
    """`ring_llvm`'s product of two matrices, once it gave what the limbs give; None where it can't be had."""
    x = torch.arange(-33 * 35, 33 * 35).view(33, 70) * 0x9E3779B97F4A7
    try:
        made: Callable[[Tensor, Tensor], Tensor] = ring_llvm.MachineCode()
        why = "" if torch.equal(made(x, x.T), by_limbs(limbs(x), limbs(x.T))) else "its products are wrong on this processor"
    except ImportError:  # llvmlite is an extra, and at L1 a party can't load it
        return None
    except Exception as error:  # a processor or a system that LLVM makes nothing for
        why = f"{type(error).__name__}: {error}"
    if why:
        warnings.warn(f"products of matrices take twice as long: LLVM can't make code for them here ({why})", stacklevel=2)
        return None
    return made


@cache
def native() -> bool:
    """Whether torch's own product of int64 matrices is the faster one here: tried once, on some thousand numbers."""
    x = torch.arange(-(160 * 160) // 2, 160 * 160 // 2).view(160, 160) * 0x9E3779B97F4A7
    return _seconds(lambda: x @ x) < _seconds(lambda: by_limbs(limbs(x), limbs(x)))


def _seconds(work: Callable[[], object]) -> float:
    """Of this thread on a processor: on a busy machine the other clock runs on while nothing is computed."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)
