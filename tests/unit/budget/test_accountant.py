"""Costs are integers: rounded up, caps rounded down, and odd amounts refused."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.budget.accountant import MICRO, Budget, Cost, cost, plain
from syft_lab.errors import UsageError

epsilons = st.floats(1e-9, 100, allow_nan=False)


@given(epsilons)
def test_a_cost_is_never_less_than_asked_and_a_cap_never_more(epsilon):
    exact = Decimal(repr(epsilon)) * MICRO
    assert exact <= cost(epsilon).epsilon < exact + 1
    assert exact - 1 < Budget(epsilon).cap.epsilon <= exact


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.7]), max_size=50))
def test_sums_do_not_drift(costs):
    total = sum((cost(e) for e in costs), Cost(0))
    assert total.epsilon == sum(round(e * 10) for e in costs) * 100_000


@pytest.mark.parametrize("epsilon", [0, -1, float("nan"), float("inf"), -float("inf"), 1e9, 100.1, True, "0.1", None, [1]])
def test_odd_epsilons_are_refused(epsilon):
    with pytest.raises(UsageError, match="epsilon"):
        cost(epsilon)


@pytest.mark.parametrize("delta", [-1e-9, 1, float("nan"), float("inf"), "0", None, True])
def test_odd_deltas_are_refused(delta):
    with pytest.raises(UsageError, match="delta"):
        cost(0.1, delta)


def test_numpy_numbers_are_numbers():
    assert cost(np.float64(0.1)) == cost(0.1)
    assert cost(np.float32(0.5), np.float64(1e-6)) == cost(0.5, 1e-6)
    assert cost(np.int64(1)) == cost(1)


def test_both_parts_must_fit():
    assert Cost(1, 1).fits(Cost(1, 1))
    assert not Cost(2, 0).fits(Cost(1, 5))
    assert not Cost(0, 2).fits(Cost(5, 1))


def test_amounts_read_well():
    assert str(cost(0.1)) == "ε = 0.1"
    assert str(cost(1, 1e-6)) == "ε = 1, δ = 1e-06"
    assert plain(1) == "0.000001"
    assert plain(100 * MICRO) == "100"
