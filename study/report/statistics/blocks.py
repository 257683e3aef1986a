"""A table of routes and seeds as a randomised block design: least squares, pooled and own variances, odd routes.

The model is `value = route + seed + residual`. Seeds are blocks: the routes of one seed share the order of their data
and often whole stages. In a complete table of R routes and n seeds the residual variance (MSE) has (R - 1)(n - 1)
degrees of freedom and a difference of two routes the variance 2 MSE / n. With holes both come from least squares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from study.report.statistics.summary import is_number

Array = NDArray[np.float64]
Table = Mapping[str, Mapping[int, float | None]]  # route -> {seed: value}; None, NaN or no entry: it did not run

OWN_WEIGHT = 6.0  # see `variances`
ODD_RATIO = 3.0  # an odd route's deviation is more than this many times that of the other routes,
ODD_LEVEL = 0.01  # and an F test says so at this level, Bonferroni over the routes
NOTHING = 1e-12  # of the largest value: what is smaller is rounding


@dataclass(frozen=True)
class Layout:
    """Which route has a value for which seed. A table with this layout is a row of the N values, route by route."""

    present: tuple[tuple[bool, ...], ...]  # a row for each route, a column for each seed

    @property
    def places(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Route and seed of each of the N values, as numbers of rows and columns."""
        routes, seeds = np.nonzero(np.array(self.present))
        return routes, seeds


@dataclass(frozen=True)
class Blocks:
    """One table made ready: its connected part, with what had to be left out, named for the report."""

    table: Table  # whole
    reference: str | None  # the connected part is the one with this route
    routes: tuple[str, ...]
    seeds: tuple[int, ...]
    layout: Layout
    values: Array  # (N,), in the layout's order
    left_out: tuple[str, ...]  # "seed 3", "route scratch_e": without a second value to be compared with

    @property
    def df(self) -> int:
        """Residual degrees of freedom: (routes - 1)(seeds - 1) without holes."""
        # one less than effects, since a constant can be moved from all routes to all seeds
        return len(self.values) - (len(self.routes) + len(self.seeds) - 1)

    def paired(self, route: str, reference: str) -> Array:
        """Differences of two routes over the seeds that both have."""
        # a hole is NaN, and so is each difference with it: what is left are the seeds of both
        whole = np.full(np.shape(self.layout.present), np.nan)
        whole[self.layout.places] = self.values
        difference = whole[self.routes.index(route)] - whole[self.routes.index(reference)]
        return difference[~np.isnan(difference)]

    def without(self, routes: Collection[str]) -> Blocks:
        """The same without some routes; again only what is connected."""
        rest = {route: self.table[route] for route in self.routes if route not in routes}
        return lay_out(rest, self.reference)


@dataclass(frozen=True)
class Variances:
    """Variances of one value in each of D tables with one layout of R routes."""

    by_route: Array  # (D, R)
    odd: NDArray[np.bool_]  # (D, R): taken out of the pool


def lay_out(table: Table, reference: str | None = None) -> Blocks:
    """The part of a table in which every route can be compared with every other, through seeds they share.

    Where the table falls apart, the part with `reference` stays, else the one with the most routes.
    """
    values = {route: {seed: v for seed, v in row.items() if is_number(v)} for route, row in table.items()}
    parts: list[tuple[set[str], set[int]]] = []
    for route, row in values.items():
        # Routes and seeds are the two sides of a graph, each value an edge. A route joins all parts that have one of
        # its seeds; what is left at the end are the connected parts.
        touched = [part for part in parts if part[1] & row.keys()]
        parts = [part for part in parts if part not in touched]
        parts.append(({route}.union(*(p[0] for p in touched)), set(row).union(*(p[1] for p in touched))))
    kept, seeds = max(parts, key=lambda part: (reference in part[0], len(part[0])), default=(set(), set()))
    # a seed with one route only is used up by its own block effect: it says nothing of a difference
    shared = sorted(s for s in seeds if sum(s in values[route] for route in kept) > 1)
    routes = tuple(route for route in table if route in kept)
    present = tuple(tuple(seed in values[route] for seed in shared) for route in routes)
    every_seed = sorted({seed for row in values.values() for seed in row})
    left_out = [f"route {route}" for route in table if route not in kept]
    left_out += [f"seed {seed}" for seed in every_seed if seed not in shared]
    # along the routes and, in each, along the seeds: as np.nonzero lists them in `Layout.places`
    flat = [values[route][seed] for route in routes for seed in shared if seed in values[route]]
    return Blocks(table, reference, routes, tuple(shared), Layout(present), np.array(flat, float), tuple(left_out))


