"""The statements of the literature, each with the verdict of what was run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from study.report import units
from study.report.claims.pruned_by import PrunedBy
from study.report.claims.statements import ABOVE, COMPARABLE, RATE, Side, Statement
from study.report.routes import RouteResults, describe_point, distinct_points, point_key
from study.report.rows import Point
from study.report.stats import Difference, is_number
from study.report.topic import Topic

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
_EQUAL_COST = 0.05  # the share by which two networks of an equal budget may differ


@dataclass(frozen=True)
class Finding:
    """A statement with the verdict of this comparison at one grid point."""

    statement: Statement
    place: str
    verdict: str
    evidence: str


def rule(topic: Topic) -> str:
    """How a verdict is reached, in words."""
    words = "Supported or contradicted only where the whole 95 % interval of the paired difference excludes 0"
    if not topic.margin:
        return f"{words}."
    m = f"{topic.margin:g}"
    return (
        f"Supported where the whole 95 % interval of the paired difference lies above 0 (>), above −{m} points (≥), "
        f"or between −{m} and {m} (≈); contradicted where all of it lies outside; else undecided. The intervals are "
        "not corrected for making several comparisons: of twenty true differences of 0, one is expected to look real."
    )


def findings(
    routes: Sequence[RouteResults], topic: Topic, pruned: Mapping[str, PrunedBy] | None = None, data: str = ""
) -> list[Finding]:
    """Each statement of the topic at each grid point where both of its sides are, in the order of the points.

    `pruned`: how the routes were pruned, by label; statements about a kind of pruning are left out without it.
    `data`: the name of the data set.
    """
    order = {point_key(point): i for i, point in enumerate(distinct_points(routes))}
    found = []
    for statement in topic.statements:
        if statement.data not in data.lower():
            continue
        for better, worse in _pairs(statement, routes, pruned or {}):
            place = _place(better, worse)
            at = order.get(point_key({**better.point, **worse.point}), len(order))
            found.append((at, _judge(statement, better, worse, describe_point(place), topic)))
    # Where the sides stand at two points, the pair is listed at that of the worse side; last where no route is there.
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]  # stable: statements keep their order


def _pairs(
    statement: Statement, routes: Sequence[RouteResults], pruned: Mapping[str, PrunedBy]
) -> Iterator[tuple[RouteResults, RouteResults]]:
    """The pairs of routes that a statement compares."""
    extremes = _extremes(statement, routes, pruned)
    for better in _sides(statement.better, statement, routes, pruned, extremes):
        for worse in _sides(statement.worse, statement, routes, pruned, extremes):
            free = _set_apart(statement, better, worse, pruned)
            # a field that makes no difference to a route is not in its point, and agrees with any value
            shared = (better.point.keys() & worse.point.keys()) - free
            agree = all(better.point[key] == worse.point[key] for key in shared)
            if agree and _equal_cost(better, worse, statement.equal_cost):
                yield better, worse


def _set_apart(
    statement: Statement, better: RouteResults, worse: RouteResults, pruned: Mapping[str, PrunedBy]
) -> set[str]:
    """The grid fields in which the two sides may differ."""
    free = set()
    # "At the smallest rate more than at the largest": such sides never agree in the rate.
    if statement.better.extreme != statement.worse.extreme:
        free.add(statement.field)
        # Where no grid field is the rate, variants give it, and the sides are of two variants. But a variant may change
        # the method or its ratio as well, and then the difference would not be the rate's: apart from the rate, which
        # is taken out here, both must prune alike.
        ways = [replace(pruned.get(route.label, PrunedBy()), lr=None) for route in (better, worse)]
        if statement.field not in {*better.point, *worse.point} and ways[0] == ways[1]:
            free.add("variant")
    # "Guided designs above uniform ones": the method comes from the grid or from the variant.
    if statement.better.methods != statement.worse.methods:
        free |= {"variant", "prune.method"}
    return free


def _extremes(statement: Statement, routes: Sequence[RouteResults], pruned: Mapping[str, PrunedBy]) -> dict[str, float]:
    """Smallest and largest value of the statement's field at which both its routes were run, if there are two."""
    found = [
        {_value(route, statement.field, pruned) for route in routes if route.name == side.route}
        for side in (statement.better, statement.worse)
    ]
    values = [value for value in found[0] & found[1] if is_number(value)]
    return {"smallest": min(values), "largest": max(values)} if len(values) > 1 else {}


def _value(route: RouteResults, field: str, pruned: Mapping[str, PrunedBy]) -> object:
    """A route's value of a grid field; its learning rate is known where variants give it, too."""
    if field in route.point or field != RATE:
        return route.point.get(field)
    return pruned.get(route.label, PrunedBy()).lr


def _sides(
    side: Side,
    statement: Statement,
    routes: Sequence[RouteResults],
    pruned: Mapping[str, PrunedBy],
    extremes: Mapping[str, float],
) -> Iterator[RouteResults]:
    """The routes that fit one side; none for an extreme of a field that has but one value."""
    for route in routes:
        if route.name != side.route or (side.measure and route.mean(side.measure) is None):
            continue
        how = pruned.get(route.label, PrunedBy())
        if (side.methods and how.method not in side.methods) or (statement.kinds and how.kind not in statement.kinds):
            continue
        if not side.extreme or (extremes and _value(route, statement.field, pruned) == extremes[side.extreme]):
            yield route


def _equal_cost(better: RouteResults, worse: RouteResults, key: str) -> bool:
    if not key:
        return True
    a, b = better.mean(key), worse.mean(key)
    return a is not None and b is not None and abs(a - b) <= _EQUAL_COST * max(a, b)


def _place(better: RouteResults, worse: RouteResults) -> Point:
    """The grid fields in which the two sides agree, and those that only one of them has."""
    differ = {key for key in better.point.keys() & worse.point.keys() if better.point[key] != worse.point[key]}
    return {key: value for key, value in {**better.point, **worse.point}.items() if key not in differ}


def _judge(statement: Statement, better: RouteResults, worse: RouteResults, place: str, topic: Topic) -> Finding:
    key = statement.better.measure or topic.primary.key
    other = statement.worse.measure or topic.primary.key
    difference = better.minus(worse, key, other)
    if difference is None:
        return Finding(statement, place, UNDECIDED, "no seed has a result for both")
    means = [units.score(mean, topic.decimals) for mean in (better.mean(key), worse.mean(other))]
    change = f"{units.signed(difference.mean, topic.decimals)} {units.interval(difference, topic.decimals)}"
    evidence = f"{means[0]} against {means[1]} {topic.primary.unit}: {change}, n = {difference.n}"
    return Finding(statement, place, verdict(difference, statement.relation, topic.margin), evidence)


def verdict(difference: Difference, relation: str, margin: float = 0.0) -> str:
    """Supported or contradicted only where the whole 95 % interval agrees on it, else undecided; see `rule`."""
    if difference.interval is None:
        return UNDECIDED
    low, high = difference.interval
    # `outside` is not the opposite of `inside`: an interval that reaches over a bound decides neither
    if relation == COMPARABLE:
        inside, outside = -margin <= low and high <= margin, high < -margin or low > margin
    elif relation == ABOVE:
        inside, outside = low > 0, high <= 0
    else:
        inside, outside = low >= -margin, high < -margin
    return SUPPORTED if inside else CONTRADICTED if outside else UNDECIDED
