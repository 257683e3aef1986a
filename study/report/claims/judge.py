"""The statements of the literature, each with the verdict of what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from study.report import units
from study.report.claims.measures import MEASURES, Sources
from study.report.claims.pairs import Pair, pairs
from study.report.claims.pruned_by import PrunedBy
from study.report.claims.statement import ABOVE, BELOW, COMPARABLE, NO_WORSE, Statement
from study.report.claims.values import Values, values_of
from study.report.differences import Differences
from study.report.routes import RouteResults, distinct_points, paired
from study.report.rows import Comparison
from study.report.statistics.families import Difference
from study.report.statistics.holm import holm
from study.report.statistics.power import detectable
from study.report.statistics.summary import mean_of
from study.report.topic import Topic
from training.files import canonical

_Placed = tuple[tuple[int, int, int], Statement, Pair, Values]  # its order: of points, questions and statements
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
LEVEL = 0.05  # of all verdicts of a report together


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
        " all pairs of routes as elsewhere; what the same runs say at several points is one statement. The interval"
        " beside a verdict is the one that decides it."
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
    sources: Sources | None = None,
) -> list[Finding]:
    """Each statement of the topic at each grid point where both of its sides are, in the order of the points.

    `pruned`: how the routes were pruned, by label; statements about a kind of pruning are left out without it.
    `data`: the name of the data set. `sources`: of measures that are no columns; statements about these need it.
    Statements that oppose each other stand together.
    """
    order = {canonical(point): i for i, point in enumerate(distinct_points(routes))}
    # read from the end, so that the first statement of a group gives it its place
    groups = {statement.group: i for i, statement in reversed([*enumerate(topic.statements)]) if statement.group}
    placed: list[_Placed] = []
    for i, statement in enumerate(topic.statements):
        # a statement about any data has the empty name, which is in every other
        if statement.data not in data.lower():
            continue
        for pair in pairs(statement, routes, pruned or {}):
            values = values_of(statement, pair, pruned or {}, differences.key, sources)
            if values is not None:
                at = order.get(canonical(pair.point), len(order))
                placed.append(((at, groups.get(statement.group, i), i), statement, pair, values))
    # Where the sides stand at two points, the pair is listed at that of the worse side; last where no route is there.
    placed.sort(key=lambda each: each[0])
    placed = _once(placed)
    tests = [_test(statement, pair, values, differences, margin.points) for _, statement, pair, values in placed]
    # one family for the whole report: whoever picks the statements that came out well afterwards is still held to 5 %
    adjusted = holm([test.p for test in tests])
    return [
        _judge(statement, pair, test, p, topic)
        for (_, statement, pair, _), test, p in zip(placed, tests, adjusted, strict=True)
    ]


def _once(placed: Sequence[_Placed]) -> list[_Placed]:
    """Without what is a statement about the same runs again, at another point: it would count twice in the adjustment.

    A route at its best is the recipe's where no other rate was better, and variants share prunings.
    """
    seen: set[object] = set()
    kept = []
    for each in placed:
        (_, _, i), _, _, values = each
        key = i, *(frozenset(side.items()) for side in values)
        if key not in seen:
            seen.add(key)
            kept.append(each)
    return kept


@dataclass(frozen=True)
class _Test:
    """What the difference says of a statement before it is one of several: the verdict if `p` is small enough."""

    difference: Difference | None
    verdict: str
    p: float
    means: tuple[float | None, float | None]


def _test(statement: Statement, pair: Pair, values: Values, differences: Differences, margin: float) -> _Test:
    plain = not (statement.trend or statement.equal_cost or statement.better.measure or statement.worse.measure)
    # of the score of two routes at one point: among all that meet there
    difference = differences.between(pair.better[0], pair.worse[0]) if plain else paired(*values)
    means = mean_of(values[0].values()), mean_of(values[1].values())
    # undecided statements stay in the family with a p of 1: leaving them out would make the others easier to show
    if difference is None or not difference.decidable:
        return _Test(difference, UNDECIDED, 1.0, means)
    return _Test(difference, *direction(difference, statement.relation, margin), means)


def direction(difference: Difference, relation: str, margin: float) -> tuple[str, float]:
    """Where a difference points, and its p-value alone: of the hypothesis that it does not.

    The hypotheses against "supported" and against "contradicted" exclude each other but for the boundary, so the
    smaller of their one-sided p-values is one. A plain "above" or "below" is tested on both sides, as readers
    expect it.
    """
    if relation in (ABOVE, BELOW):
        as_said = difference.estimate > 0 if relation == ABOVE else difference.estimate < 0
        return (SUPPORTED if as_said else CONTRADICTED), difference.p_alone
    test = difference.against(margin)
    assert test is not None
    if relation == COMPARABLE:
        # outside on either side: two tests, so twice the smaller p
        inside, outside = test.p_as_good, 2 * (1 - test.p_as_good)
    else:
        inside, outside = test.p_no_worse, 1 - test.p_no_worse
    return (SUPPORTED, inside) if inside <= outside else (CONTRADICTED, min(1.0, outside))


def _judge(statement: Statement, pair: Pair, test: _Test, p: float, topic: Topic) -> Finding:
    difference = test.difference
    if difference is None:
        return Finding(statement, pair.place, UNDECIDED, "no seed has a result for both")
    decided = p <= LEVEL
    # Holm's adjustment came to a factor of p / test.p: to compare p with LEVEL is to compare test.p with this
    level = LEVEL * test.p / p if p else LEVEL
    # inside a margin, or no worse than by it, is tested on one side; outside a margin, as above and below, on both
    one_sided = statement.relation == NO_WORSE or (statement.relation == COMPARABLE and test.verdict == SUPPORTED)
    confidence = 1 - (2 * level if one_sided else level)
    difference = _with(difference, confidence)
    change = f"{units.signed(difference.estimate, topic.decimals)} {units.interval(difference, topic.decimals)}"
    unit = MEASURES[measure].unit if (measure := statement.better.measure) in MEASURES else topic.primary.unit
    if statement.trend:
        evidence = f"slope over {len(pair.better)} values of {statement.field}, {unit} a unit: {change}"
    else:
        means = [units.score(mean, topic.decimals) for mean in test.means]
        evidence = f"{means[0]} against {f'{means[1]} {unit}'.rstrip()}: {change}"
    evidence += f", n = {difference.n}"
    if difference.decidable:
        evidence += f", p {units.p_value(p)}"
        if not decided:
            seen = units.score(difference.detectable, topic.decimals)
            evidence += f"; a difference of {seen} would have been seen with a power of 80 %"
    return Finding(statement, pair.place, test.verdict if decided else UNDECIDED, evidence, difference, p, confidence)


def _with(difference: Difference, confidence: float) -> Difference:
    """With the interval that decides a statement: it leaves out the bound exactly where p is below its level."""
    if difference.null is None:
        return difference
    beyond = difference.null.quantile(confidence)
    half = beyond * difference.error
    low, high = difference.estimate - half, difference.estimate + half
    return replace(difference, low=low, high=high, detectable=detectable(beyond, difference.df) * difference.error)
