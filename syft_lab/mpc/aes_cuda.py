"""AES-128 in counter mode on a CUDA device: the functions of `aes` in one kernel of Triton, which comes with torch for CUDA."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from syft_lab.mpc import aes

LANES = 128
_transpose, _substitute = triton.jit(aes.transpose), triton.jit(aes.substitute)
_shift, _rotate, _mix = triton.jit(aes.shift_rows), triton.jit(aes.rotate), triton.jit(aes.mix_columns)


@triton.jit
def _big(x):
    """The bytes of a word the other way round: counters are big-endian."""
    x = ((x >> 8) & 0x00FF00FF) | ((x & 0x00FF00FF) << 8)
    return ((x >> 16) & 0x0000FFFF) | (x << 16)


@triton.jit
def _add(q0, q1, q2, q3, q4, q5, q6, q7, key):
    q0, q1, q2, q3 = q0 ^ tl.load(key), q1 ^ tl.load(key + 1), q2 ^ tl.load(key + 2), q3 ^ tl.load(key + 3)
    q4, q5, q6, q7 = q4 ^ tl.load(key + 4), q5 ^ tl.load(key + 5), q6 ^ tl.load(key + 6), q7 ^ tl.load(key + 7)
    return q0, q1, q2, q3, q4, q5, q6, q7


@triton.jit
def _cipher_of(q0, q1, q2, q3, q4, q5, q6, q7):
    """SubBytes and ShiftRows."""
    q0, q1, q2, q3, q4, q5, q6, q7 = _substitute(q0, q1, q2, q3, q4, q5, q6, q7)
    return _shift(q0), _shift(q1), _shift(q2), _shift(q3), _shift(q4), _shift(q5), _shift(q6), _shift(q7)


@triton.jit(do_not_specialize=["first", "second", "blocks"])
def _draw(out, keys, first, second, blocks, LANES: tl.constexpr):
    """Each lane makes the blocks 2n and 2n + 1 of the stream whose counter begins with the words ``first`` and ``second``."""
    start = tl.program_id(0).to(tl.int64) * LANES
    block = (start + tl.arange(0, LANES)) * 2
    zero = tl.zeros((LANES,), tl.int32)
    high, low = _big((block >> 32).to(tl.int32)), (block & 0xFFFFFFFF).to(tl.int32)
    q0, q1, q2, q3, q4, q5, q6, q7 = _transpose(
        zero + first, zero + first, zero + second, zero + second, high, high, _big(low), _big(low | 1)
    )
    q0, q1, q2, q3, q4, q5, q6, q7 = _add(q0, q1, q2, q3, q4, q5, q6, q7, keys)
    for i in range(1, 10):
        q0, q1, q2, q3, q4, q5, q6, q7 = _cipher_of(q0, q1, q2, q3, q4, q5, q6, q7)
        q0, q1, q2, q3, q4, q5, q6, q7 = _mix(q0, q1, q2, q3, q4, q5, q6, q7,
                                              _rotate(q0), _rotate(q1), _rotate(q2), _rotate(q3),
                                              _rotate(q4), _rotate(q5), _rotate(q6), _rotate(q7))  # fmt: skip
        q0, q1, q2, q3, q4, q5, q6, q7 = _add(q0, q1, q2, q3, q4, q5, q6, q7, keys + 8 * i)
    q0, q1, q2, q3, q4, q5, q6, q7 = _cipher_of(q0, q1, q2, q3, q4, q5, q6, q7)
    q0, q1, q2, q3, q4, q5, q6, q7 = _add(q0, q1, q2, q3, q4, q5, q6, q7, keys + 80)
    q0, q1, q2, q3, q4, q5, q6, q7 = _transpose(q0, q1, q2, q3, q4, q5, q6, q7)
    # words of the first block, then of the second: a lane's eight stand side by side, so that they are stored together
    even = tl.join(tl.join(q0, q1), tl.join(q4, q5))
    odd = tl.join(tl.join(q2, q3), tl.join(q6, q7))
    at = start * 8 + tl.arange(0, 8 * LANES)
    tl.store(out + at, tl.reshape(tl.join(even, odd), (8 * LANES,)), mask=at // 4 < blocks)


def draw(keys: torch.Tensor, op: int, slot: int, count: int) -> torch.Tensor:
    """``count`` bytes of the stream named (op, slot), as uint8, where ``keys`` are: `aes.key_planes` as int32."""
    blocks = -(-count // 16)
    out = torch.empty(4 * blocks, dtype=torch.int32, device=keys.device)
    first, second = (aes.signed(int.from_bytes(n.to_bytes(4, "big"), "little")) for n in (op, slot))
    if blocks:
        with torch.cuda.device(keys.device):
            _draw[(-(-blocks // (2 * LANES)),)](out, keys, first, second, blocks, LANES)
    return out.view(torch.uint8)[:count]
