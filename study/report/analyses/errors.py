"""What is wrong with the detections of each route: kinds of errors, and which classes are taken for which.

Bolya et al., TIDE, ECCV 2020; see detect/errors.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from detect.errors import KINDS
from study.report.artifacts import steps
from study.report.figures import axis_label
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, hatched, plain
from study.report.routes import RouteResults
from study.report.rows import Json
from study.report.statistics.summary import summarize

MOST_CLASSES = 20  # that a matrix has room for
_WORDS = {
    "class": "wrong class",
    "place": "wrong place",
    "both": "wrong class and place",
    "duplicate": "duplicate",
    "background": "on background",
    "missed": "missed",
}
_NOTHING = "nothing"
_COLUMNS, _PANEL = 3, 300  # matrices in a row; pixels


@dataclass(frozen=True)
class _Errors:
    """Of one route: the errors.json of its seeds."""

    route: RouteResults
    seeds: list[Json]


def kinds(material: Material) -> Exhibit | None:
    """What each kind of error costs a route; None where no evaluation has told them apart."""
    found = _read(material)
    if not found:
        return None
    figure = base_figure("", "AP50 gained by mending", height=430)
    rows: list[tuple[Value, ...]] = []
    for each in found:
        summaries = [summarize([seed["cost"][kind] for seed in each.seeds]) for kind in KINDS]
        counts = [summarize([seed["count"][kind] for seed in each.seeds]) for kind in KINDS]
        figure.add_bar(
            x=[_WORDS[kind] for kind in KINDS],
            y=[s.mean if s else None for s in summaries],
            error_y={"array": [(s.std or 0.0) if s else 0.0 for s in summaries], "thickness": 1.5, "width": 4},
            marker=hatched(material.looks[each.route.name]),
            meta=plain(each.route.name),
            name=plain(each.route.label),
        )
        for kind, cost, count in zip(KINDS, summaries, counts, strict=True):
            # every file has every kind
            assert cost is not None and count is not None
            rows.append((each.route.name, each.route.place, _WORDS[kind], cost.mean, cost.std, count.mean, cost.n))
    figure.update_layout(barmode="group", bargap=0.25)
    caption = (
        "By how much AP50 rises when one kind of error alone is mended, mean over seeds, bars one standard deviation;"
        " the rises do not add up. Right is an IoU of at least 0.5 with a box,"
        " a wrong place one of 0.1 to 0.5 (TIDE, Bolya et al., ECCV 2020)."
    )
    columns = ("route", "at", "error", "AP50 gained", "standard deviation", "errors, mean", "n")
    return Exhibit("Kinds of errors", caption, figure, tuple(material.files.gaps), columns, tuple(rows))


def confusion(material: Material) -> Exhibit | None:
    """For each route what is found where a box of each class is; None with many classes, or where nothing tells."""
    found = _read(material)
    names = found[0].seeds[0]["classes"] if found else []
    # a grid may vary the data: matrices are of those with the classes of the first
    of_all = len(found)
    found = [each for each in found if all(seed["classes"] == names for seed in each.seeds)]
    if not 1 < len(names) <= MOST_CLASSES:
        return None
    shares = [_shares(each.seeds, len(names)) for each in found]
    rows: list[tuple[Value, ...]] = []
    for each, of_classes in zip(found, shares, strict=True):
        for true, share in zip(names, of_classes, strict=True):
            rows.append((each.route.name, each.route.place, true, *(100 * float(value) for value in share)))
    caption = (
        f"Of the boxes of each class (a row) the share on which a detection of each class is, in percent; all seeds"
        f" together. Detections have a score of at least {found[0].seeds[0]['min_score']:g} and an IoU of 0.5 or more"
        f" with their box, one each; {_NOTHING!r}: the box has none."
    )
    if len(found) < of_all:
        caption += f" Of {of_all} routes {of_all - len(found)} have other classes and are left out."
    columns = ("route", "at", "class", *(f"found as {name} (%)" for name in (*names, _NOTHING)))
    figure = _matrices(found, shares, names)
    return Exhibit("What is taken for what", caption, figure, (), columns, tuple(rows))


def _read(material: Material) -> list[_Errors]:
    found = []
    for route in material.routes:
        runs = [step.run for _, step in steps(route, "evaluate")]
        seeds = [errors for run in runs if (errors := material.files.errors(run)) is not None]
        if seeds:
            found.append(_Errors(route, seeds))
    return found


def _shares(seeds: Sequence[Json], n_classes: int) -> NDArray[np.float64]:
    """(K, K + 1): of the boxes of each class the share by what was found there."""
    counts = np.zeros((n_classes + 1, n_classes + 1))
    for seed in seeds:
        for true, seen, count in seed["confusion"]:
            counts[true, seen] += count
    # the last row is of detections where no box is, which belong to no class
    return counts[:-1] / np.maximum(counts[:-1].sum(axis=1, keepdims=True), 1)


def _matrices(found: Sequence[_Errors], shares: Sequence[NDArray[np.float64]], names: Sequence[str]) -> go.Figure:
    rows = -(-len(found) // _COLUMNS)
    titles = [axis_label(each.route) for each in found]
    figure = make_subplots(rows, _COLUMNS, subplot_titles=titles, vertical_spacing=0.3 / rows, horizontal_spacing=0.09)
    figure.update_layout(base_figure("", "", height=_PANEL * rows + 40).layout)
    figure.update_layout(margin={"t": 36})
    text = "%{z:.0f}" if len(names) <= MOST_CLASSES // 2 else None
    for k, each in enumerate(found):
        labels = [plain(name) for name in names]
        heat = go.Heatmap(
            z=100 * shares[k],
            x=[*labels, _NOTHING],
            y=labels,
            coloraxis="coloraxis",
            texttemplate=text,
            meta=plain(each.route.name),
            name=plain(each.route.label),
            hovertemplate="%{y} found as %{x}: %{z:.1f} %<extra></extra>",
        )
        figure.add_trace(heat, row=k // _COLUMNS + 1, col=k % _COLUMNS + 1)
    figure.update_layout(coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 100, "showscale": False})
    figure.update_xaxes(type="category", showgrid=False, tickfont={"size": 10})
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed", tickfont={"size": 10})
    figure.update_annotations(font_size=12)
    return figure
