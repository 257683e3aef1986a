"""Compare the routes of one table, against one reference or all with all: what the report calls, and what it gets.

Every interval is simultaneous: all those of one call hold together with a probability of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from pruning.errors import Refusal
from study.report.statistics.blocks import NOTHING, Blocks, Table, lay_out, variances
from study.report.statistics.equivalence import Equivalence, against_margin
from study.report.statistics.power import detectable
from study.report.statistics.simulated import CONFIDENCE, differences, null_of_table, standard_errors
from study.report.statistics.simultaneous import Null, StudentT

POOLED = "pooled"  # the usual method, which a table need not repeat
Names = Sequence[tuple[str, str]]  # route, reference


@dataclass(frozen=True)
class Difference:
    """One route minus another. Without a second seed there is an estimate and nothing else: `df` is 0."""

    route: str
    reference: str
    estimate: float
    n: int  # seeds that both routes have
    df: float
    method: str  # of the interval, for the table
    error: float = math.nan  # standard error of the estimate
    low: float = -math.inf  # of the simultaneous 95 % interval
    high: float = math.inf
    p: float = 1.0  # adjusted for the family
    p_alone: float = 1.0  # of this pair alone, for a table of statements with an adjustment of its own
    detectable: float = math.inf  # the difference that would have been shown with a power of 80 %
    null: Null | None = field(default=None, repr=False, compare=False)  # of this pair alone

    @property
    def decidable(self) -> bool:
        """Whether there is a second seed, and so an interval."""
        return self.null is not None

    @property
    def shown(self) -> bool:
        """Whether the routes are shown to differ."""
        return not self.low <= 0 <= self.high

    def reversed(self) -> Difference:
        """The reference minus the route."""
        # error, p-values and `detectable` are of absolute values, and the null is symmetric: they stay as they are
        turned = replace(self, route=self.reference, reference=self.route)
        return replace(turned, estimate=-self.estimate, low=-self.high, high=-self.low)

    def against(self, margin: float) -> Equivalence | None:
        """Whether the route is as good as the other, or no worse, by a margin; None without a second seed."""
        return None if self.null is None else against_margin(self.estimate, self.error, self.null, margin)


@dataclass(frozen=True)
class Family:
    """A family of comparisons, and what the report must say beside it."""

    pairs: tuple[Difference, ...]
    odd: tuple[str, ...]  # routes that vary more than the others, left out of the pooled variance
    left_out: tuple[str, ...]  # routes and seeds that share nothing with the others

    def between(self, route: str, reference: str) -> Difference | None:
        """One route minus another, whichever way round the family compares them; None if it does not."""
        both = (turned for pair in self.pairs for turned in (pair, pair.reversed()))
        return next((pair for pair in both if (pair.route, pair.reference) == (route, reference)), None)


def against(table: Table, reference: str) -> Family:
    """Each route minus `reference`, in the table's order."""
    return within(*prepare(table, reference))


def all_pairs(table: Table) -> Family:
    """Each route minus each later one."""
    return within(*prepare(table, None))


def prepare(table: Table, reference: str | None) -> tuple[Blocks, Names]:
    """A table's blocks and the pairs to compare: with a reference each other route minus it, without one all."""
    if reference is not None and reference not in table:
        raise Refusal(f"reference={reference!r} is not one of the routes {', '.join(table)}")
    blocks = lay_out(table, reference)
    if reference is None:
        return blocks, list(combinations(blocks.routes, 2))
    return blocks, [(route, reference) for route in blocks.routes if route != reference]


def within(blocks: Blocks, names: Names) -> Family:
    """By the block design of one table; an odd route is taken out and compared by its own differences."""
    # one pair is a paired t-test; without residual degrees of freedom there is nothing to pool
    if len(names) < 2 or blocks.df < 1:
        return Family(tuple(own(blocks, name, 1) for name in names), (), blocks.left_out)
    # a batch of one table: the same code runs over the simulated ones
    is_odd = variances(blocks.values[None], blocks.layout).odd[0]
    odd = tuple(route for route, out in zip(blocks.routes, is_odd, strict=True) if out)
    pool = blocks.without(odd) if odd else blocks
    in_pool = [name for name in names if {*name} <= {*pool.routes}] if pool.df > 0 else []
    # The 5 % are shared out by the number of pairs: those in the pool have their share together, and each of the others
    # has one. By the union bound all intervals hold together.
    pooled = _pooled(pool, in_pool, len(names) / len(in_pool)) if in_pool else {}
    pairs = tuple(pooled.get(name) or own(blocks, name, len(names)) for name in names)
    return Family(pairs, odd, blocks.left_out)


def _pooled(blocks: Blocks, names: Names, times: float) -> dict[tuple[str, str], Difference]:
    """By the variance of all routes; Bonferroni over `times` families as large as this one."""
    pairs = tuple((blocks.routes.index(route), blocks.routes.index(reference)) for route, reference in names)
    # by pairs of numbers and not of names, so that tables of one layout share their simulation
    null = null_of_table(blocks.layout, pairs, times)
    errors = standard_errors(variances(blocks.values[None], blocks.layout), blocks.layout, pairs)[0].tolist()
    found = {}
    for i, name in enumerate(names):
        head = Difference(*name, _estimate(blocks, name), len(blocks.paired(*name)), blocks.df, POOLED)
        found[name] = complete(head, errors[i], null.family, null.alone[i], null.detectable[i])
    return found


def own(blocks: Blocks, name: tuple[str, str], times: int) -> Difference:
    """By the differences of this pair alone; Bonferroni over a family of `times` pairs."""
    values = blocks.paired(*name)
    df = len(values) - 1
    if df < 1:
        return Difference(*name, _estimate(blocks, name), len(values), 0, "one value")
    head = Difference(*name, float(values.mean()), len(values), df, "own spread" if times > 1 else "paired t")
    family = StudentT(df, times)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return complete(head, error, family, StudentT(df), detectable(family.quantile(CONFIDENCE), df))


def _estimate(blocks: Blocks, name: tuple[str, str]) -> float:
    """By least squares; what is only rounding is 0."""
    pair = (blocks.routes.index(name[0]), blocks.routes.index(name[1]))
    estimate = float(differences(blocks.values[None], blocks.layout, (pair,))[0, 0])
    return estimate if abs(estimate) > NOTHING * np.abs(blocks.values).max() else 0.0


def complete(head: Difference, error: float, family: Null, alone: Null, errors_to_show: float) -> Difference:
    """The comparison with its interval and p-values, from its standard error and its null distributions."""
    half = family.quantile(CONFIDENCE) * error
    # without any spread a difference is infinitely many errors, and none is 0
    t = abs(head.estimate) / error if error else math.inf if head.estimate else 0.0
    return replace(
        head,
        error=error,
        low=head.estimate - half,
        high=head.estimate + half,
        p=family.p(t),
        p_alone=alone.p(t),
        detectable=errors_to_show * error,
        null=alone,
    )
