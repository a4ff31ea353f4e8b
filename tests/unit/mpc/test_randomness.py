"""Draws that two parties make alike."""

import pytest
import torch

from syft_lab import errors
from syft_lab.mpc import bits
from syft_lab.mpc.randomness import Stream, run_key


def test_a_draw_is_the_key_stream_of_aes_in_counter_mode():
    """NIST SP 800-38A, F.5.1: the key's blocks; ours begin at (op, slot, 0), here FIPS 197's block under its key."""
    key = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    expected = b"".join(
        block.update((7).to_bytes(4, "big") + (9).to_bytes(4, "big") + n.to_bytes(8, "big")) for n in range(70_000)
    )
    drawn = Stream(key).bytes(7, 9, 70_000 * 16 - 5)  # across the pieces in which it is made
    assert bytes(drawn) == expected[:-5]


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
