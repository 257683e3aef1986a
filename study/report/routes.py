"""The rows of a comparison grouped by route and grid point, with what is known about the named routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from study.plan.named import OTHER_LOOKS, Look, look_of
from study.report.rows import Comparison, Missing, Point, Row
from study.report.statistics.families import Difference, against
from study.report.statistics.summary import Summary, is_number, mean_of, summarize
from training.files import canonical

RATIO = "prune.ratio"
AMOUNTS = {  # fields of the grid that move a network along its costs, and what they say
    RATIO: "the fraction removed",
    "prune.target_macs": "the share of the multiply-adds left",
    "prune.target_params": "the share of the parameters left",
}
# The quartiles of the times that a network's median is of, in ms, and how many there are.
LATENCY_FROM, LATENCY_TO, LATENCY_ROUNDS = "latency_first_quartile_ms", "latency_third_quartile_ms", "latency_rounds"
_PRUNING_KINDS = frozenset({"prune", "prune_detector"})


@dataclass(frozen=True)
class RouteResults:
    """One route of the study at one grid point: its rows, one per seed.

    `lost`: the grid points at which the same pipeline has no result.
    """

    name: str
    point: Point
    rows: tuple[Row, ...]
    lost: tuple[Point, ...] = ()

    @property
    def label(self) -> str:
        """The pipeline's name, with the grid point where there is one."""
        return route_label(self.name, self.point)

    @property
    def place(self) -> str:
        """The grid point in words, empty outside the grid."""
        return describe_point(self.point)

    @property
    def is_pruned(self) -> bool:
        """Whether any stage of its chain prunes; Scratch routes prune too, to find their architecture."""
        return any(step.kind in _PRUNING_KINDS for row in self.rows for step in row.chain)

    @property
    def pretraining(self) -> str:
        """As `Row.pretraining`."""
        return next((row.pretraining for row in self.rows if row.pretraining), "")

    def by_seed(self, key: str) -> dict[int, float | None]:
        """The column `key`, seed -> value."""
        return {row.seed: row.number(key) for row in self.rows}

    def summary(self, key: str) -> Summary | None:
        """Mean, deviation and n of the column `key` over seeds."""
        return summarize(self.by_seed(key).values())

    def mean(self, key: str) -> float | None:
        """Mean of the column `key` over seeds, None when no row has it."""
        return mean_of(self.by_seed(key).values())

    @property
    def latency_spread(self) -> tuple[float, float, int] | None:
        """From the lowest first to the highest third quartile over seeds, in ms, and how many times were taken.

        None where a row has no times, or only the median that a report of an earlier version kept.
        """
        rows = [tuple(row.number(key) for key in (LATENCY_FROM, LATENCY_TO, LATENCY_ROUNDS)) for row in self.rows]
        low, high, rounds = zip(*rows, strict=True)
        if not all(map(is_number, (*low, *high, *rounds))):
            return None
        return min(low), max(high), int(sum(rounds))

    def minus(self, other: RouteResults, key: str, other_key: str = "") -> Difference | None:
        """This route minus another, or minus its column `other_key`, by the differences of these two alone."""
        return paired(self.by_seed(key), other.by_seed(other_key or key))


def paired(values: Mapping[int, float | None], reference: Mapping[int, float | None]) -> Difference | None:
    """Mean difference over the seeds that both have, with the interval of a paired t-test; None without such a seed."""
    return next(iter(against({"": values, "reference": reference}, "reference").pairs), None)


