"""Intervals of means hold the truth as often as they say, lie within the bounds, and are as narrow as the noise allows."""

import numpy as np
import pytest
from scipy import stats

from syft_lab.budget.mechanisms import mean_interval
from syft_lab.budget.noise import prepare

RELEASES = 4_000


def released(count, share, scale, seed=0):
    draw = np.random.default_rng(seed)
    sums = count * share + draw.laplace(0, scale, RELEASES), count * (1 - share) + draw.laplace(0, scale, RELEASES)
    return np.array(mean_interval(list(zip(*sums, strict=True)), scale))


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("count", [0, 1, 30, 300, 30_000])
def test_the_interval_of_a_mean_is_true_in_95_of_100_releases(count, share):
    low, high = released(count, share, 3.0).T
    assert ((low >= 0) & (low <= high) & (high <= 1)).all()
    within = ((low <= share) & (share <= high)).sum()
    assert stats.binom.ppf(1e-6, RELEASES, 0.95) <= within <= stats.binom.ppf(1 - 1e-6, RELEASES, 0.98)


def test_it_narrows_with_the_rows_also_where_all_values_are_at_a_bound():
    widths = [np.diff(released(count, share, 1.0)).mean() for count, share in ((300, 0.0), (30_000, 0.0), (30_000, 0.5))]
    assert widths[0] < 0.02 and widths[1] < 0.0002 and widths[2] < 0.0002


def test_a_pair_that_noise_can_hardly_have_made_still_has_an_interval():
    ((low, high),) = mean_interval([(-500.0, 3000.0)], 1.0)
    assert 0 <= low <= high <= 1
    assert mean_interval([], 1.0) == []


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 2.9, 3.0, 7.0, 30.0])
def test_the_error_of_whole_numbers_is_passed_in_at_most_5_of_100_draws(epsilon):
    from syft_lab.budget.accountant import cost

    made = prepare(1, 1.0, cost(epsilon))
    drawn = np.abs(made.draw([0] * 50_000))
    assert (drawn > made.error).mean() <= 0.05 + 4 * (0.05 * 0.95 / 50_000) ** 0.5
    assert made.error == 0 or (drawn > made.error - 1).mean() > 0.045  # and no larger than that needs


def test_the_error_of_a_narrow_gaussian_holds_too():
    from syft_lab.budget.accountant import cost

    made = prepare(1, 1.0, cost(20.0, 0.1))
    assert (np.abs(made.draw([0] * 20_000)) > made.error).mean() <= 0.05
