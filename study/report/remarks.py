"""What the tables would let a reader overlook, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.plan.named import DENSE
from study.report import units
from study.report.routes import RouteResults, find_route
from study.report.rows import Comparison


def slower(routes: Sequence[RouteResults]) -> Iterator[str]:
    """The pruned routes that take longer than the unpruned one, where the middle halves of their times lie apart."""
    for route in routes:
        dense = find_route(routes, DENSE, route.point)
        if not route.is_pruned or dense is None:
            continue
        here, there = route.latency_spread, dense.latency_spread
        if here is not None and there is not None and here[0] > there[1]:
            times = " against ".join(units.milliseconds(each.mean("latency_ms")) for each in (route, dense))
            yield f"{route.label} is slower than {DENSE}, though pruned: {times} for one image on this machine."


def distilled(comparison: Comparison) -> Iterator[str]:
    """Which steps of which routes had a teacher, and what of it their costs count; nothing where none had."""
    steps: dict[str, dict[str, None]] = {}
    shares = []
    for row in comparison.rows:
        taught = {
            step.step: macs for step in row.chain if (macs := comparison.stages[step.run].result.get("teacher_macs"))
        }
        if taught:
            steps.setdefault(row.pipeline, {}).update(dict.fromkeys(taught))
            shares.append(100 * sum(taught.values()) / row.train_macs)
    if not steps:
        return
    where = "; ".join(f"{' and '.join(names)} of {route}" for route, names in steps.items())
    yield (
        f"Distilled from the unpruned network of the same seed: {where}. The teacher's forward passes are"
        f" {min(shares):.1f} to {max(shares):.1f} % of these routes' training MACs, which count the teacher's own"
        " training as well. Networks that start from random weights have no teacher; a route that is given what another"
        " spends is given these passes, not the teacher's training."
    )
