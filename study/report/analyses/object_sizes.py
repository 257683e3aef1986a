"""AP by the size of the objects: small, medium and large by COCO's bounds."""

from __future__ import annotations

from study.report import units
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, hatched, plain
from study.report.routes import RouteResults
from study.report.topic import DETECTION

_BARS = "#8a93a0"  # readable on light and on dark
SIZES = {"APs": "small (under 32² px)", "APm": "medium", "APl": "large (over 96² px)"}


def analyse(material: Material) -> Exhibit | None:
    """A group of bars for each size, a bar a route; None where no size was measured."""
    found = [key for key in SIZES if any(route.mean(key) is not None for route in material.routes)]
    if material.topic is not DETECTION or not found:
        return None
    figure = base_figure("size of the object", "AP", height=430)
    for route in material.routes:
        summaries = [route.summary(key) for key in found]
        means = [None if s is None else s.mean for s in summaries]
        figure.add_bar(
            x=[SIZES[key] for key in found],
            y=means,
            error_y={
                "array": [(s.std or 0.0) if s else 0.0 for s in summaries],
                "color": _BARS,
                "thickness": 1.5,
                "width": 4,
            },
            meta=plain(route.name),
            marker=hatched(material.looks[route.name]),
            name=plain(route.label),
            hovertext=[f"{plain(route.label)}<br>AP {units.mean_std(s)}" for s in summaries],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    columns = ("route", "at", *(heading for key in found for heading in (key, f"{key} sd", f"{key} n")))
    rows = tuple(_row(route, found) for route in material.routes)
    return Exhibit("AP by object size", _caption(found), figure, (), columns, rows)


def _caption(found: list[str]) -> str:
    absent = [SIZES[key].split(" ")[0] for key in SIZES if key not in found]
    left_out = f" No object of the test images is {' or '.join(absent)}." if absent else ""
    return f"Mean over seeds, bars one standard deviation; pixels of the original images.{left_out}"


def _row(route: RouteResults, found: list[str]) -> tuple[Value, ...]:
    values: list[Value] = []
    for key in found:
        summary = route.summary(key)
        values += [summary.mean, summary.std, summary.n] if summary else [None, None, 0]
    return (route.name, route.place, *values)
