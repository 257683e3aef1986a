"""Means, deviations and paired t intervals against numbers worked out by hand."""

import math

import pytest

from study.report.routes import paired
from study.report.statistics.summary import Summary, is_number, summarize


def test_sample_deviation_divides_by_n_minus_one():
    # mean 5, squared deviations 9+1+1+1+0+0+4+16 = 32, 32 / 7
    assert summarize([2, 4, 4, 4, 5, 5, 7, 9]) == Summary(5.0, math.sqrt(32 / 7), 8)


def test_one_value_has_no_deviation_and_none_has_no_summary():
    assert summarize([61.2]) == Summary(61.2, None, 1)
    assert summarize([None, float("nan")]) is None


def test_interval_of_three_differences():
    difference = paired({0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0})
    half_width = 4.302653 / math.sqrt(3)  # differences 1, 2, 3: deviation 1, t(0.975, 2) = 4.302653
    assert (difference.estimate, difference.n, difference.df) == (2.0, 3, 2)
    assert (difference.low, difference.high) == pytest.approx((2 - half_width, 2 + half_width), abs=1e-6)
    assert half_width == pytest.approx(2.484, abs=1e-3)
    assert difference.shown is False


def test_interval_of_two_differences_is_very_wide():
    difference = paired({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    # deviation sqrt(2), over sqrt(2) = 1 standard error; t(0.975, 1) = 12.7062
    assert (difference.low, difference.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_a_steady_difference_is_shown():
    difference = paired({0: 5.0, 1: 5.1, 2: 4.9}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert difference.shown is True
    assert difference.low > 4.7


def test_one_seed_has_no_interval_and_decides_nothing():
    difference = paired({0: 61.0}, {0: 60.0})
    assert (difference.estimate, difference.n) == (pytest.approx(1.0), 1)
    assert not difference.decidable


def test_pairing_is_by_seed_and_skips_missing_values():
    values = {2: 7.0, 0: 5.0, 1: None, 3: 100.0}
    reference = {0: 4.0, 1: 1.0, 2: 4.0, 4: 1.0}
    difference = paired(values, reference)
    assert (difference.estimate, difference.n) == (2.0, 2)  # seeds 2 and 0: 3 and 1


def test_no_common_seed_has_no_difference():
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("value", [None, "61", float("nan"), float("inf"), True])
def test_missing_values_are_no_numbers(value):
    assert not is_number(value)
