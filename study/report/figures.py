"""Figures over routes: quality against cost and against a grid field, and where the training compute went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import plotly.graph_objects as go

from study.report import units
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import RouteResults, amount_field, distinct_names, is_numeric_field, short_place
from study.report.rows import Row
from study.report.statistics.summary import Summary, is_number
from study.report.topic import Topic

_BAR_HEIGHT = 34
_VARIANTS = ("", "-open", "-dot", "-open-dot")  # of a pipeline's marker, for the grid points beside the axis
# Stage colours stay apart from the routes' colours: cool for classification, warm for detection.
_STAGE_COLOURS = {
    "train_classifier": ("#a9c3d6", "#7fa3bd", "#5a839f", "#3f667f"),
    "train_detector": ("#e6c79c", "#cfa56b", "#b18447", "#8c6530"),
}
_OTHER_STAGE_COLOURS = ("#b9b9c4", "#9a9aa8", "#7c7c8c")


def against_cost(material: Material, key: str) -> go.Figure | None:
    """Quality against the cost `key`, every route at every grid point; None where no row has both."""
    placed, title = placed_by_cost(material, key)
    if not placed:
        return None
    figure = base_figure(title, material.topic.primary.name, height=430)
    _add_routes(figure, placed, material, amount_field(material.routes))
    figure.update_xaxes(range=[0, max(place for place, _ in placed) * 1.08])
    return figure


def placed_by_cost(material: Material, key: str) -> tuple[list[tuple[float, RouteResults]], str]:
    """The routes that are drawn, each at its cost `key` in the unit of the axis, and the axis's title."""
    topic = material.topic
    scored = [r for r in material.routes if r.mean(topic.primary.key) is not None and r.name not in topic.undrawn]
    drawn = [(cost, r) for r in scored if (cost := r.mean(key)) is not None]
    size, prefix = units.prefix_for(max((cost for cost, _ in drawn), default=0.0))
    title = topic.cost(key).name + (" per image" if key.endswith("macs") and key in topic.forward_costs else "")
    placed = [(cost / size, route) for cost, route in drawn]
    return placed, f"{title} ({prefix})" if prefix else title


def against_training_macs(material: Material) -> Exhibit:
    """Quality against everything that was spent to get it."""
    title = f"{material.topic.primary.name} against training compute"
    figure = against_cost(material, "train_macs")
    if figure is None:
        return Exhibit(title, "", None, ("No row has both a score and the cost of its training.",))
    caption = (
        "Training MACs of every stage that the route needed, shared ones included: what it costs to follow "
        "this route alone. Small dots are seeds, large ones their mean, bars one standard deviation."
    )
    return Exhibit(title, caption, figure, (), *cost_table(material, "train_macs"))


def cost_table(material: Material, key: str) -> tuple[tuple[str, ...], tuple[tuple[Value, ...], ...]]:
    """Columns and rows of a figure of `against_cost`."""
    topic = material.topic
    columns = ("route", "at", topic.cost(key).name, topic.primary.name, "standard deviation", "n")
    rows = []
    for route in material.routes:
        summary, value = route.summary(topic.primary.key), route.mean(key)
        found = (summary.mean, summary.std, summary.n) if summary else (None, None, 0)
        rows.append((route.name, route.place, None if value is None else round(value), *found))
    return columns, tuple(rows)


def against_field(material: Material, field: str, bars: Mapping[int, float] | None = None) -> go.Figure | None:
    """Quality along a numeric field of the grid, one line per pipeline and other grid values; None for words.

    `bars`: half-lengths of the error bars by the id of a route; one standard deviation without them.
    """
    if not is_numeric_field(material.routes, field):
        return None
    figure = base_figure(plain(field), material.topic.primary.name)
    _add_routes(figure, placed_by_field(material, field), material, field, bars)
    return figure


