"""What every figure shares: the exhibit it sits in, its layout, thinning of long curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from study.plan.named import Look
from training.files import write_text

MAX_CURVE_POINTS = 160
_MARKERS_ON_A_LINE = 6
_LEGEND_ENTRIES, _LEGEND_LINE = 4, 19  # those that a height is chosen for; pixels
Value = str | int | float | None  # of a table: a count is an int, None is missing


@dataclass(frozen=True)
class Exhibit:
    """A figure with its words; `figure` is None where nothing could be drawn, and `gaps` says why.

    `columns` and `rows`: the figure's numbers as a table, where it has one.
    """

    title: str
    caption: str
    figure: go.Figure | None
    gaps: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()


def plain(text: object) -> str:
    """A name as literal text: Plotly reads a subset of HTML in every label."""
    return escape(str(text), quote=False)


def marked_line(look: Look, **line: str | float) -> dict[str, Any]:
    """A line of a pipeline's colour with a few of its markers; a trace says its pipeline as `meta`, too."""
    few = {"symbol": look.marker, "color": look.colour, "size": 7, "maxdisplayed": _MARKERS_ON_A_LINE}
    return {"mode": "lines+markers", "line": {"color": look.colour, "width": 1.8, **line}, "marker": few}


def hatched(look: Look) -> dict[str, Any]:
    """The marker of a pipeline's bars."""
    return {"color": look.colour, "pattern": {"shape": look.hatching, "size": 7, "fillmode": "overlay"}}


def translucent(colour: str, opacity: float) -> str:
    """A colour "#rrggbb" that lets through what is behind it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def base_figure(x_title: str, y_title: str, height: int = 400) -> go.Figure:
    """An empty figure; the page sets the colours of text and grid, by its light or dark scheme."""
    axis = {"showline": False, "zeroline": False, "ticks": "", "automargin": True}
    layout = {
        "template": "none",  # the default one would stand in the JSON of every figure
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 12, "b": 56},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "yref": "container",  # its own strip at the bottom, however many lines it has
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12},
            "traceorder": "normal",
            "maxheight": 1,  # of the figure: no legend is scrolled, which paper cannot be
        },
        "xaxis": {**axis, "title": {"text": x_title, "standoff": 12}},
        "yaxis": {**axis, "title": {"text": y_title, "standoff": 12}},
    }
    return go.Figure(layout=layout)  # at once: Plotly takes fifteen times as long to change a layout


def give_legend_room(figure: go.Figure) -> go.Figure:
    """The figure, higher by the lines that its legend has beyond those that its height was chosen for.

    Its meta says how much of the height stays where it is drawn lower, as on paper: the legend's, and all of bars and
    intervals that lie beside their names.
    """
    entries = sum(trace.showlegend is not False and trace.name is not None for trace in figure.data)
    more = _LEGEND_LINE * max(0, entries - _LEGEND_ENTRIES)
    height = figure.layout.height + more
    lying = any(
        trace.orientation == "h" if trace.type == "bar" else trace.type == "scatter" and trace.error_x.array is not None
        for trace in figure.data
    )
    return go.Figure(figure).update_layout(
        height=height, meta={"stays": height if lying else _LEGEND_LINE * _LEGEND_ENTRIES + more}
    )


def write_page(figure: go.Figure, file: Path) -> None:
    """The figure as a page of its own; plotly.min.js, which it needs, beside it: one for all pages of a folder."""
    write_text(file, figure.to_html(include_plotlyjs="directory", full_html=True))
    write_text(file.with_name("plotly.min.js"), get_plotlyjs())


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most MAX_CURVE_POINTS points: means over equally long stretches of consecutive points."""
    size = math.ceil(len(x) / MAX_CURVE_POINTS)
    if size <= 1:
        return list(x), list(y)
    # means, not every n-th point: the noise of single steps would be drawn as if it were the course
    chunks = [slice(start, start + size) for start in range(0, len(x), size)]
    return [fmean(x[c]) for c in chunks], [fmean(y[c]) for c in chunks]
