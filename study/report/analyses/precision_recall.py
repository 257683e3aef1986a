"""Precision against recall at IoU 0.5: what an AP sums up, from each evaluation's pr.json (see detect/evaluate.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from study.plan.named import Look
from study.report.artifacts import PR, steps
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, marked_line, plain, translucent
from study.report.routes import RouteResults
from study.report.statistics.summary import Summary, is_number, summarize

MOST_CLASSES = 6  # that get a figure each
_COLUMNS = 3  # of those figures
_RECALLS = (0.25, 0.5, 0.75, 0.9)  # of the table
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_CAPTION = (
    "Precision at COCO's 101 recalls, IoU 0.5, all sizes, {of}. Lines are means over seeds, bands one standard "
    "deviation to each side; the area below a line is the AP50. A recall that is not reached has precision 0."
)
_BY_CLASS = "for each class (upwards: precision, to the right: recall)"

Curve = tuple[float, ...]  # precision at each recall, 0..1
Spread = list[Summary]  # the same, over seeds


def analyse(material: Material) -> Exhibit | None:
    """Each route's curve, mean over the classes that have boxes; None where no evaluation of detectors is recorded."""
    recall, curves = _read(material)
    if not curves:
        return None
    # Over classes first, as COCO's mean AP is: the area below a seed's curve is then its AP50. Over seeds after that,
    # because runs differ by seed; the spread of a band is theirs, not that of easy and hard classes.
    means = {label: [_mean_curve(classes) for classes in seeds] for label, seeds in curves.items()}
    spreads = {label: _over_seeds(seeds) for label, seeds in means.items() if seeds}
    title, columns = "Precision against recall", ("route", "at", *_headings(), "n")
    if not spreads:
        return Exhibit(title, "", None, tuple(material.files.gaps), columns)
    figure = base_figure("recall", "precision", height=430)
    for route, spread, dash in _drawn(material.routes, spreads):
        for trace in _traces(route, recall, spread, material.looks[route.name], dash):
            figure.add_trace(trace)
    _set_axes(figure)
    rows = tuple(_row(route, recall, spread) for route, spread, _ in _drawn(material.routes, spreads))
    return Exhibit(title, _CAPTION.format(of="mean over classes"), figure, tuple(material.files.gaps), columns, rows)


