"""How the convolution weights of the final networks are distributed, regime by regime.

Liu et al., ICLR 2019, appendix: fine-tuned networks keep the gap at zero that pruning left, networks trained from
scratch have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from study.plan.named import Look
from study.report.artifacts import RunFiles
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, marked_line, plain
from study.report.routes import RouteResults, describe_point, distinct_names, find_route, full_points
from study.report.rows import Point

BINS = 61
_SPAN = 0.995  # share of the weights that the horizontal axis shows
_FACETS = 6
_PANEL = 300  # pixels
_COLUMNS = ("at", "route", "seed", "weights", "mean |w|", "standard deviation", "share below a tenth of it (%)")

_Weights = Sequence[tuple[RouteResults, Tensor]]


def analyse(material: Material) -> Exhibit | None:
    """One histogram per grid point, the routes laid over each other, first seed; None without weights."""
    if "train_detector" in material.topic.curves:
        return None  # a detector's backbone is one part of a network that was trained as a whole
    points = full_points(material.routes)
    found = {describe_point(point): _weights_at(material, point) for point in points[:_FACETS]}
    found = {place: weights for place, weights in found.items() if weights}
    title, gaps = "Distribution of the convolution weights", list(material.files.gaps)
    if not found:
        return Exhibit(title, "", None, tuple(gaps)) if gaps else None
    rows = tuple(row for place, weights in found.items() for row in _rows(place, weights))
    caption = (
        "Weights of all convolutions of the last network of each route, first seed; weights that a mask removed are "
        f"left out. The axis shows {_SPAN:.1%} of the weights; areas are equal."
    )
    if len(points) > _FACETS:
        caption += f" The first {_FACETS} of {len(points)} grid points."
    return Exhibit(title, caption, _figure(found, material.looks), tuple(gaps), _COLUMNS, rows)


def _weights_at(material: Material, point: Point) -> _Weights:
    """The weights of the last network, flat, of each route at a grid point."""
    found = []
    for name in distinct_names(material.routes):
        route = find_route(material.routes, name, point)
        if route is not None:
            run = _last_run(route)
            weights = conv_weights(material.files, run) if run else None
            if weights is not None:
                found.append((route, weights))
    return found


def conv_weights(files: RunFiles, run: str) -> Tensor | None:
    """All convolution weights of a run, flat, without those that its masks removed; None where it has none."""
    masks: Mapping[str, Tensor] = files.masks(run) or {}
    parts = []
    for name, tensor in files.weights(run).items():
        if tensor.dim() == 4:  # (out, in, kh, kw): only a convolution's weight has four axes
            parts.append(tensor[masks[name]] if name in masks else tensor.flatten())
    return torch.cat(parts).float() if parts else None


def _last_run(route: RouteResults) -> str | None:
    """The run of the route's first seed that left its last classifier."""
    runs = [step.run for step in route.rows[0].chain if step.kind in ("train_classifier", "take_weights", "prune")]
    return runs[-1] if runs else None


def _figure(found: Mapping[str, _Weights], looks: Mapping[str, Look]) -> go.Figure:
    titles = [plain(place) for place in found]
    layout = base_figure("", "", height=120 + _PANEL * len(found)).layout
    figure = make_subplots(len(found), 1, subplot_titles=titles, vertical_spacing=0.25 / len(found))
    figure.update_layout(layout)
    seen: set[str] = set()
    for row, weights in enumerate(found.values(), start=1):
        densities = _densities([w for _, w in weights])
        for (route, _), (centres, density) in zip(weights, densities, strict=True):
            line = go.Scatter(
                x=centres,
                y=density,
                **marked_line(looks[route.name], shape="hvh"),
                meta=plain(route.name),
                name=plain(route.name),
                legendgroup=plain(route.name),
                showlegend=route.name not in seen,
            )
            seen.add(route.name)
            figure.add_trace(line, row=row, col=1)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title_text="weight", zeroline=False, row=len(found), col=1)
    figure.update_yaxes(title_text="density", zeroline=False)
    return figure


def _densities(weights: Sequence[Tensor]) -> list[tuple[list[float], list[float]]]:
    """Centres and densities of BINS bins, the same for all: an odd number, so that one is centred on zero."""
    # not torch.quantile, which takes at most 2^24 numbers: a ResNet-50 has more weights
    reach = max(float(w.abs().sort().values[int(_SPAN * (len(w) - 1))]) for w in weights) or 1.0
    edges = torch.linspace(-reach, reach, BINS + 1)
    centres = [float(c) for c in (edges[:-1] + edges[1:]) / 2]
    width = 2 * reach / BINS
    counts = [torch.histc(w, BINS, -reach, reach) / (len(w) * width) for w in weights]
    return [(centres, [round(float(c), 5) for c in count]) for count in counts]


def _rows(place: str, weights: _Weights) -> list[tuple[Value, ...]]:
    found: list[tuple[Value, ...]] = []
    for route, w in weights:
        deviation = float(w.std()) if len(w) > 1 else 0.0
        mean = float(w.abs().mean())
        found.append((place, route.name, route.rows[0].seed, len(w), mean, deviation, share_near_zero(w)))
    return found


def share_near_zero(weights: Tensor) -> float:
    """How many of the weights are below a tenth of their standard deviation, in percent."""
    deviation = float(weights.std()) if len(weights) > 1 else 0.0
    return 100 * float((weights.abs() < 0.1 * deviation).double().mean())
