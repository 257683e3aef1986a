"""Moderated variances: the trigamma inversion, the two limits, and recovery of a known prior."""

import math

import numpy as np
import pytest
from scipy.special import polygamma

from study.report.statistics.moderated import _inverse_trigamma, moderate


@pytest.mark.parametrize("x", [1e-3, 0.1, 0.5, 1.0, 3.0, 50.0, 1e5])
def test_inverse_trigamma(x):
    assert _inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-9)


def test_variances_alike_become_their_mean():
    result = moderate([1.0, 1.1, 0.9, 1.0], [4, 4, 4, 2], most_df=14)
    assert result.prior_df == math.inf
    assert result.variances == pytest.approx([(4 + 4.4 + 3.6 + 2) / 14] * 4)
    assert result.df.tolist() == [14.0] * 4


def test_shrinking_by_hand():
    sample, df = [0.01, 1.0, 100.0, 3.0], [4, 4, 4, 4]
    result = moderate(sample, df, most_df=16)
    # with equal df: var(log s^2) = trigamma(d / 2) + trigamma(d0 / 2)
    excess = np.var(np.log(sample), ddof=1) - polygamma(1, 2)
    assert polygamma(1, result.prior_df / 2) == pytest.approx(excess)
    expected = [(result.prior_df * result.prior_variance + 4 * s) / (result.prior_df + 4) for s in sample]
    assert result.variances == pytest.approx(expected)
    assert result.df == pytest.approx([result.prior_df + 4] * 4)


def test_a_known_prior_is_recovered():
    random = np.random.default_rng(0)
    true = 8 * 2.5 / random.chisquare(8, size=20_000)  # d0 = 8, s0^2 = 2.5
    sample = true * random.chisquare(3, size=20_000) / 3
    result = moderate(sample, [3] * 20_000, most_df=60_000)
    assert result.prior_df == pytest.approx(8, rel=0.1)
    assert result.prior_variance == pytest.approx(2.5, rel=0.03)


def test_a_variance_of_zero_is_shrunk_like_a_tiny_one():
    assert np.isfinite(moderate([0.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], 4).variances).all()
    assert moderate([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1], 4).variances.tolist() == [0.0] * 4
