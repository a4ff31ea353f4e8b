"""Products modulo 2^64, against Python's integers."""

import itertools
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.mpc import ring, ring_llvm

EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**21, -(2**21), 2**21 - 1, 2**43, -(2**43), 2**43 + 2**21, -(2**43) - 2**21, 2**62]


def product(a, b):
    """In Python's integers, modulo 2^64 as int64 says it."""
    rows = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]
    return torch.tensor([[(v + 2**63) % 2**64 - 2**63 for v in row] for row in rows])


def by_limbs(a, b):
    return ring.by_limbs(ring.limbs(a), ring.limbs(b))


def by_machine_code(a, b):
    if ring.machine_code() is None:
        pytest.skip("llvmlite (the extra fast) is not installed")
    return ring.machine_code()(a, b)


WAYS = pytest.mark.parametrize("way", [by_limbs, by_machine_code])


def anything(*shape):
    return torch.randint(-(2**63), 2**63 - 1, shape)


@WAYS
@given(data=st.data())
def test_the_product_of_any_integers(way, data):
    m, k, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    number = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from(EDGES))
    a, b = (data.draw(st.lists(st.lists(number, min_size=c, max_size=c), min_size=r, max_size=r)) for r, c in ((m, k), (k, n)))
    assert torch.equal(way(torch.tensor(a), torch.tensor(b)), product(a, b))


@WAYS
@pytest.mark.parametrize(("x", "y"), list(itertools.combinations_with_replacement(EDGES, 2)))
def test_sums_at_the_limit_of_the_limbs_are_exact(way, x, y):
    deep = 2 * ring.DEEP + 3
    made = way(torch.full((2, deep), x), torch.full((deep, 2), y))
    assert torch.equal(made, torch.full((2, 2), (x * y * deep + 2**63) % 2**64 - 2**63))


def test_limbs_add_up_and_are_balanced():
    x = torch.tensor(EDGES)
    a, b, c = ring.limbs(x)
    assert torch.equal(a.long() + (b.long() << 22) + (c.long() << 44), x)
    assert max(a.abs().max(), b.abs().max()) <= 2**21
    assert c.abs().max() <= 2**19


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("m", "k", "n"), [
    (1, 1, 1), (4, ring_llvm.DEPTH, 4), (ring_llvm.ROWS + 1, 2 * ring_llvm.DEPTH + 1, 9), (1, 700, 130), (0, 3, 4), (3, 0, 4),
    (3, 4, 0)])  # fmt: skip
def test_machine_code_takes_any_shape_strides_and_threads(m, k, n, threads):
    a, b, before = anything(m, k), anything(k, n), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(by_machine_code(a, b), a @ b)
        assert torch.equal(by_machine_code(b.T, a.T), (a @ b).T)
        assert torch.equal(by_machine_code(a[::2], b[:, ::3]), a[::2] @ b[:, ::3])
    finally:
        torch.set_num_threads(before)


def wrong():
    return lambda a, b: a @ b + 1


def impossible():
    raise RuntimeError("Unable to find target for this triple")


@pytest.mark.parametrize(("made", "said"), [(wrong, "products are wrong"), (impossible, "RuntimeError: Unable to find")])
def test_machine_code_that_can_not_be_had_or_is_wrong_is_not_used(made, said, monkeypatch):
    monkeypatch.setattr(ring_llvm, "MachineCode", made)
    ring.machine_code.cache_clear()
    try:
        with pytest.warns(UserWarning, match=said):
            assert ring.machine_code() is None
        monkeypatch.setattr(ring, "LARGE", 0)
        monkeypatch.setattr(ring, "native", lambda: False)
        a, b = anything(3, 4), anything(4, 5)
        assert torch.equal(ring.matmul(a, b), a @ b)
    finally:
        ring.machine_code.cache_clear()


def test_without_llvmlite_nothing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    ring.machine_code.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ring.machine_code() is None
    finally:
        ring.machine_code.cache_clear()


@pytest.fixture(params=["native", "limbs", "machine code"])
def ways(request, monkeypatch):
    """Each way that a product of matrices on the CPU can go."""
    monkeypatch.setattr(ring, "native", lambda: request.param == "native")
    monkeypatch.setattr(ring, "LARGE", 0 if request.param == "machine code" else 1 << 60)
    if request.param == "machine code" and ring.machine_code() is None:
        pytest.skip("llvmlite (the extra fast) is not installed")


def test_all_ways_give_the_same(ways):
    a, b = anything(3, 7, 1100), anything(3, 1100, 5)
    assert torch.equal(ring.matmul(a, b), torch.stack([x @ y for x, y in zip(a, b, strict=True)]))
    assert ring.matmul(a[:, :, :0], b[:, :0]).eq(0).all()


def test_a_device_multiplies_exactly(device):
    a, b = anything(2, 130, 1500), anything(2, 1500, 70)
    assert torch.equal(ring.matmul(a.to(device), b.to(device)).cpu(), a @ b)
    assert torch.equal(ring.matmul(a[0].to(device), b[0].to(device)).cpu(), a[0] @ b[0])
    x, w = anything(2, 70, 9, 11), anything(6, 35, 3, 3)
    made = ring.conv2d(x.to(device), w.to(device), (2, 1), (1, 1), (1, 1), 2).cpu()
    assert torch.equal(made, F.conv2d(x, w, None, (2, 1), (1, 1), (1, 1), 2))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    ((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 2), 2), ((3, 2), (2, 1), (2, 1), 4)])  # fmt: skip
def test_convolutions_are_those_of_torch_modulo_the_ring(ways, stride, padding, dilation, groups):
    x, w = torch.randint(-(2**20), 2**20, (2, 8, 9, 10)), torch.randint(-(2**20), 2**20, (12, 8 // groups, 3, 2))
    expected = F.conv2d(x.double(), w.double(), None, stride, padding, dilation, groups).long()  # below 2^53: exact
    assert torch.equal(ring.conv2d(x, w, stride, padding, dilation, groups), expected)
    factor = 0x9E3779B97F4A7C15 - 2**64
    assert torch.equal(ring.conv2d(x * factor, w, stride, padding, dilation, groups), expected * factor)
