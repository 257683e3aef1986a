"""What statements compare besides a column of the comparison, in percent or as a ratio, for each seed of a route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pruning.plan import PruningPlan
from study.plan.named import DENSE
from study.report.analyses.weights import conv_weights, share_near_zero
from study.report.artifacts import RunFiles, steps
from study.report.routes import RouteResults, find_route
from study.report.rows import Numbers, StageResult
from study.stages.network import Network

BySeed = dict[int, float | None]


@dataclass(frozen=True)
class Sources:
    """Where measures are taken from: all routes, the stages by run, and the files of runs."""

    routes: Sequence[RouteResults]
    stages: Mapping[str, StageResult]
    files: RunFiles


def by_seed(route: RouteResults, measure: str, sources: Sources | None) -> BySeed:
    """A measure by seed: one of `MEASURES`, or a column; without `sources` no file is read and only columns are."""
    if measure not in MEASURES:
        return route.by_seed(measure)
    return {} if sources is None else MEASURES[measure].of(route, sources)


def _near_zero(route: RouteResults, sources: Sources) -> BySeed:
    """Weights of convolutions, of those left, below a tenth of their standard deviation (%)."""
    weights = {seed: conv_weights(sources.files, run) for seed, run in _last_runs(route, "train_classifier").items()}
    return {seed: None if w is None else share_near_zero(w) for seed, w in weights.items()}


def _distance(route: RouteResults, sources: Sources) -> BySeed:
    """How far training moved the weights: ||w_T - w_0|| / ||w_0||, of a dense network that began at random."""
    found: BySeed = {}
    for seed, run in _last_runs(route, "train_classifier").items():
        settings, network = sources.stages[run].part("settings"), sources.stages[run].part("network")
        end = sources.files.weights(run)
        # only there does the start follow from the seed; it is drawn again, as it is kept nowhere
        if settings.get("regime") != "base" or "weights" in settings or not end or not network:
            continue
        plan = PruningPlan(settings["arch"], settings.get("arch_options") or {})
        torch.manual_seed(seed)  # as `study.stages.classifier.starting_model`
        built = Network(plan, network["num_classes"], network["image_size"], tuple(network["mean"]), ()).build()
        # matrices and kernels; what has one axis, such as the scale of a norm, mostly begins at a constant
        start = {name: tensor for name, tensor in built.state_dict().items() if tensor.dim() > 1}
        moved = sum(float((end[name].float() - tensor).square().sum()) for name, tensor in start.items())
        found[seed] = (moved / sum(float(tensor.square().sum()) for tensor in start.values())) ** 0.5
    return found


def _spread_of_kept(route: RouteResults, sources: Sources) -> BySeed:
    """Standard deviation over layers of the share of channels kept (%)."""
    found: BySeed = {}
    for seed, run in _last_runs(route, "prune", "prune_detector").items():
        plan = sources.files.plan(run)
        if plan is not None and len(plan.keep) > 1:
            shares = [100 * kept / plan.widths[name] for name, kept in plan.kept_counts().items()]
            found[seed] = float(np.std(shares, ddof=1))
    return found


def _last_runs(route: RouteResults, *kinds: str) -> dict[int, str]:
    """Seed -> the route's last run of these kinds."""
    return {seed: step.run for seed, step in steps(route, *kinds)}


def _lost(*columns: str) -> Callable[[RouteResults, Sources], BySeed]:
    """How far below the unpruned network (%): of a score what is lost, of a cost what is saved."""

    def lost(route: RouteResults, sources: Sources) -> BySeed:
        dense = find_route(sources.routes, DENSE, route.point)
        # the first that the route has: detectors and classifiers have costs of different names
        column = next((c for c in columns if route.mean(c) is not None), None)
        if dense is None or column is None:
            return {}
        whole, part = dense.by_seed(column), route.by_seed(column)
        return {seed: 100 * (1 - p / w) for seed, p in part.items() if p is not None and (w := whole.get(seed))}

    return lost


def _lost_rare(route: RouteResults, sources: Sources) -> BySeed:
    """As `_lost` of AP, of the rare classes alone: those of at most half of an average class's boxes in training."""
    dense = find_route(sources.routes, DENSE, route.point)
    if dense is None:
        return {}
    whole = {row.seed: row.measured.per_class for row in dense.rows}
    found: BySeed = {}
    for row in route.rows:
        trained = [sources.stages[step.run] for step in row.chain if step.kind == "train_detector"]
        boxes = trained[-1].part("data").get("per_class", {}) if trained else {}
        rare = [name for name, count in boxes.items() if count <= sum(boxes.values()) / len(boxes) / 2]
        part, of_dense = (_mean(rare, scores) for scores in (row.measured.per_class, whole.get(row.seed)))
        if part is not None and of_dense:
            found[row.seed] = 100 * (1 - part / of_dense)
    return found


def _mean(names: Sequence[str], scores: Numbers | None) -> float | None:
    """The mean of the named scores, of those that are there."""
    known = [score for name in names if scores and (score := scores.get(name)) is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Derived:
    """A measure that is no column of the comparison: how it is had, and its unit."""

    of: Callable[[RouteResults, Sources], BySeed]
    unit: str = "%"


MEASURES = {
    "weights near zero": Derived(_near_zero),
    "distance from the start": Derived(_distance, unit=""),
    "spread of the layers' kept shares": Derived(_spread_of_kept),
    "AP lost": Derived(_lost("AP")),
    "AP lost on small objects": Derived(_lost("APs")),
    "AP lost on rare classes": Derived(_lost_rare),
    "MACs saved": Derived(_lost("detector_macs", "macs")),
    "latency saved": Derived(_lost("latency_ms")),
}
