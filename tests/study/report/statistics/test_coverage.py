"""By simulation: how often all intervals of a family hold at once, with equal variances and with an odd route."""

from itertools import combinations

import numpy as np
import pytest

from study.report.statistics.blocks import Layout, variances
from study.report.statistics.families import against, all_pairs
from study.report.statistics.grid import over_grid
from study.report.statistics.simulated import CONFIDENCE, differences, null_of_table, standard_errors

ROUTES = 6
TABLES = 6_000
CHECKED = 20  # tables whose vectorised verdict is compared with the program's
AGAINST_FIRST = tuple((route, 0) for route in range(1, ROUTES))
ALL = tuple(combinations(range(ROUTES), 2))
EQUAL = [1, 1, 1, 1, 1, 1]
ODD_ROUTE = [1, 1, 1, 3, 1, 1]
ODD_REFERENCE = [3, 1, 1, 1, 1, 1]


def all_hold(values, pairs):
    """Whether each interval of the report's comparison of one table (routes, n) holds 0."""
    table = {str(route): dict(enumerate(row)) for route, row in enumerate(values.tolist())}
    return not any(pair.shown for pair in (all_pairs(table) if pairs is ALL else against(table, "0")).pairs)


def coverage(n, deviations, pairs):
    """The share of tables without any difference whose intervals all hold 0; those without an odd route at once."""
    layout = Layout(((True,) * n,) * ROUTES)
    tables = np.random.default_rng(n).standard_normal((TABLES, ROUTES * n)) * np.repeat(deviations, n)
    spread = variances(tables, layout)
    half = null_of_table(layout, pairs).family.quantile(CONFIDENCE) * standard_errors(spread, layout, pairs)
    holds = (np.abs(differences(tables, layout, pairs)) <= half).all(axis=1)
    odd = spread.odd.any(axis=1)
    for i in np.flatnonzero(~odd)[:CHECKED]:
        assert holds[i] == all_hold(tables[i].reshape(ROUTES, n), pairs)
    for i in np.flatnonzero(odd):
        holds[i] = all_hold(tables[i].reshape(ROUTES, n), pairs)
    return holds.mean()


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


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_intervals_of_a_grid_point_hold_with_a_reference_that_does_not_vary(n):
    """12 points, each with a route of its own beside one route and a reference that all points share."""
    random = np.random.default_rng(n)

    def values():
        return dict(enumerate(random.standard_normal(n).tolist()))

    held = []
    for _ in range(600):
        reference, shared = values(), values()
        tables = [{"a": reference, "c": shared, "d": values()} for _ in range(12)]
        held += [not any(pair.shown for pair in family.pairs) for family in over_grid(tables, "a")]
    assert 0.92 <= np.mean(held) <= 0.98  # the points of one grid hold or fail together: 600 draws, not 7,200
