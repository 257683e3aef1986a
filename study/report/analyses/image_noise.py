"""How sure a difference is over other seeds and over other test images: two questions, and the part of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from study.plan.named import DENSE
from study.report.differences import Differences
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import RouteResults, find_route
from study.report.statistics.images import (
    Array,
    Draws,
    accuracies,
    average_precisions,
    draw_images,
    image_noise,
    split_variance,
)
from study.report.topic import DETECTION

_T95 = 1.96  # of the normal distribution, for the table's last interval
_PARTS = (("other seeds", "#5a839f"), ("other test images", "#b18447"))


def analyse(material: Material) -> Exhibit | None:
    """Each route against the unpruned one; None where no two of them kept what they got right of each image."""
    key = material.topic.primary.key
    scored = [route for route in material.routes if route.mean(key) is not None]
    draws = _draws(material, scored)
    differences = Differences(material.routes, key)
    rows: list[tuple[Value, ...]] = []
    for route in scored:
        dense = find_route(scored, DENSE, route.point)
        difference = None if dense is None or dense is route else differences.to(route, DENSE)
        if dense is None or difference is None or not difference.decidable:
            continue
        noise = image_noise(draws.get(id(route), {}), draws.get(id(dense), {}))
        if noise is None:
            continue
        parts = split_variance(difference.error**2, noise)
        errors = [float(np.sqrt(part)) for part in (parts.seeds, parts.images, parts.total)]
        reach = _T95 * errors[2]
        ends = (difference.estimate - reach, difference.estimate + reach)
        rows.append((route.name, route.place, difference.estimate, *errors, *noise.interval, *ends, noise.n))
    if not rows:
        return None
    columns = (
        *("route", "at", f"difference to {DENSE}", "error, other seeds", "error, other images", "error, both"),
        *("images alone, 95 % from", "to", "seeds and images, 95 % from", "to", "n"),
    )
    caption = (
        f"Standard error of the difference to {DENSE}, in points. Other seeds: by the block design, on these test"
        " images. Other test images: 1,000 draws of as many images with replacement, the same for all routes and seeds,"
        " for the networks of these seeds. The intervals of the table are those of each difference alone, the last one"
        " by a normal distribution."
    )
    title, gaps = "How sure: other seeds, other test images", tuple(material.files.gaps)
    return Exhibit(title, caption, _figure(rows), gaps, columns, tuple(rows))


def _draws(material: Material, routes: list[RouteResults]) -> Mapping[int, Draws]:
    """By the id of a route: seed -> the metric in each draw of the test images."""
    runs = [(id(route), row.seed, row.chain[-1].run) for route in routes for row in route.rows if row.chain]
    metrics = _metrics(material, list(dict.fromkeys(run for _, _, run in runs)))
    found: dict[int, dict[int, Array]] = {}
    for route, seed, run in runs:
        if run in metrics:
            found.setdefault(route, {})[seed] = metrics[run]
    return found


def _metrics(material: Material, runs: list[str]) -> dict[str, Array]:
    """The metric of each run in each draw of the test images (B,); those that kept nothing of each image are absent."""
    if material.topic is DETECTION:
        matches = {run: found["COCO"] for run in runs if (found := material.files.matches(run)) is not None}
        if not matches:
            return {}
        evaluations = list(matches.values())
        ap = average_precisions(evaluations, draw_images(len(evaluations[0].boxes))).ap
        return dict(zip(matches, ap, strict=True))
    correct = {run: right for run in runs if (right := material.files.correct(run)) is not None}
    if not correct:
        return {}
    answers = np.stack(list(correct.values()))
    return dict(zip(correct, accuracies(answers, draw_images(answers.shape[1])), strict=True))


def _figure(rows: list[tuple[Value, ...]]) -> go.Figure:
    figure = base_figure("standard error (points)", "", height=130 + 46 * len(rows))
    names = [plain(f"{row[0]} ({row[1]})" if row[1] else row[0]) for row in rows]
    for column, (name, colour) in enumerate(_PARTS, 3):
        values = [row[column] for row in rows]
        figure.add_bar(orientation="h", y=names, x=values, name=name, marker={"color": colour})
    figure.update_layout(barmode="group", bargap=0.3, legend={"y": -70 / (46 * len(rows) + 60)})
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showgrid=False)
    return figure