def placed_by_field(material: Material, field: str) -> list[tuple[float, RouteResults]]:
    """The routes that are drawn, each at its number of a field of the grid, ascending."""
    drawn = [route for route in material.routes if field in route.point and route.name not in material.topic.undrawn]
    placed = [(float(value), route) for route in drawn if is_number(value := route.point[field])]
    return sorted(placed, key=itemgetter(0))


def _add_routes(
    figure: go.Figure,
    placed: Sequence[tuple[float, RouteResults]],
    material: Material,
    along: str,
    bars: Mapping[int, float] | None = None,
) -> None:
    """Every pipeline by its look; a line joins its grid points that differ in no field but `along`."""
    rests: dict[str, str] = {}
    for name, rest, here in series_along(placed, along):
        variant = rests.setdefault(rest, _VARIANTS[len(rests) % len(_VARIANTS)])  # the same for all pipelines
        label = f"{name}, {rest}" if rest else name
        look = material.looks[name]
        marker = {"color": look.colour, "symbol": f"{look.marker}{variant}"}
        _add_series(figure, name, label, marker, here, material.topic, bars)


def series_along(
    placed: Sequence[tuple[float, RouteResults]], along: str
) -> Iterator[tuple[str, str, list[tuple[float, RouteResults]]]]:
    """Pipeline, its other grid values in words, and its routes by place: a line for each combination of the others.

    So the seeds of a line are spread at one point of the grid, never over points.
    """
    for name in distinct_names(route for _, route in placed):
        series: dict[str, list[tuple[float, RouteResults]]] = {}
        for x, route in placed:
            if route.name == name:
                rest = {key: value for key, value in route.point.items() if key != along}
                series.setdefault(short_place(rest) if rest else "", []).append((x, route))
        for rest_name, here in series.items():
            yield name, rest_name, sorted(here, key=itemgetter(0))


def _add_series(
    figure: go.Figure,
    pipeline: str,
    name: str,
    marker: Mapping[str, str],
    placed: Sequence[tuple[float, RouteResults]],
    topic: Topic,
    bars: Mapping[int, float] | None,
) -> None:
    """A dot per seed, a marker with its deviation per grid point, a line joining those."""
    key = topic.primary.key
    common = {"legendgroup": plain(name), "hoverinfo": "text", "meta": plain(pipeline)}
    summaries = [(x, route, s) for x, route in placed if (s := route.summary(key)) is not None]
    figure.add_scatter(
        x=[x for x, _, _ in summaries],
        y=[s.mean for _, _, s in summaries],
        error_y={
            "array": [(s.std or 0.0) if bars is None else bars.get(id(route), 0.0) for _, route, s in summaries],
            "thickness": 1.5,
            "width": 5,
        },
        hovertext=[_hover_mean(route, s, topic) for _, route, s in summaries],
        mode="lines+markers" if len(summaries) > 1 else "markers",
        line={"color": marker["color"], "width": 1.5},
        marker={**marker, "size": 13},
        name=plain(name),
        **common,
    )
    seeds = [(x, route, row) for x, route in placed for row in route.rows]
    dots = [(x, v, _hover(route, row, topic)) for x, route, row in seeds if (v := row.number(key)) is not None]
    figure.add_scatter(  # after the means, so that no dot hides behind its own mean
        x=[x for x, _, _ in dots],
        y=[value for _, value, _ in dots],
        hovertext=[text for _, _, text in dots],
        mode="markers",
        marker={**marker, "size": 6, "line": {"color": "white", "width": 1}},
        showlegend=False,
        **common,
    )


def _hover(route: RouteResults, row: Row, topic: Topic) -> str:
    value = units.score(row.number(topic.primary.key), topic.decimals)
    return f"{plain(route.label)}<br>seed {row.seed}: {topic.primary.name} {value}"


def _hover_mean(route: RouteResults, summary: Summary, topic: Topic) -> str:
    costs = [f"{topic.cost(key).name} {units.si(route.mean(key))}" for key in (*topic.forward_costs, "train_macs")]
    score = f"{topic.primary.name} {units.mean_std(summary, topic.decimals)}"
    return "<br>".join([f"<b>{plain(route.label)}</b>", score, *costs])


