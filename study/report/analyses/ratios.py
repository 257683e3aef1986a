"""Sensitivity to aggressive ratios: quality as more and more is removed, and the drop below the unpruned network."""

from __future__ import annotations

from dataclasses import replace

from study.plan.named import DENSE
from study.report.figures import against_field
from study.report.material import Material
from study.report.plots import Exhibit
from study.report.routes import RATIO, describe_point, find_route
from study.report.statistics.summary import is_number
from study.report.tables import DIFFERENCE_COLUMNS, difference_values


def analyse(material: Material) -> Exhibit | None:
    """One line per route and method; None unless the grid has at least two ratios that are numbers."""
    measure = material.topic.primary
    routes = [r for r in material.routes if RATIO in r.point and r.mean(measure.key) is not None]
    figure = against_field(replace(material, routes=routes), RATIO)
    if figure is None or len({route.point[RATIO] for route in routes}) < 2:
        return None
    rows = []
    for route in routes:
        dense = find_route(material.routes, DENSE, route.point)
        difference = None if dense is None else route.minus(dense, measure.key)
        rest = describe_point({key: value for key, value in route.point.items() if key != RATIO})
        ratio = route.point[RATIO]
        at = ratio if is_number(ratio) else str(ratio)
        rows.append((route.name, rest, at, route.mean(measure.key), *difference_values(difference)))
    columns = ("route", "at", RATIO, measure.name, f"{DIFFERENCE_COLUMNS[0]} to {DENSE}", *DIFFERENCE_COLUMNS[1:])
    caption = (
        f"Mean over seeds and one standard deviation, by {RATIO}, the fraction removed. The table gives the paired "
        f"difference to {DENSE} with its 95 % interval."
    )
    return Exhibit(f"{measure.name} against {RATIO}", caption, figure, (), columns, tuple(rows))
