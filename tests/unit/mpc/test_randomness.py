"""Draws that two parties make alike."""

import os
import sys
import types

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from syft_lab import errors
from syft_lab.mpc import aes, bits, randomness
from syft_lab.mpc.randomness import Stream, run_key, turn_key
from tests.devices import GPU


def test_a_draw_is_the_key_stream_of_aes_in_counter_mode():
    """NIST SP 800-38A, F.5.1: the key's blocks; ours begin at (op, slot, 0), here FIPS 197's block under its key."""
    key = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    expected = b"".join(
        block.update((7).to_bytes(4, "big") + (9).to_bytes(4, "big") + n.to_bytes(8, "big")) for n in range(70_000)
    )
    drawn = Stream(key).bytes(7, 9, 70_000 * 16 - 5)  # across the pieces in which it is made
    assert bytes(drawn.numpy()) == expected[:-5]


def ciphered(key, words):
    """The two blocks whose words are given in turn, as the kernel for CUDA makes them."""
    keys = aes.key_planes(key)
    planes = [q ^ k for q, k in zip(aes.transpose(*words), keys, strict=False)]
    for i in range(1, aes.ROUNDS + 1):
        planes = [aes.shift_rows(q) for q in aes.substitute(*planes)]
        if i < aes.ROUNDS:
            planes = aes.mix_columns(*planes, *map(aes.rotate, planes))
        planes = [q ^ k for q, k in zip(planes, keys[8 * i : 8 * i + 8], strict=True)]
    return aes.transpose(*planes)


def test_the_bits_of_aes_are_those_of_the_standard():
    key, lanes = os.urandom(16), 4096
    blocks = torch.frombuffer(bytearray(os.urandom(32 * lanes)), dtype=torch.int32).view(lanes, 2, 4)
    made = ciphered(key, [blocks[:, b, w] for w in range(4) for b in range(2)])
    found = torch.stack(made, 1).view(lanes, 4, 2).transpose(1, 2).contiguous()
    expected = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks.numpy().tobytes())
    assert found.numpy().tobytes() == expected


def test_the_standard_has_a_vector():
    """FIPS 197, appendix B."""
    key, plain = (bytes.fromhex(h) for h in ("2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734"))
    words = [torch.tensor(aes.signed(int.from_bytes(plain[i : i + 4], "little")), dtype=torch.int32) for i in range(0, 16, 4)]
    made = ciphered(key, [w for word in words for w in (word, word)])
    for block in (made[::2], made[1::2]):
        assert torch.stack(block).numpy().tobytes().hex() == "3925841d02dc09fbdc118597196a0b32"


@pytest.mark.skipif(not GPU, reason="no GPU that torch can use")
@pytest.mark.parametrize("count", [0, 1, 16, 17, 4096, 1_000_003, 40_000_000])
def test_a_gpu_draws_what_the_cpu_draws(count):
    assert randomness.on_device(torch.device(GPU)) is not None
    stream = Stream(os.urandom(16))
    for op, slot in ((7, 9), (2**32 - 1, 2**32 - 1)):
        assert torch.equal(stream.bytes(op, slot, count, GPU).cpu(), stream.bytes(op, slot, count))


def test_a_device_whose_aes_is_wrong_is_not_used(monkeypatch):
    wrong = types.ModuleType("syft_lab.mpc.aes_cuda")
    wrong.draw = lambda keys, op, slot, count: torch.zeros(count, dtype=torch.uint8)
    monkeypatch.setitem(sys.modules, "syft_lab.mpc.aes_cuda", wrong)
    with pytest.warns(UserWarning, match="AES is wrong on this device"):
        assert randomness.on_device.__wrapped__(torch.device("cpu")) is None


def test_names_are_used_once_where_it_is_logged():
    stream = Stream(bytes(16), set())
    stream.words(1, 0, (3,))
    stream.words(1, 1, (3,))
    with pytest.raises(errors.LabError, match="twice"):
        stream.words(1, 0, (3,))


def test_a_run_has_keys_of_its_own():
    shared, salts = bytes(16), [bytes(16), b"1" * 16, b"2" * 16]
    keys = {run_key(shared, salts, "key 0"), run_key(shared, salts, "key 1"), run_key(shared, salts[::-1], "key 0"),
            run_key(b"x" * 16, salts, "key 0")}  # fmt: skip
    assert len(keys) == 4


def test_a_turn_has_keys_of_its_own_as_rfc_5869_expands_them():
    key, turns = bytes(range(32)), [bytes(32), b"1" * 32]
    found = {(turn, use): turn_key(key, turn, use) for turn in turns for use in ("draws", "seed")}
    assert len({*found.values(), turn_key(b"x" * 32, turns[0], "draws")}) == 5
    info = turns[1] + b" syft-lab mpc seed"
    assert found[turns[1], "seed"] == HKDFExpand(SHA256(), 32, info).derive(key)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_planes_hold_the_bits_of_numbers(count):
    x = torch.randint(-(2**63), 2**63 - 1, (count,))
    for k in (8, 32, 64):
        planes = bits.planes(x, k)
        assert planes.shape == (k, bits.width(count))
        assert torch.equal(
            torch.stack([bits.unpack(p, count) for p in planes]), torch.stack([(x >> j) & 1 for j in range(k)]).char()
        )
    ones = x & 1
    assert torch.equal(bits.unpack(bits.pack(ones), count), ones.char())
