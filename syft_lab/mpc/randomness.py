"""Randomness that two parties draw alike, and none else can guess: AES-128 in counter mode.

Each run has keys of its own, HKDF-SHA256 (RFC 5869) of a key that two parties share and of 16 fresh bytes from each party,
so that neither a restart nor a restored backup repeats a mask. A draw is named by the operation (32 bits) and the slot in
it (32 bits); they are the upper half of the counter block, the lower counts blocks from 0. Draws of different names never
share a block: one has at most 2^64 of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from syft_lab.errors import LabError

KEY_BYTES = FRESH_BYTES = 16
_ZEROS = bytes(1 << 20)


def fresh(count: int = FRESH_BYTES) -> bytes:
    """Bytes of the operating system."""
    return os.urandom(count)


def run_key(shared: bytes, salts: Sequence[bytes], use: str) -> bytes:
    """The key of two parties for one run: ``shared`` is theirs, ``salts`` are of all parties in their order."""
    return HKDF(SHA256(), KEY_BYTES, b"".join(salts), f"syft-lab mpc 1 {use}".encode()).derive(shared)


class Stream:
    """Draws under one key. ``log``, where it is a set, keeps every name, and a name that comes twice is an error."""

    def __init__(self, key: bytes, log: set[tuple[int, int]] | None = None) -> None:
        self._key = algorithms.AES(key)
        self.log = log

    def bytes(self, op: int, slot: int, count: int) -> np.ndarray:
        """``count`` bytes, as uint8."""
        if self.log is not None:
            if (op, slot) in self.log:
                raise LabError(f"mask {slot} of operation {op} was drawn twice")
            self.log.add((op, slot))
        start = op.to_bytes(4, "big") + slot.to_bytes(4, "big") + bytes(8)
        cipher = Cipher(self._key, modes.CTR(start)).encryptor()
        found = np.empty(count, np.uint8)
        view = memoryview(found.data)
        for at in range(0, count, len(_ZEROS)):
            piece = view[at : at + len(_ZEROS)]
            cipher.update_into(memoryview(_ZEROS)[: piece.nbytes], piece)
        return found

    def words(self, op: int, slot: int, shape: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """Uniform int64 numbers."""
        raw = self.bytes(op, slot, 8 * math.prod(shape))
        return torch.from_numpy(raw.view(np.int64)).view(tuple(shape)).to(device)
