"""How each route's network was pruned: the method, its kind, the published target, the architecture, the rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pruning.methods import METHODS
from study.report.artifacts import steps
from study.report.claims.statements import AUTOMATIC, PREDEFINED, UNSTRUCTURED
from study.report.routes import RouteResults
from study.report.rows import Json, StageResult
from study.stages.store import RunDir

_PRUNING = ("prune", "prune_detector")


@dataclass(frozen=True)
class PrunedBy:
    """What the settings of a route's pruning stage say; empty where nothing was pruned or nothing is recorded.

    `lr`: learning rate of the route's first training.
    """

    method: str = ""
    kind: str = ""
    target: str = ""
    arch: str = ""
    ratios: tuple[float, ...] = ()
    lr: float | None = None


def pruned_by(routes: Iterable[RouteResults], stages: Mapping[str, StageResult], runs: Path) -> dict[str, PrunedBy]:
    """Route label -> how it was pruned; `stages` by run, `runs` tells where masks were written."""
    return {route.label: _pruned_by(route, stages, runs) for route in routes}


def _pruned_by(route: RouteResults, stages: Mapping[str, StageResult], runs: Path) -> PrunedBy:
    arch, lr = "", None
    settings: Json = {}
    run = ""
    for _, step in steps(route, "train_classifier", "take_weights", *_PRUNING):
        here = stages[step.run].part("settings")
        arch = here.get("arch") or arch
        lr = lr or (here.get("train") or {}).get("lr")
        if step.kind in _PRUNING:  # the last one counts: guided designs prune the networks they follow first
            settings, run = here, step.run
    if not settings:
        return PrunedBy(arch=arch, lr=lr)
    method, selection = settings.get("method", ""), settings.get("selection") or {}
    kind = _kind(method, selection, masks=RunDir(runs / run).masks.is_file())
    return PrunedBy(method, kind, settings.get("target") or "", arch, tuple(selection.get("ratio") or ()), lr)


def _kind(method: str, selection: Json, *, masks: bool) -> str:
    if masks:
        return UNSTRUCTURED
    if method not in METHODS:
        return ""
    by_layer = selection.get("level", "layer") == "layer"
    return PREDEFINED if METHODS[method].predefined and by_layer else AUTOMATIC
