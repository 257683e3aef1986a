"""Dunnett's and Tukey's distributions against published tables and scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from study.report.statistics.simultaneous import Dunnett, Range, StudentT

# Dunnett 1964, two-sided 5 %, k = 1..9
TABLE_5 = {
    5: [2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97],
    10: [2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24],
    20: [2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95],
}


@pytest.mark.parametrize("df", TABLE_5)
def test_dunnetts_table(df):
    # the table's last digit comes from interpolation in places
    assert [Dunnett(k, df).quantile(0.95) for k in range(1, 10)] == pytest.approx(TABLE_5[df], abs=0.0075)


def test_dunnetts_table_at_1_percent():
    assert [Dunnett(k, 10).quantile(0.99) for k in range(1, 6)] == pytest.approx(
        [3.17, 3.53, 3.74, 3.88, 3.99], abs=0.006
    )


def test_dunnetts_table_without_end_of_df():
    assert [Dunnett(k, 1e5).quantile(0.95) for k in range(1, 6)] == pytest.approx(
        [1.96, 2.21, 2.35, 2.44, 2.51], abs=0.005
    )


def test_dunnett_agrees_with_scipy_one_way():
    random = np.random.default_rng(0)
    groups = random.normal(size=(5, 4)) + np.array([0, 0.5, 1, 2, 3])[:, None]
    result = scipy.stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(1))
    ours = [Dunnett(4, 15).p(t) for t in np.abs(result.statistic)]
    assert ours == pytest.approx(result.pvalue, abs=5e-4)


def test_dunnett_agrees_with_the_multivariate_t():
    shape = np.full((3, 3), 0.5) + np.eye(3) / 2
    t = Dunnett(3, 2.5).quantile(0.9)
    inside = scipy.stats.multivariate_t.cdf([t] * 3, shape=shape, df=2.5, lower_limit=[-t] * 3, random_state=0)
    assert inside == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(("k", "df"), [(3, 2), (6, 5), (6, 20), (10, 36)])
def test_range_is_the_studentized_range(k, df):
    expected = scipy.stats.studentized_range.ppf(0.95, k, df) / math.sqrt(2)
    assert Range(k, df).quantile(0.95) == pytest.approx(expected, rel=1e-6)


def test_tukeys_table():
    assert math.sqrt(2) * Range(5, 10).quantile(0.95) == pytest.approx(4.65, abs=0.005)
    assert math.sqrt(2) * Range(3, 20).quantile(0.95) == pytest.approx(3.58, abs=0.005)


def test_range_agrees_with_tukey_hsd():
    groups = np.random.default_rng(2).normal(size=(4, 3)) + np.array([0, 1, 1, 3])[:, None]
    result = scipy.stats.tukey_hsd(*groups)
    error = math.sqrt(2 * groups.var(axis=1, ddof=1).mean() / 3)
    ours = [Range(4, 8).p(abs(groups[i].mean() - groups[j].mean()) / error) for i, j in [(0, 1), (0, 3), (2, 3)]]
    assert ours == pytest.approx([result.pvalue[0, 1], result.pvalue[0, 3], result.pvalue[2, 3]], abs=1e-6)


@pytest.mark.parametrize("null", [StudentT(4), Dunnett(1, 4), Range(2, 4)])
def test_one_pair_is_students_t(null):
    assert null.quantile(0.95) == pytest.approx(2.776445, abs=1e-5)
    assert null.p(2.776445) == pytest.approx(0.05, abs=1e-6)


def test_bonferroni_over_five_pairs():
    # t(0.995, 9 df) = 3.2498
    assert StudentT(9, 5).quantile(0.95) == pytest.approx(3.2498, abs=1e-4)
    assert StudentT(9, 5).p(3.2498) == pytest.approx(0.05, abs=1e-5)
    assert StudentT(9, 5).p(0.1) == 1.0


@pytest.mark.parametrize("null", [Dunnett(5, 5), Range(6, 5), Dunnett(7, 1), Range(3, 40)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_p_is_the_inverse_of_the_quantile(null, level):
    assert null.p(null.quantile(level)) == pytest.approx(1 - level, rel=1e-5)


@pytest.mark.parametrize("null", [Dunnett(5, 20), Range(6, 20)])
@pytest.mark.parametrize("t", [0.0, 1.0, 12.0, 40.0, math.inf])
def test_far_out_p_stays_between_one_pair_and_bonferroni(null, t):
    times = 5 if isinstance(null, Dunnett) else 15
    assert StudentT(20).p(t) <= null.p(t) <= StudentT(20, times).p(t)
