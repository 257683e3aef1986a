"""Which classes a route gains or loses: per-class AP against the unpruned detector, paired over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from study.plan.named import DENSE, Look
from study.report import units
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import RouteResults, find_route, paired
from study.report.statistics.families import Difference
from study.report.statistics.summary import mean_of
from study.report.tables import DIFFERENCE_COLUMNS, difference_values

MOST_CLASSES = 20
_MOST_MARKERS = 160  # of the figure, over all classes and routes
_MARKER_PIXELS, _ROW_PIXELS = 9, 24
_REACH = 2.0  # the figure's half-width, in largest mean differences: intervals of two seeds would flatten it
_SPREAD = 0.7  # of the distance between two classes, which their routes share


@dataclass(frozen=True)
class _Gain:
    """One route's differences by class."""

    route: RouteResults
    by_class: Mapping[str, Difference]


def analyse(material: Material) -> Exhibit | None:
    """The MOST_CLASSES classes that differ most in any route; None without classes or an unpruned detector."""
    gains = [gain for route in material.routes if (gain := _gain(route, material.routes)) is not None]
    if not gains:
        return None
    classes = _ranked(gains)
    shown = classes[:MOST_CLASSES]
    left = len(classes) - len(shown)
    drawn = shown[: max(2, _MOST_MARKERS // len(gains))]
    columns = ("class", "route", "at", f"AP of {DENSE}", "AP", *DIFFERENCE_COLUMNS)
    rows = tuple(_row(name, gain, material.routes) for name in shown for gain in gains if name in gain.by_class)
    figure = _figure(drawn, gains, material.looks)
    return Exhibit(f"AP by class against {DENSE}", _caption(len(drawn), left), figure, (), columns, rows)


def _gain(route: RouteResults, routes: Sequence[RouteResults]) -> _Gain | None:
    dense = find_route(routes, DENSE, route.point)
    if dense is None or dense is route:
        return None
    names = dict.fromkeys(name for row in route.rows for name in row.measured.per_class or {})
    differences = {name: paired(_of(route, name), _of(dense, name)) for name in names}
    found = {name: difference for name, difference in differences.items() if difference is not None}
    return _Gain(route, found) if found else None


def _of(route: RouteResults, name: str) -> dict[int, float | None]:
    """Seed -> AP of a class."""
    return {row.seed: (row.measured.per_class or {}).get(name) for row in route.rows}


def _ranked(gains: Sequence[_Gain]) -> list[str]:
    """Class names, those first that differ most in any route; equal ones as they come."""
    largest: dict[str, float] = {}
    for gain in gains:
        for name, difference in gain.by_class.items():
            largest[name] = max(largest.get(name, 0.0), abs(difference.estimate))
    return sorted(largest, key=lambda name: -largest[name])


def _caption(drawn: int, left: int) -> str:
    rest = f" {left} more {'class differs' if left == 1 else 'classes differ'} less and are left out." if left else ""
    few = f" The figure has the first {drawn} classes." if drawn < MOST_CLASSES and left else ""
    return (
        f"Mean of the differences paired by seed, bars their 95 % intervals, not corrected for making several "
        f"comparisons; long ones are cut off, the table has their ends. Classes in order of their largest difference."
        f"{few}{rest}"
    )


def _figure(classes: Sequence[str], gains: Sequence[_Gain], looks: Mapping[str, Look]) -> go.Figure:
    height = 130 + len(classes) * max(_ROW_PIXELS, _MARKER_PIXELS * len(gains))
    figure = base_figure(f"AP minus that of {DENSE}", "", height=height)
    largest = max(
        (abs(g.by_class[name].estimate) for g in gains for name in classes if name in g.by_class), default=0.0
    )
    for k, gain in enumerate(gains):
        here = [(i, gain.by_class[name]) for i, name in enumerate(classes) if name in gain.by_class]
        shift = _SPREAD * ((k + 0.5) / len(gains) - 0.5)
        label, look = plain(gain.route.label), looks[gain.route.name]
        figure.add_scatter(
            x=[d.estimate for _, d in here],
            y=[i + shift for i, _ in here],
            error_x={
                "array": [d.high - d.estimate if d.decidable else 0.0 for _, d in here],
                "thickness": 1.2,
                "width": 0,
            },
            mode="markers",
            meta=plain(gain.route.name),
            marker={"color": look.colour, "symbol": look.marker, "size": 7},
            name=label,
            hovertext=[
                f"{label}<br>{plain(classes[i])}: {units.signed(d.estimate)} {units.interval(d)}, n = {d.n}"
                for i, d in here
            ],
            hoverinfo="text",
        )
    names = [f"{plain(name)}  " for name in classes]
    figure.update_yaxes(range=[len(classes) - 0.5, -0.5], tickvals=list(range(len(classes))), ticktext=names)
    figure.update_xaxes(range=[-_REACH * largest, _REACH * largest] if largest else None, zeroline=True)
    return figure


def _row(name: str, gain: _Gain, routes: Sequence[RouteResults]) -> tuple[Value, ...]:
    dense = find_route(routes, DENSE, gain.route.point)
    assert dense is not None
    means = [mean_of(_of(route, name).values()) for route in (dense, gain.route)]
    return (name, gain.route.name, gain.route.place, *means, *difference_values(gain.by_class[name]))
