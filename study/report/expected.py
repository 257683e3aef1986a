"""Published numbers of the config, beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from study.config.schema import Expected
from study.plan.pipelines import RATES
from study.plan.tune import RECIPE
from study.report import units
from study.report.routes import RouteResults, describe_point, find_route, paired
from study.report.rows import Comparison
from study.report.topic import Topic

COLUMNS = ("route", "at", "measure", "published", "here", "here − published", "source")
NOTE = (
    "The difference of our mean and the published number, which is taken as it stands, with the 95 % interval of our"
    " mean over seeds, each for itself."
)


def expected_rows(comparison: Comparison, routes: Sequence[RouteResults], topic: Topic) -> list[tuple[str, ...]]:
    """A row under COLUMNS for each published number, in the config's order; where there is no result it says so."""
    found: list[tuple[str, ...]] = []
    for expected in map(Expected.model_validate, comparison.config.get("expect") or ()):
        # of a study that chose rates, the route at those of the config
        where = {RATES: RECIPE, **expected.where}
        route = find_route(routes, expected.route, where)
        values = {} if route is None else route.by_seed(expected.measure)
        difference = paired(values, dict.fromkeys(values, expected.value))
        amount = units.MISSING
        if difference is not None:
            amount = f"{units.signed(difference.estimate, topic.decimals)} {units.interval(difference, topic.decimals)}"
        spread = "" if expected.spread is None else f" ± {expected.spread:g}"
        found.append(
            (
                expected.route,
                describe_point(where if route is not None and RATES in route.point else expected.where),
                topic.measure(expected.measure).name,
                f"{expected.value:g}{spread}",
                "no result" if route is None else units.mean_std(route.summary(expected.measure), topic.decimals),
                amount,
                expected.source,
            )
        )
    return found