def by_class(material: Material) -> Exhibit | None:
    """The curves of each class; None where there are more than MOST_CLASSES, or only one."""
    recall, curves = _read(material)
    names = list(dict.fromkeys(name for seeds in curves.values() for classes in seeds for name in classes))
    if not 1 < len(names) <= MOST_CLASSES:
        return None
    figure = _grid(names)
    rows = []
    for k, name in enumerate(names):
        found = {label: [c[name] for c in seeds if name in c] for label, seeds in curves.items()}
        spreads = {label: _over_seeds(seeds) for label, seeds in found.items() if seeds}
        for route, spread, dash in _drawn(material.routes, spreads):
            for trace in _traces(route, recall, spread, material.looks[route.name], dash):
                trace.showlegend = bool(trace.showlegend) and k == 0
                figure.add_trace(trace, row=k // _COLUMNS + 1, col=k % _COLUMNS + 1)
            rows.append((name, *_row(route, recall, spread)))
    _set_axes(figure)
    columns = ("class", "route", "at", *_headings(), "n")
    return Exhibit("Precision against recall by class", _CAPTION.format(of=_BY_CLASS), figure, (), columns, tuple(rows))


def _grid(names: Sequence[str]) -> go.Figure:
    """An empty figure for each class, side by side under its name."""
    height = -(-len(names) // _COLUMNS)
    figure = make_subplots(height, _COLUMNS, subplot_titles=[plain(name) for name in names], vertical_spacing=0.18)
    figure.update_layout(base_figure("", "", height=110 + 220 * height).layout)
    return figure.update_layout(margin={"t": 52})  # above the names


def _read(material: Material) -> tuple[Curve, dict[str, list[dict[str, Curve]]]]:
    """Recalls, and route label -> for each seed the curves by class; classes without boxes are left out.

    A class whose boxes a seed's test images do not have has no curve there: it counts in the mean of the other seeds.
    """
    recall: Curve = ()
    found: dict[str, list[dict[str, Curve]]] = {}
    for route in material.routes:
        for _, step in steps(route, "evaluate"):
            here = found.setdefault(route.label, [])
            content = material.files.precision_recall(step.run)
            if content is None:
                continue
            read = _curves(content)
            if read is None or (recall and read[0] != recall):
                material.files.gaps.append(f"{step.run}/{PR}: not the precision at the recalls of COCO")
                continue
            recall = read[0]  # of the first file: curves at other recalls could not be averaged with these
            here.append(read[1])
    return recall, found


def _curves(content: Mapping[str, object]) -> tuple[Curve, dict[str, Curve]] | None:
    """Recalls and the curve of each class that has boxes; None where the file holds something else."""
    recall, classes = _numbers(content.get("recall")), content.get("classes")
    if not recall or not isinstance(classes, dict):
        return None
    curves = {name: _numbers(curve.get("precision")) for name, curve in classes.items() if isinstance(curve, dict)}
    if not curves or any(len(curve) != len(recall) for curve in curves.values()):
        return None
    return recall, curves


def _numbers(values: object) -> Curve:
    """A list of numbers; empty if it is something else."""
    return tuple(values) if isinstance(values, list) and all(map(is_number, values)) else ()


def _mean_curve(classes: Mapping[str, Curve]) -> Curve:
    return tuple(map(fmean, zip(*classes.values(), strict=True)))


def _over_seeds(curves: Sequence[Curve]) -> Spread:
    return [summary for values in zip(*curves, strict=True) if (summary := summarize(values)) is not None]


def _drawn(routes: Sequence[RouteResults], spreads: Mapping[str, Spread]) -> Iterator[tuple[RouteResults, Spread, str]]:
    """The routes that have a curve, each with its dash: one a grid point."""
    places = list(dict.fromkeys(route.place for route in routes))
    for route in routes:
        if route.label in spreads:
            yield route, spreads[route.label], _DASHES[places.index(route.place) % len(_DASHES)]


def _traces(route: RouteResults, recall: Curve, spread: Spread, look: Look, dash: str) -> tuple[go.Scatter, go.Scatter]:
    """The band of one standard deviation, and the mean above it."""
    label = plain(route.label)
    low, high = ([min(1.0, max(0.0, s.mean + sign * (s.std or 0.0))) for s in spread] for sign in (-1, 1))
    band = go.Scatter(
        x=[*recall, *recall[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=translucent(look.colour, 0.15),
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=label,
        meta=plain(route.name),
        showlegend=False,
    )
    n, deviation = spread[0].n, "" if spread[0].std is None else " ± %{customdata:.3f}"
    mean = go.Scatter(
        x=recall,
        y=[s.mean for s in spread],
        **marked_line(look, dash=dash),
        name=label,
        legendgroup=label,
        meta=plain(route.name),
        hovertext=label,
        customdata=[s.std for s in spread],
        hovertemplate=f"%{{hovertext}}<br>recall %{{x:.2f}}: precision %{{y:.3f}}{deviation} (n = {n})<extra></extra>",
        showlegend=True,
    )
    return band, mean


def _set_axes(figure: go.Figure) -> None:
    axis = {"range": [0, 1.02], "zeroline": False, "showline": False, "ticks": ""}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)


def _headings() -> list[str]:
    return [heading for r in _RECALLS for heading in (f"precision at recall {r:g}", "sd")]


def _row(route: RouteResults, recall: Curve, spread: Spread) -> tuple[Value, ...]:
    # the nearest: COCO's recalls come out of a linspace, and need not be these numbers to the last bit
    at = [min(range(len(recall)), key=lambda i, r=wanted: abs(recall[i] - r)) for wanted in _RECALLS]  # type: ignore[misc]
    values = [value for i in at for value in (spread[i].mean, spread[i].std)]
    return (route.name, route.place, *values, spread[0].n)
