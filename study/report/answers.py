"""What the numbers say in words: the answer, and what few seeds allow one to conclude."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from study.plan.named import DENSE
from study.report import units
from study.report.differences import Differences, Meeting
from study.report.routes import RouteResults, describe_point
from study.report.statistics.families import Difference, all_pairs
from study.report.topic import Topic

_FEW_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """The result at one grid point: which route is shown to be best, if any, and its cost against the dense one."""

    place: str  # the grid point in words, empty without a grid
    sentence: str
    detail: str = ""  # the route of the highest mean against the unpruned one; empty where either is missing
    routes: int = 0  # that have a result and could be best
    best: str = ""  # the one that is shown to be; empty where none is


def answers(differences: Differences, topic: Topic) -> list[Answer]:
    """The answer at every grid point that has a pruned route with a result, or that there is none yet."""
    meetings = differences.meetings
    any_pruned = any(route.is_pruned for meeting in meetings for route in meeting.routes.values())
    found = []
    for meeting in meetings:
        pruned = [route for route in meeting.routes.values() if route.is_pruned]
        if pruned or not any_pruned:
            candidates = pruned or list(meeting.routes.values())
            found.append(_answer(candidates, meeting, differences, topic))
    return found or [Answer("", "No route has a result yet: there is nothing to compare.")]


def overall(found: Sequence[Answer]) -> str:
    """How many of several grid points show a best route, and which; empty where fewer than two compare any."""
    compared = [answer for answer in found if answer.routes > 1]
    if len(compared) < 2:
        return ""
    shown = Counter(answer.best for answer in compared)
    none = shown.pop("", 0)
    points = f"{len(compared)} grid points, each by itself"
    if not shown:
        return f"No route is shown to be best at any of the {points}."
    best = _listed([f"{name} at {count}" for name, count in shown.most_common()])
    if not none:
        return f"Shown to be best at the {points}: {best}."
    return f"No route is shown to be best at {none} of the {points}; shown to be best: {best}."


def _answer(candidates: Sequence[RouteResults], meeting: Meeting, differences: Differences, topic: Topic) -> Answer:
    key = topic.primary.key
    best = max(candidates, key=lambda route: route.mean(key) or 0.0)  # of equals the first
    among = "the pruned routes" if best.is_pruned else "the routes"
    if len(candidates) == 1:
        sentence = f"{best.name} is the only one of {among} with a result: {_score(best, topic)}, n = {_seeds(best)}."
        shown = False
    else:
        sentence, shown = _first(best, candidates, among, topic)
    return Answer(
        describe_point(meeting.point),
        sentence,
        _against_dense(best, meeting, differences, topic),
        routes=len(candidates),
        best=best.name if shown else "",
    )


def _first(best: RouteResults, candidates: Sequence[RouteResults], among: str, topic: Topic) -> tuple[str, bool]:
    """The sentence on the highest of several routes, and whether the intervals of all pairs show it to be best."""
    key = topic.primary.key
    family = all_pairs({route.name: route.by_seed(key) for route in candidates})
    pairs = [p for pair in family.pairs for p in (pair, pair.reversed()) if p.route == best.name]
    runner_up = max((r for r in candidates if r is not best), key=lambda route: route.mean(key) or 0.0)
    over = next((pair for pair in pairs if pair.reference == runner_up.name), None)
    if over is None:
        gap = f"next is {runner_up.name} with {_score(runner_up, topic)}; they have no seed in common"
    else:
        gap = f"{_amount(over, topic)} over {runner_up.name}, the next, n = {over.n}"
    behind = [pair.reference for pair in pairs if pair.decidable and pair.low > 0]
    if len(behind) == len(candidates) - 1:
        return f"{best.name} is shown to be best among {among}: {_score(best, topic)}, {gap}.", True
    sentence = (
        f"No route is shown to be best among {among}; the highest mean is {best.name}: {_score(best, topic)}, {gap}."
    )
    if behind:
        sentence += f" {best.name} is shown to be above {_listed(behind)}."
    if over is not None and over.decidable:
        seen = units.score(over.detectable, topic.decimals)
        sentence += f" A lead of {seen} {topic.primary.unit} would have been shown with a probability of 80 %."
    return sentence, False


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _score(route: RouteResults, topic: Topic) -> str:
    """A mean with its unit: "61.2 AP"."""
    return f"{units.score(route.mean(topic.primary.key), topic.decimals)} {topic.primary.unit}"


def _amount(difference: Difference, topic: Topic) -> str:
    return f"{units.signed(difference.estimate, topic.decimals)} {units.interval(difference, topic.decimals)}"


def _against_dense(route: RouteResults, meeting: Meeting, differences: Differences, topic: Topic) -> str:
    dense = meeting.routes.get(DENSE)
    difference = None if dense is None or dense is route else differences.to(route, DENSE)
    if difference is None or dense is None:
        return ""
    costs = [
        f"{share} of the {topic.cost(key).name}"
        for key in topic.answer_costs
        if (share := units.percent(route.mean(key), dense.mean(key)))
    ]
    amount = f"{units.signed(difference.estimate, topic.decimals)} {topic.primary.unit}"
    against = f"{route.name} against {DENSE}: {amount} {units.interval(difference, topic.decimals)}"
    against += f", {units.shown(difference, topic.decimals)}"
    counted = ", published pretraining not counted" if costs and route.pretraining + dense.pretraining else ""
    return against + (f", with {' and '.join(costs)} of {DENSE}{counted}." if costs else ".")


def _seeds(route: RouteResults) -> str:
    n = len(route.rows)
    return f"{n} seed{'' if n == 1 else 's'}"


def seed_warning(differences: Differences, topic: Topic) -> str:
    """What the smallest number of seeds allows one to conclude; empty from three seeds on."""
    routes = [route for meeting in differences.meetings for route in meeting.routes.values()]
    n = min((s.n for route in routes if (s := route.summary(topic.primary.key)) is not None), default=0)
    if n == 0 or n >= _FEW_SEEDS:
        return ""
    if n == 1:
        return "Some routes rest on one seed: no spread, no interval, and nothing is decided about them."
    return (
        "Two seeds are few: only large and steady differences can be shown (the table says how large). Add seeds before"
        " acting on a difference that is not shown."
    )
