"""The statements of the literature, each with the verdict of what was run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from study.report import units
from study.report.claims.pruned_by import PrunedBy
from study.report.claims.statements import ABOVE, COMPARABLE, RATE, Side, Statement
from study.report.differences import Differences
from study.report.routes import RouteResults, describe_point, distinct_points, point_key
from study.report.rows import Comparison, Point
from study.report.statistics.families import Difference
from study.report.statistics.holm import holm
from study.report.statistics.power import detectable
from study.report.statistics.summary import is_number
from study.report.topic import Topic

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
LEVEL = 0.05  # of all verdicts of a report together
_EQUAL_COST = 0.05  # the share by which two networks of an equal budget may differ


@dataclass(frozen=True)
class Finding:
    """A statement with the verdict of this comparison at one grid point.

    `difference`: better minus worse; None where no seed has a result for both. `p`: one-sided where the statement has a
    margin, two-sided where not, adjusted by Holm's method for all statements of the report. `confidence`: the
    probability with which the interval of `difference` covers.
    """

    statement: Statement
    place: str
    verdict: str
    evidence: str
    difference: Difference | None = None
    p: float = 1.0
    confidence: float = 0.0


@dataclass(frozen=True)
class Margin:
    """How far a result may lie below another and still count as no worse, in points, and why so far."""

    points: float
    reason: str


def rule(margin: Margin, topic: Topic) -> str:
    """How a verdict is reached, in words."""
    m = f"{margin.points:g}"
    return (
        f"Supported or contradicted where that is shown at the 5 % level: a difference above 0 (>), above −{m} points"
        f" (≥), or between −{m} and {m} (≈). The tests take the seeds as blocks and the residual variance of all"
        " routes, or a route's own where that is larger. They are adjusted for the number of statements (Holm), not for"
        " all pairs of routes as elsewhere; the interval beside a verdict is the one that decides it."
        f" The margin of {m} {topic.primary.unit}: {margin.reason}."
    )


def margin_of(comparison: Comparison, topic: Topic) -> Margin:
    """The margin that the config states, or the usual one for the size of the test set."""
    stated = (comparison.config.get("evaluate") or {}).get("margin")
    if stated is not None:
        return Margin(float(stated), "evaluate.margin of the config, stated before the run")
    images = comparison.evaluation.images
    if topic.few_images and images is not None and images < topic.few_images:
        return Margin(2 * topic.margin, f"the usual one for fewer than {topic.few_images:,} test images")
    return Margin(topic.margin, topic.margin_reason)


def findings(
    routes: Sequence[RouteResults],
    topic: Topic,
    differences: Differences,
    margin: Margin,
    pruned: Mapping[str, PrunedBy] | None = None,
    data: str = "",
) -> list[Finding]:
    """Each statement of the topic at each grid point where both of its sides are, in the order of the points.

    `pruned`: how the routes were pruned, by label; statements about a kind of pruning are left out without it.
    `data`: the name of the data set.
    """
    order = {point_key(point): i for i, point in enumerate(distinct_points(routes))}
    placed = []
    for statement in topic.statements:
        if statement.data not in data.lower():
            continue
        for better, worse in _pairs(statement, routes, pruned or {}):
            at = order.get(point_key({**better.point, **worse.point}), len(order))
            placed.append((at, statement, better, worse))
    # Where the sides stand at two points, the pair is listed at that of the worse side; last where no route is there.
    placed.sort(key=lambda each: each[0])  # stable: statements keep their order
    tests = [_test(statement, better, worse, differences, margin.points) for _, statement, better, worse in placed]
    adjusted = holm([test.p for test in tests])
    return [
        _judge(statement, better, worse, test, p, topic)
        for (_, statement, better, worse), test, p in zip(placed, tests, adjusted, strict=True)
    ]


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


@dataclass(frozen=True)
class _Test:
    """What the difference says of a statement before it is one of several: the verdict if `p` is small enough."""

    difference: Difference | None
    verdict: str
    p: float


def _test(
    statement: Statement, better: RouteResults, worse: RouteResults, differences: Differences, margin: float
) -> _Test:
    measures = statement.better.measure, statement.worse.measure
    own = differences.key
    if measures == ("", ""):
        difference = differences.between(better, worse)
    else:
        difference = better.minus(worse, measures[0] or own, measures[1] or own)
    if difference is None or not difference.decidable:
        return _Test(difference, UNDECIDED, 1.0)
    return _Test(difference, *direction(difference, statement.relation, margin))


def direction(difference: Difference, relation: str, margin: float) -> tuple[str, float]:
    """Where a difference points, and its p-value alone: of the hypothesis that it does not.

    The hypotheses against "supported" and against "contradicted" exclude each other but for the boundary, so the
    smaller of their one-sided p-values is one. A plain "above" is tested on both sides, as readers expect it.
    """
    if relation == ABOVE:
        return (SUPPORTED if difference.estimate > 0 else CONTRADICTED), difference.p_alone
    test = difference.against(margin)
    assert test is not None
    if relation == COMPARABLE:
        inside, outside = test.p_as_good, 2 * (1 - test.p_as_good)
    else:
        inside, outside = test.p_no_worse, 1 - test.p_no_worse
    return (SUPPORTED, inside) if inside <= outside else (CONTRADICTED, min(1.0, outside))


def _judge(
    statement: Statement, better: RouteResults, worse: RouteResults, test: _Test, p: float, topic: Topic
) -> Finding:
    place, difference = describe_point(_place(better, worse)), test.difference
    if difference is None:
        return Finding(statement, place, UNDECIDED, "no seed has a result for both")
    keys = statement.better.measure or topic.primary.key, statement.worse.measure or topic.primary.key
    means = [units.score(mean, topic.decimals) for mean in (better.mean(keys[0]), worse.mean(keys[1]))]
    decided = p <= LEVEL
    level = LEVEL * test.p / p if p else LEVEL
    confidence = 1 - (level if statement.relation == ABOVE else 2 * level)  # a test against a margin is one-sided
    difference = _with(difference, confidence)
    change = f"{units.signed(difference.estimate, topic.decimals)} {units.interval(difference, topic.decimals)}"
    evidence = f"{means[0]} against {means[1]} {topic.primary.unit}: {change}, n = {difference.n}"
    if difference.decidable:
        evidence += f", p {units.p_value(p)}"
        if not decided:
            seen = units.score(difference.detectable, topic.decimals)
            evidence += f"; a difference of {seen} would have been seen with a power of 80 %"
    return Finding(statement, place, test.verdict if decided else UNDECIDED, evidence, difference, p, confidence)


def _with(difference: Difference, confidence: float) -> Difference:
    """With the interval that decides a statement: it leaves out the bound exactly where p is below its level."""
    if difference.null is None:
        return difference
    beyond = difference.null.quantile(confidence)
    half = beyond * difference.error
    low, high = difference.estimate - half, difference.estimate + half
    return replace(difference, low=low, high=high, detectable=detectable(beyond, difference.df) * difference.error)
