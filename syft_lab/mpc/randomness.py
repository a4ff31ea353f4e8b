"""Randomness that two parties draw alike, and none else can guess: AES-128 in counter mode.

Each run has keys of its own, HKDF-SHA256 (RFC 5869) of a key that two parties share and of 32 fresh bytes from each party,
so that neither a restart nor a restored backup repeats a mask. Each turn of a run (`Party.turn`) has its own keys again, made
of the run's and of all that was asked so far: parties who were asked different things draw nothing alike. A draw is named by
the operation (32 bits) and the slot in it (32 bits); they are the upper half of the counter block, the lower counts blocks
from 0. Draws of different names never share a block: one has at most 2^64 of them.
"""

from __future__ import annotations

import hmac
import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from syft_lab.errors import LabError
from syft_lab.mpc import aes

KEY_BYTES = FRESH_BYTES = 32
CIPHER_BYTES = 16
_ZEROS = bytes(1 << 20)


def fresh(count: int = FRESH_BYTES) -> bytes:
    """Bytes of the operating system."""
    return os.urandom(count)


def run_key(shared: bytes, salts: Sequence[bytes], use: str) -> bytes:
    """The key of two parties for one run: ``shared`` is theirs, ``salts`` are of all parties in their order."""
    return HKDF(SHA256(), KEY_BYTES, b"".join(salts), f"syft-lab mpc 4 {use}".encode()).derive(shared)


def turn_key(key: bytes, turn: bytes, use: str) -> bytes:
    """What a run's ``key`` is in one turn, for one use: HKDF-Expand (RFC 5869), of which one block is enough."""
    return hmac.digest(key, b"%b syft-lab mpc %b\1" % (turn, use.encode()), "sha256")


class Stream:
    """Draws under one key of 16 bytes. ``log``, where it is a set, keeps every name, and a name that comes twice is an error.

    On a CUDA device they are made there, where Triton is installed and gives AES's bytes; else here, and copied.
    """

    def __init__(self, key: bytes, log: set[tuple[int, int]] | None = None) -> None:
        self._key = key
        self._planes: dict[torch.device, Tensor] = {}
        self.log = log

    def bytes(self, op: int, slot: int, count: int, device: torch.device | str = "cpu") -> Tensor:
        """``count`` bytes, as uint8."""
        if self.log is not None:
            if (op, slot) in self.log:
                raise LabError(f"mask {slot} of operation {op} was drawn twice")
            self.log.add((op, slot))
        device = torch.device(device)
        draw = on_device(device) if device.type == "cuda" else None
        if draw is None:
            return _drawn(self._key, op, slot, count).to(device)
        if device not in self._planes:
            self._planes[device] = torch.tensor(aes.key_planes(self._key), dtype=torch.int32, device=device)
        return draw(self._planes[device], op, slot, count)

    def words(self, op: int, slot: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Uniform int64 numbers."""
        return self.bytes(op, slot, 8 * math.prod(shape), device).view(torch.int64).view(tuple(shape))


def _drawn(key: bytes, op: int, slot: int, count: int) -> Tensor:
    start = op.to_bytes(4, "big") + slot.to_bytes(4, "big") + bytes(8)
    cipher = Cipher(algorithms.AES(key), modes.CTR(start)).encryptor()
    found = torch.empty(count, dtype=torch.uint8)
    view = memoryview(found.numpy())
    for at in range(0, count, len(_ZEROS)):
        piece = view[at : at + len(_ZEROS)]
        cipher.update_into(memoryview(_ZEROS)[: piece.nbytes], piece)
    return found


@cache
def on_device(device: torch.device) -> Callable[[Tensor, int, int, int], Tensor] | None:
    """What draws on a CUDA device (`aes_cuda.draw`), once it gave there what `cryptography` gives; None where it can't."""
    key, op, slot, count = fresh(CIPHER_BYTES), 2**32 - 7, 5, 10_001
    try:
        from syft_lab.mpc.aes_cuda import draw

        made = draw(torch.tensor(aes.key_planes(key), dtype=torch.int32, device=device), op, slot, count)
        why = "" if torch.equal(made.cpu(), _drawn(key, op, slot, count)) else "its AES is wrong on this device"
    except Exception as error:  # not installed, no compiler, a device that it doesn't know
        why = f"{type(error).__name__}: {error}"
    if why:
        warnings.warn(f"masks are drawn on the CPU, which is slower: Triton can't make them here ({why})", stacklevel=2)
        return None
    return draw
