"""The differences of the main table as intervals below one another: the figure to decide by."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from study.plan.named import Look
from study.report import units
from study.report.differences import Differences
from study.report.figures import axis_label
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import RouteResults
from study.report.statistics.families import Difference
from study.report.tables import difference_heading, references_of
from study.report.topic import Topic

_ROW_HEIGHT = 40
_COLUMNS = ("route", "at", "difference", "95 % from", "to", "shown", "shown with 80 % from", "n")
_CAPTION = (
    "The differences of the table above and their 95 % intervals; those at one grid point hold together. A difference"
    " is shown where its interval leaves out 0."
)


def intervals(material: Material, differences: Differences) -> list[Exhibit]:
    """For each reference of the main table, every route that has an interval against it; none at one seed."""
    topic = material.topic
    found = []
    for reference in references_of(material.routes, topic):
        compared = [
            (route, difference)
            for route in material.routes
            if (difference := differences.to(route, reference)) is not None and difference.decidable
        ]
        if compared:
            title = difference_heading(topic, reference)
            figure = _figure(compared, title, topic, material.looks)
            rows = tuple(_row(route, difference) for route, difference in compared)
            found.append(Exhibit(title, _CAPTION, figure, (), _COLUMNS, rows))
    return found


def _figure(
    compared: list[tuple[RouteResults, Difference]], title: str, topic: Topic, looks: Mapping[str, Look]
) -> go.Figure:
    figure = base_figure(title, "", height=110 + _ROW_HEIGHT * len(compared))
    figure.add_vline(x=0, line={"color": "#888888", "width": 1})
    for name in dict.fromkeys(route.name for route, _ in compared):
        look = looks[name]
        here = [(route, difference) for route, difference in compared if route.name == name]
        figure.add_scatter(
            x=[difference.estimate for _, difference in here],
            y=[axis_label(route) for route, _ in here],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [difference.high - difference.estimate for _, difference in here],
                "arrayminus": [difference.estimate - difference.low for _, difference in here],
                "thickness": 2,
                "width": 5,
            },
            mode="markers",
            marker={"color": look.colour, "symbol": look.marker, "size": 10},
            hovertext=[
                f"{plain(route.label)}<br>{units.signed(difference.estimate, topic.decimals)} "
                f"{units.interval(difference, topic.decimals)}, {units.shown(difference, topic.decimals)}"
                for route, difference in here
            ],
            hoverinfo="text",
            name=plain(name),
            meta=plain(name),
            showlegend=False,
        )
    # by the order of the table, not by pipeline as the traces come
    names = [axis_label(route) for route, _ in compared]
    figure.update_yaxes(
        autorange="reversed", categoryorder="array", categoryarray=names, ticksuffix="  ", showgrid=False
    )
    return figure


def _row(route: RouteResults, difference: Difference) -> tuple[Value, ...]:
    shown = "yes" if difference.shown else "no"
    seen = difference.detectable if math.isfinite(difference.detectable) else None
    return (route.name, route.place, difference.estimate, difference.low, difference.high, shown, seen, difference.n)
