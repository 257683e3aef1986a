"""The figures over routes for print: one column wide, legible there, in colours and markers that a printer keeps."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from study.report.content import Content
from study.report.figures import placed_by_cost, placed_by_field, series_along
from study.report.material import Material
from study.report.routes import RouteResults, amount_field
from study.report.trends import Trend, levels

Placed = Sequence[tuple[float, RouteResults]]  # place along the axis, route

_WIDTH, _HEIGHT = 3.3, 2.3  # inches; of a column, and of the axes
_LEGEND_LINE = 0.15  # inches
_MOST_LINES = 8
_LONGEST_OF_TWO = 20  # letters of a label that fits beside another one
_MARKERS = "osD^vPX<>phd"
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
_STYLE: Any = {  # matplotlib's keys
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # text that can be searched, and that publishers take
    "svg.fonttype": "none",
    "svg.hashsalt": "prune-transfer",  # equal results, equal files
    "text.parse_math": False,  # of routes that a user named
}


@dataclass(frozen=True)
class PrintFigure:
    """One figure: the stem of its files, its words, and both files."""

    name: str
    caption: str
    pdf: bytes
    svg: bytes


class _Panel:
    """One figure while it is drawn: every pipeline in its colour, every entry of the legend with its own marker."""

    def __init__(self, material: Material, x_title: str):
        self.topic, self._of = material.topic, material.looks
        self._figure = Figure(layout="constrained")
        self.axes = self._figure.add_subplot()
        self.axes.set_xlabel(x_title)
        self.axes.set_ylabel(self.topic.primary.name)
        self._entries: dict[str, Artist] = {}  # of the legend
        self._looks: dict[str, int] = {}  # the number of an entry, which chooses its marker and dashes

    def add(self, placed: Placed, name: str, rest: str = "", bars: Mapping[int, float] | None = None) -> None:
        """A mean with its bar at each place, a dot for each seed, a line that joins the means.

        `rest`: the grid values that the line stands for. `bars`: by the id of a route; one deviation without them.
        """
        key, colour = self.topic.primary.key, self._of[name].colour
        printed = self._printed(name, rest)
        looks = self._looks.setdefault(printed, len(self._looks))
        marker = _MARKERS[looks % len(_MARKERS)]
        means = [(x, route, s) for x, route in placed if (s := route.summary(key)) is not None]
        drawn = self.axes.errorbar(
            [x for x, _, _ in means],
            [s.mean for _, _, s in means],
            [(s.std or 0.0) if bars is None else bars.get(id(route), 0.0) for _, route, s in means],
            color=colour,
            marker=marker,
            linestyle=_DASHES[looks % len(_DASHES)] if len(means) > 1 else "none",
            markersize=4.5,
            linewidth=0.9,
            elinewidth=0.8,
            capsize=2,
        )
        dots = [(x, value) for x, route in placed for row in route.rows if (value := row.number(key)) is not None]
        self.axes.plot(
            [x for x, _ in dots],
            [value for _, value in dots],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=2.2,
            markeredgecolor="white",
            markeredgewidth=0.3,
            zorder=3,
        )
        self._entries.setdefault(printed, drawn[0])

    def level(self, mean: float, route: RouteResults) -> None:
        """The mean of a route that the field of the figure makes no difference to."""
        line = self.axes.axhline(mean, color=self._of[route.name].colour, linewidth=0.9, linestyle=(0, (7, 2)))
        self._entries.setdefault(self._printed(route.name, route.place), line)

    def _printed(self, name: str, rest: str) -> str:
        printed = self.topic.print_name(name)
        return f"{printed}, {rest}" if rest else printed

    def printed(self, name: str, caption: str) -> PrintFigure:
        """Both files, the legend above the axes."""
        columns = 2 if max(map(len, self._entries), default=0) <= _LONGEST_OF_TWO else 1
        self._figure.set_size_inches(_WIDTH, _HEIGHT + _LEGEND_LINE * math.ceil(len(self._entries) / columns))
        self._figure.legend(
            [*self._entries.values()],
            [*self._entries],
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            handlelength=3,
        )
        files = {}
        for form, no_date in (("pdf", "CreationDate"), ("svg", "Date")):
            # without its date, so that equal results are equal files
            buffer = io.BytesIO()
            self._figure.savefig(buffer, format=form, metadata={no_date: None})
            files[form] = buffer.getvalue()
        return PrintFigure(re.sub(r"[^\w-]+", "-", name), caption, **files)


def print_figures(content: Content) -> list[PrintFigure]:
    """The score along each number of the grid, and against what a network and its training cost."""
    with matplotlib.rc_context(_STYLE):
        found = [_along(content.material, trend) for trend in content.trends]
        found += [_against(content.material, key) for key in (*content.topic.forward_costs, "train_macs")]
        return [figure for figure in found if figure is not None]


def _along(material: Material, trend: Trend) -> PrintFigure | None:
    """None where there are more lines than a column shows apart."""
    panel, placed = _Panel(material, trend.field), placed_by_field(material, trend.field)
    lines = list(series_along(placed, trend.field))
    if len(lines) > _MOST_LINES:
        return None
    for name, rest, here in lines:
        panel.add(here, name, rest, trend.bars)
    for mean, route in levels(material, trend.field):
        panel.level(mean, route)
    return panel.printed(f"along-{trend.field}", f"{trend.exhibit.caption} {_seeds(material, placed)}")


def _against(material: Material, key: str) -> PrintFigure | None:
    """None where no route has both."""
    topic = material.topic
    placed, title = placed_by_cost(material, key)
    if not placed:
        return None
    panel = _Panel(material, title)
    # all points of a pipeline share its entry in the legend
    for name, _, here in series_along(placed, amount_field(material.routes)):
        panel.add(here, name)
    panel.axes.set_xlim(0, max(place for place, _ in placed) * 1.08)
    caption = (
        f"{topic.primary.name} against {topic.cost(key).name}. Small markers are seeds, large ones their mean, bars one"
        f" standard deviation. {_seeds(material, placed)}"
    )
    return panel.printed(f"against-{key}", caption)


def _seeds(material: Material, placed: Placed) -> str:
    """How many seeds the means of a figure rest on."""
    counts = [s.n for _, route in placed if (s := route.summary(material.topic.primary.key)) is not None]
    fewest, most = min(counts, default=0), max(counts, default=0)
    return f"n = {most} seeds." if fewest == most else f"n = {fewest} to {most} seeds."
