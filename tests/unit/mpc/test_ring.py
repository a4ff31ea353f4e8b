"""Products modulo 2^64, against Python's integers."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.mpc import ring

EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**21, -(2**21), 2**21 - 1, 2**43, -(2**43), 2**43 + 2**21, -(2**43) - 2**21, 2**62]


def product(a, b):
    """In Python's integers, modulo 2^64 as int64 says it."""
    rows = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]
    return torch.tensor([[(v + 2**63) % 2**64 - 2**63 for v in row] for row in rows])


def by_limbs(a, b):
    return ring.by_limbs(ring.limbs(a), ring.limbs(b))


@given(st.data())
def test_limbs_give_the_product_of_any_integers(data):
    m, k, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    number = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from(EDGES))
    a, b = (data.draw(st.lists(st.lists(number, min_size=c, max_size=c), min_size=r, max_size=r)) for r, c in ((m, k), (k, n)))
    assert torch.equal(by_limbs(torch.tensor(a), torch.tensor(b)), product(a, b))


@pytest.mark.parametrize(("x", "y"), list(itertools.combinations_with_replacement(EDGES, 2)))
def test_sums_at_the_limit_of_the_limbs_are_exact(x, y):
    deep = 2 * ring.DEEP + 3
    made = by_limbs(torch.full((2, deep), x), torch.full((deep, 2), y))
    assert torch.equal(made, torch.full((2, 2), (x * y * deep + 2**63) % 2**64 - 2**63))


def test_limbs_add_up_and_are_balanced():
    x = torch.tensor(EDGES)
    a, b, c = ring.limbs(x)
    assert torch.equal(a.long() + (b.long() << 22) + (c.long() << 44), x)
    assert max(a.abs().max(), b.abs().max()) <= 2**21
    assert c.abs().max() <= 2**19


@pytest.mark.parametrize("native", [True, False])
def test_both_ways_give_the_same(native, monkeypatch):
    monkeypatch.setattr(ring, "native", lambda: native)
    a, b = torch.randint(-(2**63), 2**63 - 1, (3, 7, 1100)), torch.randint(-(2**63), 2**63 - 1, (3, 1100, 5))
    assert torch.equal(ring.matmul(a, b), torch.stack([x @ y for x, y in zip(a, b, strict=True)]))
    assert ring.matmul(a[:, :, :0], b[:, :0]).eq(0).all()


def test_a_device_multiplies_exactly(device):
    a, b = (torch.randint(-(2**63), 2**63 - 1, shape) for shape in ((2, 130, 1500), (2, 1500, 70)))
    assert torch.equal(ring.matmul(a.to(device), b.to(device)).cpu(), a @ b)
    assert torch.equal(ring.matmul(a[0].to(device), b[0].to(device)).cpu(), a[0] @ b[0])
    x, w = torch.randint(-(2**63), 2**63 - 1, (2, 70, 9, 11)), torch.randint(-(2**63), 2**63 - 1, (6, 35, 3, 3))
    made = ring.conv2d(x.to(device), w.to(device), (2, 1), (1, 1), (1, 1), 2).cpu()
    assert torch.equal(made, F.conv2d(x, w, None, (2, 1), (1, 1), (1, 1), 2))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    ((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 2), 2), ((3, 2), (2, 1), (2, 1), 4)])  # fmt: skip
def test_convolutions_are_those_of_torch_modulo_the_ring(stride, padding, dilation, groups):
    x, w = torch.randint(-(2**20), 2**20, (2, 8, 9, 10)), torch.randint(-(2**20), 2**20, (12, 8 // groups, 3, 2))
    expected = F.conv2d(x.double(), w.double(), None, stride, padding, dilation, groups).long()  # below 2^53: exact
    assert torch.equal(ring.conv2d(x, w, stride, padding, dilation, groups), expected)
    factor = 0x9E3779B97F4A7C15 - 2**64
    assert torch.equal(ring.conv2d(x * factor, w, stride, padding, dilation, groups), expected * factor)
