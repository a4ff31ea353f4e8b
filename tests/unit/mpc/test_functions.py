"""Functions against torch, over the domains that docs/mpc.md states, with its bounds."""

import math

import pytest
import torch

from syft_lab import errors
from syft_lab.mpc import sharing
from syft_lab.mpc.functions import Fixed
from tests.parties import compute

UNIT = 2.0**-sharing.FRACTION


def kept(x):
    """As shares hold it."""
    return sharing.decode(sharing.encode(x))


@pytest.mark.parametrize(("name", "low", "high", "bound"), [
    ("sigmoid", -30.0, 30.0, 7.2e-6), ("relu", -4000.0, 4000.0, 0), ("absolute", -4000.0, 4000.0, 0)])  # fmt: skip
def test_functions_are_within_their_bounds(name, low, high, bound):
    x = kept(
        torch.cat(
            [torch.linspace(low, high, 4001).double(), torch.tensor([low, high, 0.0, UNIT if high else 0.0, -UNIT]).double()]
        )
    )
    found, _ = compute(getattr(Fixed, name), x)
    expected = {"absolute": torch.abs}.get(name, getattr(torch, name, None))(x)
    assert (found - expected).abs().max() <= bound


def test_products_are_right_up_to_the_limit_of_their_results():
    x, y = kept(torch.tensor([[4095.9, 4095.9], [4000.1, -7.25]])), kept(torch.tensor([[4095.9, -4095.9], [4095.9, -4095.9]]))
    found, _ = compute(lambda fixed, a, b: fixed.product(a, b, torch.matmul), x, y)
    exact = x @ y
    assert exact.abs().max() > 2**25 - 2000
    assert (found - exact).abs().max() <= UNIT


def test_exp_is_within_its_bound():
    x = kept(torch.cat([torch.linspace(-13, 7.6, 4001).double(), torch.tensor([-20.0, -100.0, -4000.0]).double()]))
    found, _ = compute(Fixed.exp, x)
    assert ((found - x.exp()).abs() <= 1e-5 + 2e-5 * x.exp()).all()


@pytest.mark.parametrize(("f", "k"), [(17, 32), (0, 32), (20, 32), (18, 33), (18, 64), (18, 0)])
def test_fraction_bits_that_the_functions_can_not_have_are_refused(f, k):
    with pytest.raises(errors.UsageError, match="fraction bits"):
        Fixed(None, f, k)


@pytest.mark.parametrize("sign", [1, -1])
def test_reciprocals_are_right_for_small_and_for_large_numbers(sign):
    """CrypTen's go wrong in silence outside ±500."""
    x = kept(sign * torch.logspace(-3.3, 3.6, 3000).double())
    found, _ = compute(Fixed.reciprocal, x)
    exact = 1 / x
    assert ((found - exact).abs() <= 3 * UNIT + 3e-5 * exact.abs()).all()


def test_quotients_and_roots():
    x, y = kept(torch.logspace(-3, 3.5, 2000).double()), kept(torch.linspace(-30, 30, 2000).double())
    found, _ = compute(Fixed.divide, y, kept(x + 0.1))
    exact = y / kept(x + 0.1)
    assert ((found - exact).abs() <= 3 * UNIT * (1 + 1 / kept(x + 0.1)) + 3e-5 * exact.abs()).all()
    found, _ = compute(Fixed.inverse_root, x)
    assert ((found - x.rsqrt()).abs() <= 2 * UNIT + 1e-5 * x.rsqrt()).all()
    x = kept(torch.cat([torch.logspace(-5.4, 3.6, 4000).double(), torch.tensor([0.0, 0.0, UNIT, 2 * UNIT, 4095.9]).double()]))
    found, _ = compute(Fixed.root, x)
    assert ((found - x.sqrt()).abs() <= 2 * UNIT + 1e-6 * x.sqrt()).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_the_largest_and_its_first_place(count):
    x = torch.randint(-3, 4, (50, count)).double()
    found, _ = compute(lambda f, s: f.largest(s, 1), x)
    assert torch.equal(found, x.amax(1))
    place, _ = compute(lambda f, s: f.which_largest(s, 1)[1].map(lambda t: t << f.f), x)
    assert torch.equal(place.long(), (x == x.amax(1, keepdim=True)).int().argmax(1))


def test_softmax_of_many_and_of_far_apart():
    x = torch.cat([torch.randn(20, 100).double() * 5, torch.linspace(-2000, 2000, 100).double().repeat(2, 1)])
    found, _ = compute(lambda f, s: f.softmax(s, 1), x)
    assert (found - kept(x).softmax(1)).abs().max() <= 2e-4
    assert (found.sum(1) - 1).abs().max() <= 1e-3


@pytest.mark.parametrize("factor", [0.3, 2.0**-12, -(2.0**-13), 1.7e-4, 3e-9, -1e-15, 1e-30])
def test_small_factors_keep_their_bits_and_large_sums_hold(factor):
    x = torch.linspace(-4000, 4000, 101).double()
    more = min(18, max(0, round(-math.log2(abs(factor)))))  # sums of so many that the result is in range
    found, _ = compute(lambda f, s: f.scaled(s.map(lambda t: t << more), factor), x)
    exact = kept(x) * 2.0**more * factor
    assert ((found - exact).abs() <= 2 * UNIT + 8e-6 * exact.abs()).all()


def test_powers_of_what_is_public_cost_no_message():
    _, parties = compute(lambda f, s: f.constant(f.scaled(s, 4.0), 2.5), torch.randn(10))
    assert [p.online.bytes for p in parties] == [0, 0, 0]