def group_routes(rows: Iterable[Row], missing: Iterable[Missing] = ()) -> list[RouteResults]:
    """The rows by pipeline and grid point, in the order of their first rows; `missing`: those that there are not."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.pipeline, canonical(row.point)), []).append(row)
    lost: dict[str, list[Point]] = {}
    for gap in missing:
        if (gap.pipeline, canonical(gap.point)) not in groups:
            lost.setdefault(gap.pipeline, []).append(gap.point)
    return [
        RouteResults(name, rows[0].point, tuple(rows), tuple(lost.get(name, ()))) for (name, _), rows in groups.items()
    ]


def find_route(routes: Iterable[RouteResults], name: str, point: Point) -> RouteResults | None:
    """The route `name` at `point`, or the one outside the grid, which leaves fields of `point` open."""
    # A route's point holds only the fields that make a difference to it: the unpruned network has none, or the learning
    # rate alone, and is then the reference at every point that has this rate. The fullest point fits best.
    fitting = [r for r in routes if r.name == name and r.point.items() <= point.items()]
    found = max(fitting, key=lambda r: len(r.point), default=None)
    # one that fits better and has no result is not to be taken for this one, which is another network
    if found is not None and any(found.point.items() < lost.items() <= point.items() for lost in found.lost):
        return None
    return found


def amount_field(routes: Iterable[RouteResults]) -> str:
    """The field of the grid that says how much is removed; the ratio where none does."""
    varied = {field for route in routes for field in route.point}
    return next((field for field in AMOUNTS if field in varied), RATIO)


def describe_point(point: Point) -> str:
    """ "prune.ratio = 0.5, prune.method = random"."""
    return ", ".join(f"{key} = {value}" for key, value in point.items())


def route_label(name: str, point: Point) -> str:
    """A pipeline's name, with the grid point where there is one."""
    return f"{name} ({describe_point(point)})" if point else name


def joint_label(routes: Iterable[RouteResults]) -> str:
    """What routes are called together, each grid point once: "scratch_e + scratch_b (prune.ratio = 0.5)"."""
    names: dict[str, dict[str, None]] = {}
    for route in routes:
        names.setdefault(route.place, {})[route.name] = None
    words = {place: " + ".join(here) if len(here) < 5 else f"{len(here)} routes" for place, here in names.items()}
    return "; ".join(f"{here} ({place})" if place else here for place, here in words.items())


def short_place(point: Point) -> str:
    """A grid point for the axis of a figure: "l1, ratio = 0.5"; "all" outside the grid."""
    lasts = Counter(key.rpartition(".")[2] for key in point)  # two fields may end in `lr`
    names = {key: last if lasts[last := key.rpartition(".")[2]] == 1 else key for key in point}
    return ", ".join(str(v) if key == "variant" else f"{names[key]} = {v}" for key, v in point.items()) or "all"


def distinct_points(routes: Iterable[RouteResults]) -> list[Point]:
    """Every grid point of the routes once, in order; [{}] without a grid."""
    points = {canonical(route.point): route.point for route in routes}
    return list(points.values())


def full_points(routes: Iterable[RouteResults]) -> list[Point]:
    """The grid points that no other point extends: a route outside the grid belongs to all of them."""
    points = distinct_points(routes)
    # views of items compare as sets do, but hash nothing: values may be lists
    return [p for p in points if not any(p.items() < other.items() for other in points)]


def distinct_names(routes: Iterable[RouteResults]) -> list[str]:
    """Every pipeline name once, in order."""
    return list(dict.fromkeys(route.name for route in routes))


def looks(names: Iterable[str]) -> dict[str, Look]:
    """One look per pipeline name, the same in every figure and table."""
    unknown = 0
    chosen = {}
    for name in names:
        known = look_of(name)
        chosen[name] = known or OTHER_LOOKS[unknown % len(OTHER_LOOKS)]
        unknown += known is None
    return chosen


def point_fields(comparison: Comparison) -> list[str]:
    """The fields that tell grid points apart: those of the grid, after any others such as `variant`."""
    grid = list(comparison.grid)
    used = dict.fromkeys(key for row in comparison.rows for key in row.point)
    return [*(key for key in used if key not in grid), *grid]


def is_numeric_field(routes: Iterable[RouteResults], field: str) -> bool:
    """Whether every route that has the grid field `field` has a number there."""
    values = [route.point[field] for route in routes if field in route.point]
    return bool(values) and all(is_number(value) for value in values)
