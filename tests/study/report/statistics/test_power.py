"""The detectable difference against scipy's noncentral t and statsmodels' power of a paired t test."""

import math

import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower

from study.report.statistics.power import detectable


@pytest.mark.parametrize(("critical", "df"), [(12.706, 1), (2.776, 4), (3.62, 5), (2.73, 20), (2.5, 2.08)])
def test_it_is_found_with_80_percent(critical, df):
    assert scipy.stats.nct.sf(critical, df, detectable(critical, df)) == pytest.approx(0.8, abs=1e-6)


def test_it_agrees_with_statsmodels():
    effect = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8, alternative="two-sided")
    critical = scipy.stats.t.ppf(0.975, 4)
    assert detectable(critical, 4) / math.sqrt(5) == pytest.approx(effect, abs=1e-4)
