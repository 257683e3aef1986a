"""Figures over routes: AP against cost and against a grid field, and where the training compute went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from study.report import units
from study.report.plots import Panel, base_figure, plain
from study.report.routes import Route, distinct_names, is_numeric_field
from study.stats import Summary

_BAR_HEIGHT = 34
# Stage colours stay apart from the routes' colours: cool for classification, warm for detection.
_STAGE_COLOURS = {
    "train_classifier": ("#a9c3d6", "#7fa3bd", "#5a839f", "#3f667f"),
    "train_detector": ("#e6c79c", "#cfa56b", "#b18447", "#8c6530"),
}
_OTHER_STAGE_COLOURS = ("#b9b9c4", "#9a9aa8", "#7c7c8c")


def ap_against_backbone_macs(routes: Sequence[Route], colours: Mapping[str, str]) -> Panel:
    """Quality against the cost of one image."""
    return Panel(
        "AP against the cost of the backbone",
        "Small dots are seeds, large ones their mean, bars one standard deviation. Routes with the same MACs "
        "are set side by side around the true value, which the hover text gives.",
        _ap_against(routes, colours, "backbone_macs", "backbone MACs per image", dodge=True),
    )


def ap_against_training_macs(routes: Sequence[Route], colours: Mapping[str, str]) -> Panel:
    """Quality against everything that was spent to get it."""
    return Panel(
        "AP against training compute",
        "Training MACs of every stage that the route needed, shared ones included: what it costs to follow "
        "this route alone. Small dots are seeds, large ones their mean, bars one standard deviation.",
        _ap_against(routes, colours, "train_macs", "training MACs", dodge=False),
    )


def ap_against_field(routes: Sequence[Route], colours: Mapping[str, str], field: str) -> Panel | None:
    """Quality along a numeric field of the grid, one line per pipeline; None for a field of words."""
    if not is_numeric_field(routes, field):
        return None
    figure = base_figure(plain(field), "AP")
    for name in distinct_names(routes):
        here = [r for r in routes if r.name == name and field in r.point]
        placed = sorted(((float(r.point[field]), r) for r in here), key=_position)
        _add_route(figure, name, colours[name], placed)
    caption = f"Mean over seeds and one standard deviation, by {field}."
    return Panel(f"AP against {field}", caption, figure)


def _position(placed: tuple[float, Route]) -> float:
    return placed[0]


def _ap_against(
    routes: Sequence[Route], colours: Mapping[str, str], key: str, title: str, *, dodge: bool
) -> go.Figure | None:
    costs = {id(r): r.mean(key) for r in routes if r.mean("AP") is not None}
    drawn = [(cost, r) for r in routes if (cost := costs.get(id(r))) is not None]
    if not drawn:
        return None
    size, prefix = units.prefix_for(max(cost for cost, _ in drawn))
    places = _dodged([cost / size for cost, _ in drawn]) if dodge else [cost / size for cost, _ in drawn]
    figure = base_figure(f"{title} ({prefix})" if prefix else title, "AP", height=430)
    for name in distinct_names(route for _, route in drawn):
        placed = [(x, route) for x, (_, route) in zip(places, drawn, strict=True) if route.name == name]
        _add_route(figure, name, colours[name], sorted(placed, key=_position))
    figure.update_xaxes(range=[0, max(places) * 1.08])
    return figure


def _dodged(xs: Sequence[float]) -> list[float]:
    """Equal positions (within 1 % of the range) spread by 2.2 % of the range each, around the true one."""
    step = 0.022 * max(xs)
    spread = list(xs)
    for x in set(xs):
        group = [i for i, other in enumerate(xs) if abs(other - x) <= 0.01 * max(xs)]
        for rank, i in enumerate(group):
            spread[i] = x + step * (rank - (len(group) - 1) / 2)
    return spread


def _add_route(figure: go.Figure, name: str, colour: str, placed: Sequence[tuple[float, Route]]) -> None:
    """One pipeline: a dot per seed, a marker with its deviation per grid point, a line joining those."""
    common = {"legendgroup": plain(name), "hoverinfo": "text"}
    summaries = [(x, route, s) for x, route in placed if (s := route.summary("AP")) is not None]
    figure.add_scatter(
        x=[x for x, _, _ in summaries],
        y=[s.mean for _, _, s in summaries],
        error_y={"array": [s.std or 0.0 for _, _, s in summaries], "thickness": 1.5, "width": 5},
        hovertext=[_hover_mean(route, s) for _, route, s in summaries],
        mode="lines+markers" if len(summaries) > 1 else "markers",
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 13},
        name=plain(name),
        **common,
    )
    dots = [(x, row["AP"], _hover(r, row)) for x, r in placed for row in r.rows if row.get("AP") is not None]
    figure.add_scatter(  # after the means, so that no dot hides behind its own mean
        x=[x for x, _, _ in dots],
        y=[value for _, value, _ in dots],
        hovertext=[text for _, _, text in dots],
        mode="markers",
        marker={"color": colour, "size": 6, "line": {"color": "white", "width": 1}},
        showlegend=False,
        **common,
    )


def _hover(route: Route, row: Mapping[str, float]) -> str:
    return f"{plain(route.label)}<br>seed {row['seed']}: AP {units.ap(row['AP'])}"


def _hover_mean(route: Route, summary: Summary) -> str:
    return (
        f"<b>{plain(route.label)}</b><br>AP {units.mean_std(summary)}<br>"
        f"backbone {units.si(route.mean('backbone_macs'), 'MACs')} per image<br>"
        f"training {units.si(route.mean('train_macs'), 'MACs')}"
    )


def training_compute(routes: Sequence[Route]) -> Panel:
    """Training MACs per route, stacked by stage; stages shared with other routes are hatched."""
    title = "Where the training compute went"
    spent = {id(route): _stage_macs(route) for route in routes}
    stages = _ordered_stages(spent.values())
    total = max((sum(macs for _, macs, _ in stage.values()) for stage in spent.values()), default=0.0)
    if not total:
        return Panel(title, "", None, ("No row says what its stages cost.",))
    size, prefix = units.prefix_for(total)
    figure = base_figure(f"training MACs ({prefix})", "", height=130 + _BAR_HEIGHT * len(routes))
    for (step, _), colour in zip(stages, _stage_colours([kind for _, kind in stages]), strict=True):
        used = [(route, spent[id(route)][step]) for route in routes if step in spent[id(route)]]
        figure.add_bar(
            orientation="h",
            y=[plain(route.label) for route, _ in used],
            x=[macs / size for _, (_, macs, _) in used],
            name=plain(step),
            marker={"color": colour, "pattern": _hatched([shared for _, (_, _, shared) in used])},
            hovertext=[_hover_stage(step, macs, shared) for _, (_, macs, shared) in used],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend={"y": -60 / (_BAR_HEIGHT * len(routes) + 62)})
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showgrid=False)
    caption = (
        "Mean over seeds; classification first, then detection. Hatched: the run is shared with another "
        "route, so the study paid for it once."
    )
    return Panel(title, caption, figure)


def _ordered_stages(spent: Iterable[Mapping[str, tuple[str, float, bool]]]) -> list[tuple[str, str]]:
    """(step, kind) of all routes: classification, detection, the rest, each by first appearance."""
    stages = dict.fromkeys((step, kind) for stage in spent for step, (kind, _, _) in stage.items())
    kinds = list(_STAGE_COLOURS)
    return sorted(stages, key=lambda stage: kinds.index(stage[1]) if stage[1] in kinds else len(kinds))


def _hatched(shared: Sequence[bool]) -> dict[str, Any]:
    return {"shape": ["/" if each else "" for each in shared], "size": 7, "fillmode": "overlay"}


def _hover_stage(step: str, macs: float, shared: bool) -> str:
    return f"{plain(step)}: {units.si(macs, 'MACs')}{' (shared)' if shared else ''}"


def _stage_macs(route: Route) -> dict[str, tuple[str, float, bool]]:
    """Step -> (kind, mean training MACs over seeds, shared), for the steps that train."""
    found: dict[str, tuple[str, float, bool]] = {}
    for row in route.rows:
        for step in row.get("chain") or ():
            macs = step.get("train_macs") or 0
            if macs:
                kind, before, shared = found.get(step["step"], (step["kind"], 0.0, False))
                mean = before + macs / len(route.rows)
                found[step["step"]] = (kind, mean, shared or bool(step.get("shared")))
    return found


def _stage_colours(kinds: Sequence[str]) -> list[str]:
    """A colour per stage: the tint says its place among the stages of its kind."""
    chosen = []
    for i, kind in enumerate(kinds):
        tints = _STAGE_COLOURS.get(kind, _OTHER_STAGE_COLOURS)
        chosen.append(tints[kinds[:i].count(kind) % len(tints)])
    return chosen
