"""Compare routes at each point of a grid (ratio, method, ...), with variances moderated over the whole grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from study.report.statistics.blocks import Blocks, Table
from study.report.statistics.families import Difference, Family, Names, complete, own, prepare, within
from study.report.statistics.moderated import moderate
from study.report.statistics.power import detectable
from study.report.statistics.simulated import CONFIDENCE
from study.report.statistics.simultaneous import Dunnett, Null, Range, StudentT

POINTS = 4  # with fewer, the scatter of the variances is not known and the intervals hold too seldom


def over_grid(tables: Sequence[Table], reference: str | None = None) -> list[Family]:
    """For each point's table the routes against `reference`, or all pairs where it is None.

    Each pair's variance is that of its own differences over seeds, shrunk to the common one. The intervals of one point
    hold together, not those of the whole grid. With fewer than 4 points each table is compared alone.
    """
    points = [prepare(table, reference) for table in tables]
    paired = [[values for name in names if len(values := blocks.paired(*name)) > 1] for blocks, names in points]
    samples = [values for point in paired for values in point]
    if len(tables) < POINTS or len(samples) < POINTS:
        return [within(blocks, names) for blocks, names in points]
    df = [len(values) - 1 for values in samples]
    most_df = sum(
        sum(len(values) - 1 for values in point) * _independent(len(blocks.routes), reference is not None)
        for (blocks, _), point in zip(points, paired, strict=True)
    )
    moderated = moderate([float(values.var(ddof=1)) for values in samples], df, most_df)
    spread = iter(zip(moderated.variances.tolist(), moderated.df.tolist(), strict=True))
    return [_moderated(blocks, names, spread, reference is not None) for blocks, names in points]


def _independent(routes: int, one_reference: bool) -> float:
    """The share of the degrees of freedom of all pairs' variances that the mean of these variances has.

    For correlations c between k differences it is k / sum(c^2): c = 1/2 from one reference, and (R - 1) of all
    R (R - 1) / 2 pairs.
    """
    return 4 / (routes + 2) if one_reference else 2 / routes


def _moderated(blocks: Blocks, names: Names, spread: Iterator[tuple[float, float]], one_reference: bool) -> Family:
    """One grid point; `spread` gives the moderated variance of a difference, and its df, for each pair with n > 1."""
    without_holes = all(all(row) for row in blocks.layout.present)
    found = []
    for name in names:
        values = blocks.paired(*name)
        if len(values) < 2:
            found.append(own(blocks, name, 1))
            continue
        variance, df = next(spread)
        family: Null = StudentT(df, len(names))  # with holes: not all correlations are 1/2
        if without_holes:
            family = Dunnett(len(names), df) if one_reference else Range(len(blocks.routes), df)
        head = Difference(*name, float(values.mean()), len(values), df, "moderated over the grid")
        to_show = detectable(family.quantile(CONFIDENCE), df)
        found.append(complete(head, math.sqrt(variance / len(values)), family, StudentT(df), to_show))
    return Family(tuple(found), (), blocks.left_out)
