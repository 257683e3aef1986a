"""How sure a difference is over other seeds and over other test images: two questions, and the part of each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from detect.matches import Matches
from study.plan.named import DENSE
from study.report.differences import Differences
from study.report.figures import axis_label
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure
from study.report.routes import RouteResults, find_route
from study.report.rows import Row
from study.report.statistics.families import Difference
from study.report.statistics.images import (
    Array,
    accuracies,
    average_precisions,
    draw_images,
    image_noise,
    split_variance,
)
from study.report.statistics.simulated import CONFIDENCE
from study.report.statistics.simultaneous import StudentT
from study.report.topic import DETECTION

PARTS = (("other seeds", "#0d6d93"), ("other test images", "#cc8209"))
_SHOWN_GAPS = 3
_COLUMNS = (
    *("route", "at", f"difference to {DENSE}", "error, other seeds", "error, other images", "error, both"),
    *("images alone, 95 % from", "to", "seeds and images, 95 % from", "to", "n"),
)
_CAPTION = (
    f"Standard error of the difference to {DENSE}, in points. Other seeds: by the block design, on these test images."
    " Other test images: 1,000 draws of as many images with replacement, the same for all routes and seeds, for the"
    " networks of these seeds. Both: of the two variances together, less the part that is in each"
    " of them, which is how the network of one seed deals with one image."
    " The intervals of the table are those of each difference alone; the last one takes the degrees of freedom of the"
    " seeds' part into account."
)


@dataclass(frozen=True)
class _Drawn:
    """One evaluation's metric in each draw (B,); `test` tells sets of test images apart."""

    test: int
    metric: Array


def analyse(material: Material) -> Exhibit | None:
    """Each route against the unpruned one; None without two routes that are compared."""
    key = material.topic.primary.key
    scored = [route for route in material.routes if route.mean(key) is not None]
    differences = Differences(material.routes, key)
    compared = [
        (route, dense, difference)
        for route in scored
        if (dense := find_route(scored, DENSE, route.point)) is not None
        and dense is not route
        and (difference := differences.to(route, DENSE)) is not None
        and difference.decidable
    ]
    drawn = _drawn(material, [route for pair in compared for route in pair[:2]])
    rows = [row for each in compared if (row := _row(*each, drawn)) is not None]
    gaps = tuple(material.files.gaps[:_SHOWN_GAPS])
    if len(material.files.gaps) > _SHOWN_GAPS:
        gaps += (f"{len(material.files.gaps) - _SHOWN_GAPS} more runs, for such reasons.",)
    if not rows and not gaps:
        return None
    title = "How sure: other seeds, other test images"
    return Exhibit(
        title, _CAPTION, _figure(rows, material.routes) if rows else None, gaps, _COLUMNS if rows else (), tuple(rows)
    )


def _row(
    route: RouteResults, dense: RouteResults, difference: Difference, drawn: Mapping[str, _Drawn]
) -> tuple[Value, ...] | None:
    """A line of the table; None where no seed has draws of the same test images for both."""
    pairs = {}
    reference = {row.seed: drawn.get(row.chain[-1].run) for row in dense.rows}
    for row in route.rows:
        mine, other = drawn.get(row.chain[-1].run), reference.get(row.seed)
        if mine is not None and other is not None and mine.test == other.test:
            pairs[row.seed] = (mine.metric, other.metric)
    noise = image_noise({s: a for s, (a, _) in pairs.items()}, {s: b for s, (_, b) in pairs.items()})
    if noise is None:
        return None
    parts = split_variance(difference.error**2, noise)
    errors = [float(np.sqrt(part)) for part in (parts.seeds, parts.images, parts.total)]
    reach = StudentT(parts.df(difference.df)).quantile(CONFIDENCE) * errors[2]
    ends = (difference.estimate - reach, difference.estimate + reach)
    return (route.name, route.place, difference.estimate, *errors, *noise.interval, *ends, noise.n)


def _drawn(material: Material, routes: Sequence[RouteResults]) -> dict[str, _Drawn]:
    """By run; those that kept nothing of each image are absent, and are gaps."""
    rows = {row.chain[-1].run: row for route in routes for row in route.rows}
    runs = list(rows)
    if material.topic is DETECTION:
        matches = {run: found["COCO"] for run in runs if (found := material.files.matches(run)) is not None}
        tests = {run: (each.classes, each.boxes.tobytes()) for run, each in matches.items()}
        return _by_test(tests, lambda some: _precisions([matches[run] for run in some]))
    correct = {run: right for run in runs if (right := material.files.correct(run)) is not None}
    data = {run: (_data_of(material, rows[run]), len(right)) for run, right in correct.items()}
    return _by_test(data, lambda some: _accuracies(np.stack([correct[run] for run in some])))


def _by_test(tests: Mapping[str, Hashable], metrics: Callable[[list[str]], Array]) -> dict[str, _Drawn]:
    """A grid may vary the data: evaluations are drawn together with those of the same test images."""
    found: dict[str, _Drawn] = {}
    for number, test in enumerate(dict.fromkeys(tests.values())):
        runs = [run for run, its in tests.items() if its == test]
        found |= {run: _Drawn(number, metric) for run, metric in zip(runs, metrics(runs), strict=True)}
    return found


def _precisions(evaluations: Sequence[Matches]) -> Array:
    return average_precisions(evaluations, draw_images(len(evaluations[0].boxes))).ap


def _accuracies(correct: NDArray[np.bool_]) -> Array:
    return accuracies(correct, draw_images(correct.shape[1]))


def _data_of(material: Material, row: Row) -> str:
    """The fingerprint of the data of a row's last classifier; empty where no result has one."""
    # from the end: a design may follow networks of other data, which come first
    found = (material.stages[step.run].part("data").get("fingerprint") for step in reversed(row.chain))
    return next((str(each) for each in found if each), "")


def _figure(rows: list[tuple[Value, ...]], routes: Sequence[RouteResults]) -> go.Figure:
    figure = base_figure("standard error (points)", "", height=130 + 46 * len(rows))
    labels = {(route.name, route.place): axis_label(route) for route in routes}
    names = [labels[str(row[0]), str(row[1])] for row in rows]
    for column, (name, colour) in enumerate(PARTS, 3):
        values = [row[column] for row in rows]
        figure.add_bar(orientation="h", y=names, x=values, name=name, marker={"color": colour})
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showgrid=False)
    return figure