@lru_cache(maxsize=64)
def estimator(layout: Layout) -> Array:
    """(R, N): times a table, the routes' effects by least squares. Only their differences have a meaning."""
    # The columns of the routes and those of the seeds add up to the same, so effects are known but for a constant. The
    # pseudo-inverse takes one such solution; a difference of two routes is the same in all.
    return np.linalg.pinv(_columns(layout))[: len(layout.present)].astype(float)


def _columns(layout: Layout) -> Array:
    """(N, R + n) of 0 and 1: the route and the seed of each value."""
    of_route, of_seed = layout.places
    routes, seeds = np.shape(layout.present)
    return np.hstack([np.eye(routes)[of_route], np.eye(seeds)[of_seed]])


# The search for odd routes asks for the same few pools again and again: for each table of a layout, and for the
# simulated ones.
@lru_cache(maxsize=512)
def _residuals(layout: Layout, routes: tuple[int, ...]) -> tuple[Array, int]:
    """The projection (N, N) of a table to the residuals of the model of only these routes, and its rank."""
    among = np.isin(layout.places[0], routes)
    columns = _columns(layout) * among[:, None]
    # I - X X+ on the rows of these routes. It is a projection, so its trace is its rank: the degrees of freedom.
    projection = np.diag(among.astype(float)) - columns @ np.linalg.pinv(columns)
    return projection, round(np.trace(projection))


def residual_squares(tables: Array, layout: Layout, routes: tuple[int, ...]) -> tuple[Array, int]:
    """Residual sums of squares (D,) of tables (D, N) in the model of only these routes, and the degrees of freedom."""
    projection, df = _residuals(layout, routes)
    squares = ((tables @ projection) ** 2).sum(axis=1)
    # so much would come together if each of the N values were off by NOTHING of the largest
    rounding = tables.shape[1] * (NOTHING * np.abs(tables).max(axis=1)) ** 2
    return np.where(squares > rounding, squares, 0.0), df


def variances(tables: Array, layout: Layout, pool: tuple[int, ...] | None = None) -> Variances:
    """Each route's variance in tables (D, N): the pooled one, or a multiple of the route's own where that is larger.

    The routes of the pool vary alike. Their common variance is the residual variance of their block design. A route's
    own variance, with d degrees of freedom, is what its residuals add to those of the others' design: n - 1 degrees in
    a complete table. At few seeds no test can tell a route of three times the deviation from the others (the one below
    finds 6 % of them at n = 2, 36 % at n = 5), so the own variance always counts: the larger of the pooled one and
    OWN_WEIGHT / d (at least 1) times the own one. The critical values are those of this very rule under equal variances
    (`simulated.py`), and OWN_WEIGHT is what keeps a family of intervals right in 90 of 100 tables with such a route.

    A route that varies more than ODD_RATIO times as much as the others (and significantly so) leaves the pool, the most
    odd first, until the rest agree: else it would widen the intervals between all others.
    """
    count = len(layout.present)
    pool = tuple(range(count)) if pool is None else pool
    total, df = residual_squares(tables, layout, pool)
    pooled = total / df
    by_route = np.empty((len(tables), count))
    ratio, p = np.zeros((2, len(tables), count))  # of own variance to that of the others; of the F test
    # where no test is made nothing speaks against the route
    p += 1
    for route in range(count):
        changed = tuple(sorted({*pool} ^ {route}))  # the pool without the route, or with it if it is odd
        squares, changed_df = residual_squares(tables, layout, changed)
        # positive for a route of the pool, whose absence lowers df, negative for an odd one, whose presence raises it
        own_df = abs(df - changed_df)
        # the extra sum of squares: what the route adds to those of the design without it
        own = np.abs(total - squares) / max(own_df, 1)
        by_route[:, route] = np.maximum(pooled, max(OWN_WEIGHT / max(own_df, 1), 1) * own) if own_df else pooled
        # of two routes the residuals mirror each other, so neither can be the odd one
        if route in pool and own_df and changed_df and len(pool) > 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio[:, route] = np.nan_to_num(own / (squares / changed_df), nan=0.0, posinf=np.inf)
            p[:, route] = fdtrc(own_df, changed_df, ratio[:, route]) * len(pool)
    odd = np.tile(~np.isin(np.arange(count), pool), (len(tables), 1))
    most = p.argmin(axis=1)
    # the bound is one of deviations, the ratio is of variances
    found = (p.min(axis=1) < ODD_LEVEL) & (ratio[np.arange(len(tables)), most] > ODD_RATIO**2)
    for route in np.unique(most[found]):
        rows = found & (most == route)
        # Tables with the same odd route go on together, with a pool without it. Their results replace the whole row: a
        # smaller pool changes the variance of every route.
        rest = variances(tables[rows], layout, tuple(r for r in pool if r != route))
        by_route[rows], odd[rows] = rest.by_route, rest.odd
    return Variances(by_route, odd)
