"""What the numbers say in words: the answer, and what few seeds allow one to conclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.plan.named import DENSE
from study.report import units
from study.report.routes import RouteResults, describe_point, distinct_names, find_route, full_points
from study.report.stats import t_quantile
from study.report.topic import Topic

_FEW_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """The result at one grid point: which route won and what it costs against the dense one."""

    place: str  # the grid point in words, empty without a grid
    sentence: str
    detail: str  # the winner against the unpruned route; empty where either is missing


def answers(routes: Sequence[RouteResults], topic: Topic) -> list[Answer]:
    """The answer at every grid point that has a pruned route with a result, or that there is none yet."""
    scored = [route for route in routes if route.mean(topic.primary.key) is not None]
    any_pruned = any(route.is_pruned for route in scored)
    found = []
    for point in full_points(scored):
        here = [r for name in distinct_names(scored) if (r := find_route(scored, name, point)) is not None]
        pruned = [route for route in here if route.is_pruned]
        if here and (pruned or not any_pruned):
            found.append(_answer(pruned or here, find_route(scored, DENSE, point), describe_point(point), topic))
    return found or [Answer("", "No route has a result yet: there is nothing to compare.", "")]


def _answer(candidates: Sequence[RouteResults], dense: RouteResults | None, place: str, topic: Topic) -> Answer:
    key = topic.primary.key
    ranked = sorted(candidates, key=lambda route: -(route.mean(key) or 0.0))  # stable: ties keep the order
    best = ranked[0]
    among = "the pruned routes" if best.is_pruned else "the routes"
    score = _score(best, topic)
    if len(ranked) == 1:
        sentence = f"{best.name} is the only one of {among} with a result: {score}, n = {_seeds(len(best.rows))}."
    else:
        sentence = f"{best.name} is best among {among}: {score}, {_against(best, ranked[1], topic)}."
    return Answer(place, sentence, _against_dense(best, dense, topic))


def _score(route: RouteResults, topic: Topic) -> str:
    """A mean with its unit: "61.2 AP"."""
    return f"{units.score(route.mean(topic.primary.key), topic.decimals)} {topic.primary.unit}"


def _against(route: RouteResults, other: RouteResults, topic: Topic) -> str:
    difference = route.minus(other, topic.primary.key)
    if difference is None:
        return f"next is {other.name} with {_score(other, topic)}; they have no seed in common"
    amount = f"{units.signed(difference.mean, topic.decimals)} {units.interval(difference, topic.decimals)}"
    return f"{amount} over {other.name}: {units.noise(difference)}, n = {_seeds(difference.n)}"


def _against_dense(route: RouteResults, dense: RouteResults | None, topic: Topic) -> str:
    difference = route.minus(dense, topic.primary.key) if dense is not None and dense is not route else None
    if difference is None or dense is None:
        return ""
    costs = [
        f"{share} of its {topic.cost(key).name}"
        for key in topic.answer_costs
        if (share := units.percent(route.mean(key), dense.mean(key)))
    ]
    amount = f"{units.signed(difference.mean, topic.decimals)} {topic.primary.unit}"
    against = f"Against {dense.name}: {amount} {units.interval(difference, topic.decimals)}, "
    return f"{against}{units.noise(difference)}" + (f", with {' and '.join(costs)}." if costs else ".")


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def seed_warning(routes: Sequence[RouteResults], topic: Topic) -> str:
    """What the smallest number of seeds allows one to conclude; empty from three seeds on."""
    n = min((s.n for route in routes if (s := route.summary(topic.primary.key)) is not None), default=0)
    if n == 0 or n >= _FEW_SEEDS:
        return ""
    if n == 1:
        return "Some routes rest on one seed: no spread, no interval, and nothing is decided about them."
    return (
        f"Two seeds are few: a 95 % interval at n = 2 reaches {t_quantile(2):.1f} standard errors to each "
        f"side (at n = 5 it would be {t_quantile(5):.1f}), so only very large and very steady differences "
        "leave the noise. Add seeds before acting on a difference."
    )
