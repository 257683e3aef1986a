"""Winning tickets against random re-initialisation, at every learning rate and optimiser of the grid.

Frankle & Carbin, ICLR 2019 (arXiv 1803.03635); Liu et al., ICLR 2019, section 6.
"""

from __future__ import annotations

import plotly.graph_objects as go

from study.report.material import Material
from study.report.plots import Exhibit, base_figure, plain
from study.report.routes import RouteResults, find_route, full_points, short_place
from study.report.tables import DIFFERENCE_COLUMNS, difference_values

TICKET, RANDOM = "ticket", "scratch_e"
_WORDS = {TICKET: "winning ticket", RANDOM: "random re-initialisation"}


def analyse(material: Material) -> Exhibit | None:
    """Both starts of the same pruned networks, side by side and paired by seed; None without tickets."""
    measure = material.topic.primary
    pairs = []
    for point in full_points([*material.named(TICKET), *material.named(RANDOM)]):
        ticket, random = (find_route(material.named(name), name, point) for name in (TICKET, RANDOM))
        if ticket is not None and random is not None:
            pairs.append((short_place(point), ticket, random))
    if not pairs:
        return None
    figure = base_figure(measure.name, "", height=150 + 60 * len(pairs))
    for i, name in enumerate((TICKET, RANDOM)):
        _add_start(figure, material, name, [(place, pair[i]) for place, *pair in pairs])
    values = [v for _, *pair in pairs for r in pair for v in r.by_seed(measure.key).values() if v is not None]
    room = 0.1 * (max(values) - min(values)) or 1.0
    figure.update_xaxes(range=[min(values) - room, max(values) + room])
    figure.update_yaxes(autorange="reversed", ticksuffix="  ")
    figure.update_layout(scattermode="group")
    rows = tuple(
        (place, a.mean(measure.key), b.mean(measure.key), *difference_values(a.minus(b, measure.key)))
        for place, a, b in pairs
    )
    caption = (
        "Small dots are seeds, large ones their mean, bars one standard deviation. Both routes train the same pruned "
        "network for the same epochs; they differ in the weights that they start from. Differences are paired by seed."
    )
    columns = ("at", _WORDS[TICKET], _WORDS[RANDOM], *DIFFERENCE_COLUMNS)
    return Exhibit("Winning tickets against random re-initialisation", caption, figure, (), columns, rows)


def _add_start(figure: go.Figure, material: Material, name: str, placed: list[tuple[str, RouteResults]]) -> None:
    """The means with their deviations, and a dot per seed, at each place in words."""
    key, look = material.topic.primary.key, material.looks[name]
    summaries = [(plain(place), s) for place, route in placed if (s := route.summary(key)) is not None]
    figure.add_scatter(
        orientation="h",
        y=[place for place, _ in summaries],
        x=[s.mean for _, s in summaries],
        error_x={"array": [s.std or 0.0 for _, s in summaries], "thickness": 1.5, "width": 5},
        mode="markers",
        meta=name,
        marker={"color": look.colour, "symbol": look.marker, "size": 12},
        name=_WORDS[name],
        offsetgroup=name,
    )
    dots = [(plain(place), v) for place, route in placed for v in route.by_seed(key).values() if v is not None]
    figure.add_scatter(
        orientation="h",
        y=[place for place, _ in dots],
        x=[value for _, value in dots],
        mode="markers",
        meta=name,
        marker={"color": look.colour, "symbol": look.marker, "size": 6, "line": {"color": "white", "width": 1}},
        showlegend=False,
        offsetgroup=name,
    )
