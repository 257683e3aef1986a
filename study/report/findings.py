"""What the numbers say in words: the answer, the literature's statements, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.report import units
from study.report.routes import (
    DENSE,
    PRUNED_CLASSIFIER,
    Route,
    describe_point,
    distinct_points,
    find_route,
)
from study.stats import Difference, t_quantile

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
_FEW_SEEDS = 3


@dataclass(frozen=True)
class Answer:
    """The result at one grid point: which route won and what it costs against the dense one."""

    place: str  # the grid point in words, empty without a grid
    sentence: str
    detail: str  # the winner against the unpruned route; empty where either is missing


@dataclass(frozen=True)
class Statement:
    """A statement about two routes: `better` scores above `worse` (or no lower, where `strict` is False)."""

    better: str
    worse: str
    strict: bool
    source: str

    @property
    def text(self) -> str:
        return f"{self.better} {'>' if self.strict else '≥'} {self.worse}"


@dataclass(frozen=True)
class Finding:
    """A statement with the verdict of this comparison at one grid point."""

    statement: Statement
    place: str
    verdict: str
    evidence: str


_LIU = "Liu et al., ICLR 2019"
STATEMENTS = (
    Statement("scratch_e", PRUNED_CLASSIFIER, False, f"{_LIU}: Scratch above Prune-C on detection"),
    Statement("scratch_b", PRUNED_CLASSIFIER, False, f"{_LIU}: Scratch above Prune-C on detection"),
    Statement(PRUNED_CLASSIFIER, "transfer_then_prune", True, f"{_LIU}: Prune-C above Prune-D on detection"),
    Statement(DENSE, "detect_from_scratch", True, "our control: pretraining is worth something"),
)


def answers(routes: Sequence[Route]) -> list[Answer]:
    """The answer at every grid point that has a pruned route with a result, or that there is none yet."""
    scored = [route for route in routes if route.mean("AP") is not None]
    found = []
    for point in distinct_points(scored):
        here = [route for route in scored if route.point == point]
        pruned = [route for route in here if route.is_pruned]
        if pruned or not any(route.is_pruned for route in scored):
            found.append(_answer(pruned or here, find_route(scored, DENSE, point), bool(pruned)))
    return found or [Answer("", "No route has a result yet: there is nothing to compare.", "")]


def _answer(candidates: Sequence[Route], dense: Route | None, pruned: bool) -> Answer:
    ranked = sorted(candidates, key=lambda route: -(route.mean("AP") or 0.0))  # stable: ties keep the order
    best = ranked[0]
    among = "the pruned routes" if pruned else "the routes"
    place = describe_point(best.point)
    score = f"{units.ap(best.mean('AP'))} AP"
    if len(ranked) == 1:
        n = len(best.rows)
        sentence = f"{best.name} is the only one of {among} with a result: {score}, n = {_seeds(n)}."
    else:
        sentence = f"{best.name} is best among {among}: {score}, {_against(best, ranked[1])}."
    return Answer(place, sentence, _against_dense(best, dense))


def _against(route: Route, other: Route) -> str:
    difference = route.minus(other)
    if difference is None:
        return f"next is {other.name} with {units.ap(other.mean('AP'))} AP; they have no seed in common"
    amount = f"{units.signed(difference.mean)} {units.interval(difference)}"
    return f"{amount} over {other.name}: {units.noise(difference)}, n = {_seeds(difference.n)}"


def _against_dense(route: Route, dense: Route | None) -> str:
    difference = route.minus(dense) if dense is not None and dense is not route else None
    if difference is None or dense is None:
        return ""
    costs = [
        f"{share} of its {what}"
        for key, what in (("backbone_macs", "backbone MACs"), ("train_macs", "training MACs"))
        if (share := units.percent(route.mean(key), dense.mean(key)))
    ]
    against = f"Against {dense.name}: {units.signed(difference.mean)} AP {units.interval(difference)}, "
    return f"{against}{units.noise(difference)}" + (f", with {' and '.join(costs)}." if costs else ".")


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def seed_warning(routes: Sequence[Route]) -> str:
    """What the smallest number of seeds allows one to conclude; empty from three seeds on."""
    n = min((s.n for route in routes if (s := route.summary("AP")) is not None), default=0)
    if n == 0 or n >= _FEW_SEEDS:
        return ""
    if n == 1:
        return "Some routes rest on one seed: no spread, no interval, and nothing is decided about them."
    return (
        f"Two seeds are few: a 95 % interval at n = 2 reaches {t_quantile(2):.1f} standard errors to each "
        f"side (at n = 5 it would be {t_quantile(5):.1f}), so only very large and very steady differences "
        "leave the noise. Add seeds before acting on a difference."
    )


def findings(routes: Sequence[Route]) -> list[Finding]:
    """Each literature statement at each grid point where both of its routes are."""
    found = []
    for point in distinct_points(routes):
        for statement in STATEMENTS:
            better = find_route(routes, statement.better, point)
            worse = find_route(routes, statement.worse, point)
            # One must belong to this very point: two routes outside the grid are compared once, at {}.
            if better and worse and point in (better.point, worse.point):
                found.append(_judge(statement, better, worse, describe_point(point)))
    return found


def _judge(statement: Statement, better: Route, worse: Route, place: str) -> Finding:
    difference = better.minus(worse)
    if difference is None:
        return Finding(statement, place, UNDECIDED, "no seed has a result for both")
    evidence = (
        f"{units.ap(better.mean('AP'))} against {units.ap(worse.mean('AP'))} AP: "
        f"{units.signed(difference.mean)} {units.interval(difference)}, n = {difference.n}"
    )
    return Finding(statement, place, verdict(difference, strict=statement.strict), evidence)


def verdict(difference: Difference, *, strict: bool) -> str:
    """Supported or contradicted only where the whole 95 % interval is on one side of 0, else undecided."""
    if difference.interval is None:
        return UNDECIDED
    low, high = difference.interval
    if low > 0 or (low == 0 and not strict):
        return SUPPORTED
    return CONTRADICTED if high < 0 or (high == 0 and strict) else UNDECIDED


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
    """What makes the rows less comparable: mixed versions, devices or commits, a dirty tree, absent seeds."""
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
    if comparison.get("missing"):
        count = len(comparison["missing"])
        messages.append(f"{count} {'run is' if count == 1 else 'runs are'} missing: see “What is missing”.")
    return messages
