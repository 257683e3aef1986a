"""What the sides of a statement come to, seed by seed: a measure, its slope over a field, or its value at a cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from study.report.claims.measures import BySeed, Sources, by_seed
from study.report.claims.pairs import EQUAL_COST, Pair, Pruned, value_of
from study.report.claims.statement import Statement
from study.report.statistics.summary import is_number

Values = tuple[BySeed, BySeed]  # of better and worse


def values_of(statement: Statement, pair: Pair, pruned: Pruned, primary: str, sources: Sources | None) -> Values | None:
    """The values of both sides; None where a side has none at all, which says nothing of the statement.

    Of a trend the slopes of both sides; of one route against itself its slope and 0.
    """
    better = [by_seed(route, statement.better.measure or primary, sources) for route in pair.better]
    worse = [by_seed(route, statement.worse.measure or primary, sources) for route in pair.worse]
    if statement.trend:
        # text only for the type checker: `pairs` makes lines of numbers alone
        at = [float(str(value_of(route, statement.field, pruned))) for route in pair.better]
        slopes = _slopes(at, better)
        nothing: BySeed = dict.fromkeys(slopes, 0.0)
        found = slopes, nothing if pair.better == pair.worse else _slopes(at, worse)
    elif statement.equal_cost:
        costs = [route.by_seed(statement.equal_cost) for route in pair.worse]
        # seed by seed: widths that are found in trained weights cost something else with every seed
        wanted = pair.better[0].by_seed(statement.equal_cost)
        found = better[0], {seed: _at_cost(cost, seed, costs, worse) for seed, cost in wanted.items()}
    else:
        found = better[0], worse[0]
    known = [any(is_number(value) for value in side.values()) for side in found]
    # A column that a route should have and lacks is a result that is missing; a measure may not apply to it.
    optional = statement.trend or statement.equal_cost or statement.better.measure or statement.worse.measure
    return None if optional and not all(known) else found


def _slopes(at: Sequence[float], lines: Sequence[Mapping[int, float | None]]) -> BySeed:
    """Least squares slope of each seed that has a value everywhere."""
    seeds = set.intersection(*(set(line) for line in lines))
    found: BySeed = {}
    for seed in sorted(seeds):
        values = [line[seed] for line in lines]
        present = [float(value) for value in values if is_number(value)]
        if len(present) == len(at):
            found[seed] = float(np.polyfit(at, present, 1)[0])
    return found


def _at_cost(wanted: float | None, seed: int, costs: Sequence[BySeed], scores: Sequence[BySeed]) -> float | None:
    """The score of a line of networks at a cost: linear in its logarithm between the two next to it.

    Outside of them that of the nearest one, if its cost is equal but for EQUAL_COST; else None.
    """
    points = sorted(
        (float(cost), float(score))
        for cost, score in ((c.get(seed), s.get(seed)) for c, s in zip(costs, scores, strict=True))
        if is_number(cost) and is_number(score)
    )
    if not is_number(wanted) or not points:
        return None
    if points[0][0] <= wanted <= points[-1][0]:
        logs = [math.log(cost) for cost, _ in points]
        return float(np.interp(math.log(wanted), logs, [score for _, score in points]))
    cost, score = min(points, key=lambda point: abs(point[0] - wanted))
    return score if abs(cost - wanted) <= EQUAL_COST * max(cost, wanted) else None
