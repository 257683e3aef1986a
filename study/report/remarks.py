"""What the tables would let a reader overlook, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from detect.heads import HEADS
from detect.settings import DetectorSettings
from study.plan.named import DENSE
from study.report import units
from study.report.routes import RouteResults, find_route
from study.report.rows import StageResult


def slower(routes: Sequence[RouteResults]) -> Iterator[str]:
    """The pruned routes that take longer than the unpruned one, where the middle halves of their times lie apart."""
    for route in routes:
        dense = find_route(routes, DENSE, route.point)
        if not route.is_pruned or dense is None:
            continue
        here, there = route.latency_spread, dense.latency_spread
        if here is not None and there is not None and here[0] > there[1]:
            times = " against ".join(units.milliseconds(each.mean("latency_ms")) for each in (route, dense))
            yield f"{route.label} is slower than {DENSE}, though pruned: {times} for one image on the same machine."


def distilled(routes: Sequence[RouteResults], stages: Mapping[str, StageResult]) -> Iterator[str]:
    """Which steps of which routes had a teacher, and what of it their costs count; nothing where none had."""
    found: dict[str, str] = {}  # by the route's name, or with its place where it was not taught everywhere
    shares: list[float] = []
    taught = {route.label: _taught_by_step(route, stages) for route in routes}
    for route in routes:
        macs = taught[route.label]
        if macs:
            everywhere = all(taught[other.label] for other in routes if other.name == route.name)
            found[route.name if everywhere else route.label] = " and ".join(macs)
            shares.append(100 * sum(macs.values()) / sum(row.train_macs for row in route.rows))
    if not found:
        return
    where = "; ".join(f"{steps} of {name}" for name, steps in found.items())
    share = " to ".join(dict.fromkeys(f"{value:.1f}" for value in (min(shares), max(shares))))
    yield (
        f"Distilled from the unpruned network of the same seed: {where}. The teacher's forward passes are {share} % of"
        " these routes' training MACs, which count the teacher's own training as well. Networks that start from random"
        " weights have no teacher; a route that is given what another spends is given these passes, not the teacher's"
        " training."
    )


def counted_on_regions(stages: Mapping[str, StageResult]) -> str:
    """What the costs of these detectors count on the regions of an image; empty where nothing looks at regions."""
    default = DetectorSettings.model_fields["head"].default
    models = [stage.part("settings")["model"] for stage in stages.values() if "model" in stage.part("settings")]
    heads = list(dict.fromkeys(model.get("head", default) for model in models))
    counts = {head: HEADS[head].counted or "nothing on regions" for head in heads if head in HEADS}
    if not any(HEADS[head].counted for head in counts):
        return ""
    words = [f"{words} (head: {head})" if len(counts) > 1 else words for head, words in counts.items()]
    return f"Their MACs and activations count {'; '.join(words)}."


def _taught_by_step(route: RouteResults, stages: Mapping[str, StageResult]) -> dict[str, int]:
    """MACs of forward passes of teachers, over all seeds, by the step that they taught."""
    found: dict[str, int] = {}
    for row in route.rows:
        for step in row.chain:
            macs = stages[step.run].result.get("teacher_macs")
            if isinstance(macs, int) and macs:
                found[step.step] = found.get(step.step, 0) + macs
    return found
