"""By simulation: how often all intervals of a family hold at once, with equal variances and with an odd route."""

import math

import numpy as np
import pytest

from study.report.statistics.blocks import Layout, variances
from study.report.statistics.simulated import CONFIDENCE, differences, null_of_table, standard_errors
from study.report.statistics.simultaneous import StudentT

ROUTES = 6
TABLES = 30_000
AGAINST_FIRST = tuple((route, 0) for route in range(1, ROUTES))
ALL = tuple((a, b) for a in range(ROUTES) for b in range(a))
EQUAL = [1, 1, 1, 1, 1, 1]
ODD_ROUTE = [1, 1, 1, 3, 1, 1]
ODD_REFERENCE = [3, 1, 1, 1, 1, 1]


def coverage(n, deviations, pairs):
    """The share of tables without any difference in which every interval of `compare.within` holds 0."""
    layout = Layout(((True,) * n,) * ROUTES)
    tables = np.random.default_rng(n).standard_normal((TABLES, ROUTES * n)) * np.repeat(deviations, n)
    spread = variances(tables, layout)
    half = null_of_table(layout, pairs).family.quantile(CONFIDENCE) * standard_errors(spread, layout, pairs)
    values = tables.reshape(TABLES, ROUTES, n)
    paired = np.stack([(values[:, a] - values[:, b]).std(axis=1, ddof=1) for a, b in pairs], axis=1) / math.sqrt(n)
    own = StudentT(n - 1, len(pairs)).quantile(CONFIDENCE) * paired
    odd = np.stack([spread.odd[:, pair].any(axis=1) for pair in pairs], axis=1)
    holds = np.abs(differences(tables, layout, pairs)) <= np.where(odd, own, half)
    return holds.all(axis=1).mean()


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [AGAINST_FIRST, ALL], ids=["reference", "all"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_all_intervals_hold_in_95_of_100_tables(n, pairs):
    assert 0.94 <= coverage(n, EQUAL, pairs) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("deviations", [ODD_ROUTE, ODD_REFERENCE], ids=["route", "reference"])
@pytest.mark.parametrize("pairs", [AGAINST_FIRST, ALL], ids=["reference", "all"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_they_hold_in_90_with_one_route_of_three_times_the_deviation(n, pairs, deviations):
    assert coverage(n, deviations, pairs) >= 0.90
