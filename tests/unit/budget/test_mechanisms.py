"""The error bound of a mean holds whenever those of its parts hold."""

from hypothesis import given
from hypothesis import strategies as st

from syft_lab.budget.mechanisms import centred_mean, mean_error

number = st.floats(-1000, 1000)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 30), st.floats(0, 20)
)
def test_the_bound_of_a_mean_holds_where_both_parts_hold(values, e1, e2, a_sum, a_count):
    middle = 5.0
    total = sum(v - middle for v in values) + e1 * a_sum
    count = max(0.0, len(values) + e2 * a_count)
    found = centred_mean(total, count, middle, 0, 10)
    if found is not None:
        truth = sum(values) / len(values)
        assert abs(found - truth) <= mean_error(total, count, a_sum, a_count, 10) + 1e-9


def test_nothing_left_has_no_mean_and_an_error_as_wide_as_the_bounds():
    assert centred_mean(3, 0, 5, 0, 10) is None
    assert mean_error(3, 0, 1, 1, 10) == 10
    assert mean_error(3, 5, 1, 8, 10) == 10


def test_a_mean_stays_within_its_bounds():
    assert centred_mean(1e6, 2, 5, 0, 10) == 10
    assert centred_mean(-1e6, 2, 5, 0, 10) == 0
