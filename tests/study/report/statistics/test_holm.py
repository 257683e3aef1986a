"""Holm's adjustment by hand and against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from study.report.statistics.holm import holm


def test_by_hand():
    # ranked 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.9; the third is no less than the second
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_it_agrees_with_statsmodels():
    p = np.random.default_rng(0).uniform(size=45) ** 3
    p[7] = p[30]  # a tie
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
