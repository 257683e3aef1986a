"""How many weights of the 3x3 kernels are left at each position, stage by stage, after single weights were removed.

Liu et al., ICLR 2019, section 5: sparsity patterns of unstructured pruning.
"""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruning.design.pattern import Pattern, average, pattern_from_masks
from study.report.artifacts import users_of_runs
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import joint_label

_CELL = 200  # pixels, with the words above and below


def analyse(material: Material) -> Exhibit | None:
    """A 3x3 heat map per stage and grid point, mean over seeds; None where no pruning stage left masks."""
    patterns = _patterns(material)
    title, gaps = "Weights left by position in the 3x3 kernels", tuple(material.files.gaps)
    if not patterns:
        return Exhibit(title, "", None, gaps) if gaps else None
    caption = (
        "Percentage of the weights left, mean over seeds, by position in the 3x3 kernels of all layers of a stage; a "
        "stage is all layers whose output maps have one size. Routes that used the same masks share a row."
    )
    rows = tuple(row for users, pattern in patterns.items() for row in _rows(users, pattern))
    columns = ("routes", "stage", *(f"row {i // 3 + 1}, column {i % 3 + 1} (%)" for i in range(9)))
    columns += ("3x3, mean (%)", "other kernels (%)", "networks")
    return Exhibit(title, caption, _figure(patterns), gaps, columns, rows)


def _patterns(material: Material) -> dict[str, Pattern]:
    """Labels of the routes that share masks -> the mean pattern of their seeds."""
    found: dict[str, list[Pattern]] = {}
    for run, used in users_of_runs(material.routes, "prune").items():
        masks = material.files.masks(run)
        areas = material.areas(run) if masks is not None else {}
        # a run that does not record its image size does not say in which stage a layer is
        if masks is not None and {name.removesuffix(".weight") for name in masks} <= areas.keys():
            users = joint_label(route for route, _, _ in used)
            found.setdefault(users, []).append(pattern_from_masks(masks, areas))
    return {users: average(patterns) for users, patterns in found.items()}


def _figure(patterns: Mapping[str, Pattern]) -> go.Figure:
    """A row of heat maps for each pattern, its users above the first."""
    stages = max(pattern.stages for pattern in patterns.values())
    height = _CELL * len(patterns)
    gaps = {"vertical_spacing": 0.36 / len(patterns), "horizontal_spacing": 0.04}
    figure = make_subplots(len(patterns), stages, **gaps)
    figure.update_layout(base_figure("", "", height=height + 40).layout)
    highest = max(share for p in patterns.values() for kernel in p.kernels for share in kernel)
    for row, (users, pattern) in enumerate(patterns.items(), start=1):
        for stage, kernel in enumerate(pattern.kernels, start=1):
            grid = [[100 * share for share in kernel[i : i + 3]] for i in (0, 3, 6)]
            heat = go.Heatmap(z=grid, coloraxis="coloraxis", texttemplate="%{z:.0f}", name=f"stage {stage}")
            figure.add_trace(heat, row=row, col=stage)
            figure.update_xaxes(title_text=f"stage {stage}", row=row, col=stage)
        place = next(figure.select_yaxes(row=row, col=1)).domain[1]
        words = {"text": plain(users), "showarrow": False, "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(x=0, y=place, xref="paper", yref="paper", **words)
    figure.update_layout(
        coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 100 * highest, "showscale": False},
        margin={"l": 16, "r": 16, "t": 32, "b": 32},
    )
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure


def _rows(users: str, pattern: Pattern) -> list[tuple[Value, ...]]:
    return [
        (
            *(users, stage + 1),
            *(100 * share for share in kernel),
            *(100 * sum(kernel) / 9, 100 * pattern.others[stage], pattern.sources),
        )
        for stage, kernel in enumerate(pattern.kernels)
    ]
