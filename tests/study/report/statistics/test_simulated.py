"""The simulated null distribution against exact ones, with and without holes."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from study.report.statistics import simulated
from study.report.statistics.blocks import Layout, Variances, estimator, residual_squares
from study.report.statistics.power import detectable
from study.report.statistics.simultaneous import Dunnett, Range

COMPLETE = Layout(((True,) * 3,) * 6)
REFERENCE = tuple((route, 0) for route in range(1, 6))
ALL = tuple((a, b) for a in range(6) for b in range(a))


@pytest.fixture
def pooled_only(monkeypatch):
    """The simplest rule, whose distributions are known: one variance for all routes."""

    def pooled(tables, layout):
        routes = len(layout.present)
        squares, df = residual_squares(tables, layout, tuple(range(routes)))
        return Variances(np.repeat((squares / df)[:, None], routes, axis=1), np.zeros((len(tables), routes), bool))

    monkeypatch.setattr(simulated, "variances", pooled)
    return simulated.null_of_table.__wrapped__  # without the cache


@pytest.mark.parametrize(("pairs", "exact"), [(REFERENCE, Dunnett(5, 10)), (ALL, Range(6, 10))])
def test_with_one_variance_it_is_dunnetts_and_tukeys(pooled_only, pairs, exact):
    null = pooled_only(COMPLETE, pairs)
    for level in (0.5, 0.9, 0.95):
        assert null.family.quantile(level) == pytest.approx(exact.quantile(level), rel=0.01)
    assert null.alone[0].quantile(0.95) == pytest.approx(scipy.stats.t.ppf(0.975, 10), rel=0.015)
    assert null.detectable[0] == pytest.approx(detectable(exact.quantile(0.95), 10), rel=0.01)


def test_holes_have_their_own_correlations(pooled_only):
    present = np.ones((4, 4), bool)
    present[1, :3] = present[3, 0] = False
    layout = Layout(tuple(map(tuple, present.tolist())))
    pairs = ((1, 0), (2, 0), (3, 0))
    effects = estimator(layout)
    contrasts = np.array([effects[a] - effects[b] for a, b in pairs])
    covariance = contrasts @ contrasts.T
    deviation = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviation, deviation)
    assert abs(correlation[0, 1] - 0.5) > 0.1
    t = pooled_only(layout, pairs).family.quantile(0.95)
    df = present.sum() - 7
    inside = scipy.stats.multivariate_t.cdf([t] * 3, shape=correlation, df=df, lower_limit=[-t] * 3, random_state=0)
    assert inside == pytest.approx(0.95, abs=0.004)


def test_it_is_the_same_each_time_and_p_is_never_zero():
    null = simulated.null_of_table.__wrapped__(COMPLETE, REFERENCE)
    again = simulated.null_of_table.__wrapped__(COMPLETE, REFERENCE)
    assert null.family.quantile(0.95) == again.family.quantile(0.95)
    assert null.family.p(1e9) == 1 / simulated.TABLES
    assert null.family.p(0.0) == 1.0
    assert null.family.p(null.family.quantile(0.95)) == pytest.approx(0.05, abs=1e-4)


def test_quantiles_of_simulated_values_by_hand():
    values = np.arange(1.0, 101.0)
    assert simulated.Simulated(values).quantile(0.9) == 90.0  # 91 to 100 exceed it
    assert simulated.Simulated(values).p(90.0) == pytest.approx(0.11)
    assert simulated.Simulated(values, 2).p(100.0) == pytest.approx(0.02)
    assert simulated.Simulated(values, 2).quantile(0.9) == 95.0


def rows_of_the_page():
    """(n, (routes, against one?) -> what would be shown) of the table in docs/statistics.md."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "statistics.md").read_text(encoding="utf-8")
    columns = ((3, True), (3, False), (6, True), (6, False))
    for line in re.findall(r"^\| (\d+ \|(?: \d+\.\d \|){4})$", page, flags=re.MULTILINE):
        n, *cells = line.replace("|", " ").split()
        yield int(n), dict(zip(columns, map(float, cells), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "row"), rows_of_the_page())
def test_the_page_says_what_so_many_seeds_find(n, row):
    """Added to one route of tables without a difference, that many deviations are shown in 80 of 100, to rounding."""
    for (routes, against_one), deviations in row.items():
        layout = Layout(((True,) * n,) * routes)
        pairs = tuple((a, b) for a, b in combinations(range(routes), 2) if a == 0 or not against_one)
        tables = np.random.default_rng(1).standard_normal((20_000, routes * n))
        error = simulated.standard_errors(simulated.variances(tables, layout), layout, pairs)[:, 0]
        half = simulated.null_of_table(layout, pairs).family.quantile(0.95) * error
        difference = simulated.differences(tables, layout, pairs)[:, 0]
        less, more = (np.mean(difference + deviations + rounding > half) for rounding in (-0.06, 0.06))
        assert less < 0.81 and more > 0.79  # as often as so few tables tell


def test_the_page_has_its_rows():
    assert [n for n, _ in rows_of_the_page()] == [2, 3, 4, 5, 10]
