"""What the numbers say in words: the answer, and what to be careful about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.plan.named import DENSE
from study.report import units
from study.report.precisions import precision_warnings
from study.report.reach import reach_notes
from study.report.routes import Route, describe_point, distinct_names, find_route, full_points
from study.report.stats import t_quantile
from study.report.task import Task

_FEW_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """The result at one grid point: which route won and what it costs against the dense one."""

    place: str  # the grid point in words, empty without a grid
    sentence: str
    detail: str  # the winner against the unpruned route; empty where either is missing


def answers(routes: Sequence[Route], task: Task) -> list[Answer]:
    """The answer at every grid point that has a pruned route with a result, or that there is none yet."""
    scored = [route for route in routes if route.mean(task.primary.key) is not None]
    any_pruned = any(route.is_pruned for route in scored)
    found = []
    for point in full_points(scored):
        here = [r for name in distinct_names(scored) if (r := find_route(scored, name, point)) is not None]
        pruned = [route for route in here if route.is_pruned]
        if here and (pruned or not any_pruned):
            found.append(_answer(pruned or here, find_route(scored, DENSE, point), describe_point(point), task))
    return found or [Answer("", "No route has a result yet: there is nothing to compare.", "")]


def _answer(candidates: Sequence[Route], dense: Route | None, place: str, task: Task) -> Answer:
    key = task.primary.key
    ranked = sorted(candidates, key=lambda route: -(route.mean(key) or 0.0))  # stable: ties keep the order
    best = ranked[0]
    among = "the pruned routes" if best.is_pruned else "the routes"
    score = _score(best, task)
    if len(ranked) == 1:
        sentence = f"{best.name} is the only one of {among} with a result: {score}, n = {_seeds(len(best.rows))}."
    else:
        sentence = f"{best.name} is best among {among}: {score}, {_against(best, ranked[1], task)}."
    return Answer(place, sentence, _against_dense(best, dense, task))


def _score(route: Route, task: Task) -> str:
    """A mean with its unit: "61.2 AP"."""
    return f"{units.score(route.mean(task.primary.key), task.decimals)} {task.primary.unit}"


def _against(route: Route, other: Route, task: Task) -> str:
    difference = route.minus(other, task.primary.key)
    if difference is None:
        return f"next is {other.name} with {_score(other, task)}; they have no seed in common"
    amount = f"{units.signed(difference.mean, task.decimals)} {units.interval(difference, task.decimals)}"
    return f"{amount} over {other.name}: {units.noise(difference)}, n = {_seeds(difference.n)}"


def _against_dense(route: Route, dense: Route | None, task: Task) -> str:
    difference = route.minus(dense, task.primary.key) if dense is not None and dense is not route else None
    if difference is None or dense is None:
        return ""
    costs = [
        f"{share} of its {task.cost(key).name}"
        for key in task.answer_costs
        if (share := units.percent(route.mean(key), dense.mean(key)))
    ]
    amount = f"{units.signed(difference.mean, task.decimals)} {task.primary.unit}"
    against = f"Against {dense.name}: {amount} {units.interval(difference, task.decimals)}, "
    return f"{against}{units.noise(difference)}" + (f", with {' and '.join(costs)}." if costs else ".")


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def seed_warning(routes: Sequence[Route], task: Task) -> str:
    """What the smallest number of seeds allows one to conclude; empty from three seeds on."""
    n = min((s.n for route in routes if (s := route.summary(task.primary.key)) is not None), default=0)
    if n == 0 or n >= _FEW_SEEDS:
        return ""
    if n == 1:
        return "Some routes rest on one seed: no spread, no interval, and nothing is decided about them."
    return (
        f"Two seeds are few: a 95 % interval at n = 2 reaches {t_quantile(2):.1f} standard errors to each "
        f"side (at n = 5 it would be {t_quantile(5):.1f}), so only very large and very steady differences "
        "leave the noise. Add seeds before acting on a difference."
    )


def provenance(stages: Mapping[str, Any]) -> dict[str, list[str]]:
    """The distinct versions, devices and commits of all stages, in order of appearance."""
    found: dict[str, dict[str, None]] = {"versions": {}, "device": {}, "commit": {}}
    for stage in stages.values():
        result = stage.get("result") or {}
        versions = result.get("versions") or {}
        if versions:
            found["versions"][", ".join(f"{k} {v}" for k, v in sorted(versions.items()))] = None
        device = result.get("device") or {}
        if device:
            found["device"][", ".join(f"{k}: {v}" for k, v in device.items())] = None
        git = result.get("git") or {}
        if git.get("commit"):
            state = " (with uncommitted changes)" if git.get("dirty") else ""
            found["commit"][git["commit"] + state] = None
    return {key: list(values) for key, values in found.items()}


_MIXABLE = {"versions": "sets of versions", "device": "devices", "commit": "states of the code"}


def warnings(comparison: Mapping[str, Any]) -> list[str]:
    """What makes the rows less comparable: mixed versions, devices, precisions or data, a dirty tree, absent seeds."""
    stages = comparison.get("stages") or {}
    seen = provenance(stages)
    messages = [
        f"The stages ran with {len(seen[key])} different {name}: {'; '.join(seen[key])}."
        for key, name in _MIXABLE.items()
        if len(seen[key]) > 1
    ]
    dirty = sum(bool(((s.get("result") or {}).get("git") or {}).get("dirty")) for s in stages.values())
    if dirty:
        messages.append(
            f"{dirty} of {len(stages)} stages ran on code with uncommitted changes: "
            "their commit does not identify what was run."
        )
    messages += precision_warnings(comparison) + _changed_data(stages) + _data_notes(stages)
    messages += _notes(stages, "given_weights", "Given weights")
    messages += reach_notes(comparison)
    messages += comparison.get("gaps") or ()
    if comparison.get("missing"):
        count = len(comparison["missing"])
        messages.append(f"{count} {'run is' if count == 1 else 'runs are'} missing: see “What is missing”.")
    return messages


def _data_notes(stages: Mapping[str, Any]) -> list[str]:
    """What was left out or decided when data sets were read, each sentence once."""
    return _notes(stages, "data", "Data")


def _notes(stages: Mapping[str, Any], key: str, name: str) -> list[str]:
    """The sentences that the results of all stages hold under `key`, each once."""
    results = ((stage.get("result") or {}).get(key) or {} for stage in stages.values())
    return [f"{name}: {note}" for note in dict.fromkeys(note for part in results for note in part.get("notes") or ())]


def _changed_data(stages: Mapping[str, Any]) -> list[str]:
    """A sentence for each data set, of the same name and options, that was not the same data in all stages."""
    found: dict[str, set[str]] = {}
    for stage in stages.values():
        result = stage.get("result") or {}
        settings = result.get("settings") or {}
        data = settings.get("dataset") or settings.get("data")
        fingerprint = (result.get("data") or {}).get("fingerprint")
        if data and fingerprint:
            asked = json.dumps([stage.get("kind"), settings.get("split"), data], sort_keys=True)
            found.setdefault(asked, set()).add(fingerprint)
    return [
        f"The stages of kind {json.loads(asked)[0]} ran on {len(prints)} different contents of one data set: "
        "its files changed between them."
        for asked, prints in found.items()
        if len(prints) > 1
    ]
