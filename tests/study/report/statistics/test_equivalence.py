"""Equivalence against statsmodels' paired TOST, and the verdicts by hand."""

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from study.report.statistics.equivalence import Verdict, against_margin
from study.report.statistics.simultaneous import StudentT


def test_tost_agrees_with_statsmodels():
    a, b = np.array([50.1, 50.6, 49.7, 50.9, 50.2]), np.array([50.0, 50.2, 49.9, 50.5, 50.3])
    error = (a - b).std(ddof=1) / np.sqrt(5)
    for margin in (0.1, 0.5, 1.0):
        p, (_, above, _), (_, below, _) = ttost_paired(a, b, -margin, margin)
        ours = against_margin((a - b).mean(), error, StudentT(4), margin)
        assert ours.p_no_worse == pytest.approx(above)
        assert ours.p_as_good == pytest.approx(p) == pytest.approx(max(above, below))


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (0.0, Verdict.AS_GOOD),  # 90 % interval +-0.5 (t(0.95, 4) = 2.132), margin 1
        (0.6, Verdict.NO_WORSE),
        (-0.6, Verdict.NOT_SHOWN),
        (-1.4, Verdict.NOT_SHOWN),
        (-1.6, Verdict.WORSE),
        (9.0, Verdict.NO_WORSE),
    ],
)
def test_verdicts(estimate, verdict):
    result = against_margin(estimate, 0.5 / 2.1318, StudentT(4), 1.0)
    assert result.verdict is verdict
    assert (result.low, result.high) == pytest.approx((estimate - 0.5, estimate + 0.5), abs=1e-4)
    assert (result.p_no_worse < 0.05) == (verdict in (Verdict.AS_GOOD, Verdict.NO_WORSE))
    assert (result.p_as_good < 0.05) == (verdict is Verdict.AS_GOOD)


def test_without_spread_the_estimate_decides():
    assert against_margin(0.0, 0.0, StudentT(1), 0.5).verdict is Verdict.AS_GOOD
    assert against_margin(-0.5, 0.0, StudentT(1), 0.5).p_no_worse == 0.5


def test_a_margin_is_above_zero():
    with pytest.raises(ValueError, match=r"margin=0\.0: no worse than needs a margin above 0"):
        against_margin(0.0, 1.0, StudentT(1), 0.0)