def axis_label(route: RouteResults) -> str:
    """A route beside an axis or above a panel: its name, and its place in the grid below it."""
    return f"{plain(route.name)}<br>{plain(short_place(route.point))}" if route.point else plain(route.name)


def training_compute(routes: Sequence[RouteResults]) -> Exhibit:
    """Training MACs per route, stacked by stage; stages shared with other routes are hatched."""
    title = "Where the training compute went"
    # by id: a route holds a mapping, its point, and so has no hash
    spent = {id(route): _stage_macs(route) for route in routes}
    stages = _ordered_stages(spent.values())
    total = max((sum(macs for _, macs, _ in stage.values()) for stage in spent.values()), default=0.0)
    if not total:
        return Exhibit(title, "", None, ("No row says what its stages cost.",))
    size, prefix = units.prefix_for(total)
    figure = base_figure(f"training MACs ({prefix})", "", height=130 + _BAR_HEIGHT * len(routes))
    for (step, _), colour in zip(stages, _stage_colours([kind for _, kind in stages]), strict=True):
        used = [(route, spent[id(route)][step]) for route in routes if step in spent[id(route)]]
        figure.add_bar(
            orientation="h",
            y=[axis_label(route) for route, _ in used],
            x=[macs / size for _, (_, macs, _) in used],
            name=plain(step),
            marker={
                "color": colour,
                "pattern": {
                    "shape": ["/" if shared else "" for _, (_, _, shared) in used],
                    "size": 7,
                    "fillmode": "overlay",
                },
            },
            hovertext=[
                f"{plain(step)}: {units.si(macs, 'MACs')}{' (shared)' if shared else ''}"
                for _, (_, macs, shared) in used
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showgrid=False)
    caption = (
        "Mean over seeds; classification first, then detection. Hatched: the run is shared with another "
        "route, so the study paid for it once."
    )
    columns = ("route", "at", "stage", "training MACs", "of the route's (%)", "shared")
    rows: list[tuple[Value, ...]] = []
    for route in routes:
        here = spent[id(route)]
        whole = sum(macs for _, macs, _ in here.values())
        for step, (_, macs, shared) in here.items():
            rows.append((route.name, route.place, step, round(macs), 100 * macs / whole, "yes" if shared else "no"))
    return Exhibit(title, caption, figure, (), columns, tuple(rows))


def _ordered_stages(spent: Iterable[Mapping[str, tuple[str, float, bool]]]) -> list[tuple[str, str]]:
    """(step, kind) of all routes: classification, detection, the rest, each by first appearance."""
    stages = dict.fromkeys((step, kind) for stage in spent for step, (kind, _, _) in stage.items())
    kinds = list(_STAGE_COLOURS)
    return sorted(stages, key=lambda stage: kinds.index(stage[1]) if stage[1] in kinds else len(kinds))


def _stage_macs(route: RouteResults) -> dict[str, tuple[str, float, bool]]:
    """Step -> (kind, mean training MACs over seeds, shared), for the steps that train."""
    found: dict[str, tuple[str, float, bool]] = {}
    for row in route.rows:
        for step in row.chain:
            if step.train_macs:
                kind, before, shared = found.get(step.step, (step.kind, 0.0, False))
                # a seed without this step spent nothing on it, and so counts with 0
                mean = before + step.train_macs / len(route.rows)
                found[step.step] = (kind, mean, shared or step.shared)
    return found


def _stage_colours(kinds: Sequence[str]) -> list[str]:
    """A colour per stage: the tint says its place among the stages of its kind."""
    chosen = []
    for i, kind in enumerate(kinds):
        tints = _STAGE_COLOURS.get(kind, _OTHER_STAGE_COLOURS)
        chosen.append(tints[kinds[:i].count(kind) % len(tints)])
    return chosen
