"""What the tables would let a reader overlook, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.plan.named import DENSE
from study.report import units
from study.report.routes import RouteResults, find_route


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
