"""The null distribution of the differences within one table, from simulated tables of the same layout.

A difference is divided by a standard error that uses the routes' own variances (`blocks.variances`), so its largest
absolute value over a family is not Dunnett's or Tukey's. It depends on the layout alone where all variances are equal,
so it is simulated: tables of standard normal numbers, a fixed seed, holes included. The whole rule is simulated, with
the search for odd routes, so the coverage under equal variances is the nominal one (within 0.2 %).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from study.report.statistics.blocks import Array, Layout, Variances, estimator, variances
from study.report.statistics.power import POWER

CONFIDENCE = 0.95  # of the simultaneous intervals
# a p-value of 0.05 from so many has a standard error of 0.001
TABLES = 40_000
SEED = 20_191  # of the simulated tables

Pairs = tuple[tuple[int, int], ...]  # rows of a layout: route, reference


@dataclass(frozen=True)
class Simulated:
    """A null distribution (`simultaneous.Null`) by simulated values, ascending."""

    values: Array = field(repr=False)
    times: float = 1  # Bonferroni over this many such families

    def p(self, t: float) -> float:
        """Never 0: what no simulated table reached counts as reached by one."""
        reached = len(self.values) - int(np.searchsorted(self.values, t))
        return min(1.0, self.times * max(reached, 1) / len(self.values))

    def quantile(self, level: float) -> float:
        # the largest value that exactly so many simulated ones exceed
        beyond = round((1 - level) / self.times * len(self.values))  # how many simulated tables exceed it
        return float(self.values[len(self.values) - 1 - beyond])


@dataclass(frozen=True)
class NullOfTable:
    """Null distributions for the pairs of one layout."""

    family: Simulated  # of the largest of all pairs
    alone: tuple[Simulated, ...]  # of each pair alone
    detectable: tuple[float, ...]  # for each pair, in its standard errors: found by the family with a power of 80 %


def standard_errors(spread: Variances, layout: Layout, pairs: Pairs) -> Array:
    """(D, pairs): of the differences by least squares, where routes have different variances."""
    contrasts = _contrasts(layout, pairs)
    # A difference is a weighted sum of independent values, so its variance is the sum of squared weight times variance;
    # what seeds add cancels out.
    of_route = np.eye(len(layout.present))[layout.places[0]]  # (N, R)
    return np.sqrt(spread.by_route @ (contrasts**2 @ of_route).T)


def differences(tables: Array, layout: Layout, pairs: Pairs) -> Array:
    """(D, pairs): route minus reference by least squares."""
    return tables @ _contrasts(layout, pairs).T


def _contrasts(layout: Layout, pairs: Pairs) -> Array:
    effects = estimator(layout)
    return np.array([effects[route] - effects[reference] for route, reference in pairs])


@lru_cache(maxsize=8)
def null_of_table(layout: Layout, pairs: Pairs, times: float = 1) -> NullOfTable:
    """Simulate. A pair with an odd route counts as not exceeding: it has an interval of its own."""
    tables = np.random.default_rng(SEED).standard_normal((TABLES, len(layout.places[0])))
    spread = variances(tables, layout)
    error = standard_errors(spread, layout, pairs)
    odd = np.stack([spread.odd[:, pair].any(axis=1) for pair in pairs], axis=1)
    difference = differences(tables, layout, pairs)
    # the intervals of a family hold together or not at all: below, the largest of its pairs decides
    t = np.where(odd, 0.0, np.abs(difference) / error)
    family = Simulated(np.sort(t.max(axis=1)), times)
    # A true difference d is shown in a table where d + difference > critical value times error. The d for which that is
    # so in 80 of 100 tables is this quantile; the other tail is left out, as in `power.detectable`. It is then told in
    # units of the error, as a real table has only that.
    to_show = np.quantile(family.quantile(CONFIDENCE) * error - difference, POWER, axis=0)
    to_show /= np.sqrt((error**2).mean(axis=0))
    alone = tuple(Simulated(column) for column in np.sort(t.T))
    return NullOfTable(family, alone, tuple(to_show.tolist()))
