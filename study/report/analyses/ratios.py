"""Sensitivity to aggressive ratios: quality as more and more is removed, and the drop below the unpruned network."""

from __future__ import annotations

from dataclasses import replace

from study.plan.named import DENSE
from study.report.figures import against_field
from study.report.material import Material
from study.report.plots import Exhibit
from study.report.routes import AMOUNTS, amount_field, describe_point, find_route
from study.report.statistics.summary import is_number
from study.report.tables import DIFFERENCE_COLUMNS, difference_values


def analyse(material: Material) -> Exhibit | None:
    """One line per route and method; None unless the grid has two ratios, or shares to leave, that are numbers."""
    measure, field = material.topic.primary, amount_field(material.routes)
    routes = [r for r in material.routes if field in r.point and r.mean(measure.key) is not None]
    figure = against_field(replace(material, routes=routes), field)
    if figure is None or len({route.point[field] for route in routes}) < 2:
        return None
    rows = []
    for route in routes:
        dense = find_route(material.routes, DENSE, route.point)
        difference = None if dense is None else route.minus(dense, measure.key)
        rest = describe_point({key: value for key, value in route.point.items() if key != field})
        ratio = route.point[field]
        at = ratio if is_number(ratio) else str(ratio)
        rows.append((route.name, rest, at, route.mean(measure.key), *difference_values(difference)))
    columns = ("route", "at", field, measure.name, f"{DIFFERENCE_COLUMNS[0]} to {DENSE}", *DIFFERENCE_COLUMNS[1:])
    caption = (
        f"Mean over seeds and one standard deviation, by {field}, {AMOUNTS[field]}. The table gives the paired "
        f"difference to {DENSE} with its 95 % interval."
    )
    return Exhibit(f"{measure.name} against {field}", caption, figure, (), columns, tuple(rows))
