"""Compare routes at each point of a grid (ratio, method, ...), with variances moderated over the whole grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from study.report.statistics.blocks import Array, Blocks, Table
from study.report.statistics.families import Difference, Family, Names, complete, own, prepare, within
from study.report.statistics.moderated import moderate
from study.report.statistics.power import detectable
from study.report.statistics.simulated import CONFIDENCE
from study.report.statistics.simultaneous import Dunnett, Null, Range, StudentT

MODERATED = "moderated over the grid"  # the method of an interval, for the table
POINTS = 4  # with fewer, the scatter of the variances is not known and the intervals hold too seldom


# a route by its name and its values over seeds: one that does not vary along the grid is the same at each point
Side = tuple[str, tuple[tuple[int, float | None], ...]]


def over_grid(tables: Sequence[Table], reference: str | None = None) -> list[Family]:
    """For each point's table the routes against `reference`, or all pairs where it is None.

    Each pair's variance is that of its own differences over seeds, shrunk to the common one. The intervals of one point
    hold together, not those of the whole grid. With fewer than 4 points each table is compared alone.
    """
    points = [prepare(table, reference) for table in tables]
    # A pair whose sides do not vary along the grid comes again at every point, and is one observation all the same.
    samples: dict[tuple[Side, Side], Array] = {}
    for blocks, names in points:
        for name in names:
            values = blocks.paired(*name)
            if len(values) > 1:
                # by the values, not by the name alone: a route that varies along the grid is another side at each point
                samples[_side(blocks, name[0]), _side(blocks, name[1])] = values
    if len(tables) < POINTS or len(samples) < POINTS:
        return [within(blocks, names) for blocks, names in points]
    df = [len(values) - 1 for values in samples.values()]
    # Differences from one reference share its noise. Their variances together know less than their degrees of freedom
    # add up to, and no moderated one may claim to know more than all of them.
    most_df = sum(df) * _independent(list(samples))
    # all pairs of the grid at once: the more variances there are, the better their scatter is known
    moderated = moderate([float(values.var(ddof=1)) for values in samples.values()], df, most_df)
    spread = dict(zip(samples, zip(moderated.variances.tolist(), moderated.df.tolist(), strict=True), strict=True))
    return [_moderated(blocks, names, spread, reference is not None) for blocks, names in points]


def _side(blocks: Blocks, route: str) -> Side:
    return route, tuple(sorted(blocks.table[route].items()))


def _independent(pairs: Sequence[tuple[Side, Side]]) -> float:
    """The share of the degrees of freedom of all pairs' variances that the mean of these variances has.

    For correlations c between k differences it is k / sum(c^2). Of a - b and c - d the correlation is half the number
    of equal sides, those that stand crosswise counting as -1: 1/2 for two routes against one reference.
    """
    numbers = {side: i for i, side in enumerate(dict.fromkeys(side for pair in pairs for side in pair))}
    contrasts = np.zeros((len(pairs), len(numbers)))
    for row, (route, reference) in enumerate(pairs):
        contrasts[row, numbers[route]], contrasts[row, numbers[reference]] = 1, -1
    # Each row has the norm sqrt(2). Sample variances of normal numbers with correlation c correlate by c^2, so the mean
    # of k of them varies as that of k^2 / sum(c^2) independent ones.
    correlations = contrasts @ contrasts.T / 2
    return float(len(pairs) / (correlations**2).sum())


def _moderated(
    blocks: Blocks, names: Names, spread: Mapping[tuple[Side, Side], tuple[float, float]], one_reference: bool
) -> Family:
    """One grid point; `spread`: the moderated variance of a difference, and its df, of each pair with n > 1."""
    without_holes = all(all(row) for row in blocks.layout.present)
    found = []
    for name in names:
        values = blocks.paired(*name)
        if len(values) < 2:
            found.append(own(blocks, name, 1))
            continue
        variance, df = spread[_side(blocks, name[0]), _side(blocks, name[1])]
        family: Null = StudentT(df, len(names))  # with holes: not all correlations are 1/2
        if without_holes:
            family = Dunnett(len(names), df) if one_reference else Range(len(blocks.routes), df)
        head = Difference(*name, float(values.mean()), len(values), df, MODERATED)
        to_show = detectable(family.quantile(CONFIDENCE), df)
        found.append(complete(head, math.sqrt(variance / len(values)), family, StudentT(df), to_show))
    return Family(tuple(found), (), blocks.left_out)
