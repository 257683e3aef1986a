"""What `prune-transfer sensitivity` prints and writes: the curves, and what they suggest for a config."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from pruning.errors import Refusal
from study.config.sections import Machine
from study.report.plots import base_figure, plain, write_page
from study.report.tables import csv_text
from study.report.units import MISSING, score, signed
from study.sensitivity.measure import Asked, Curve, Point, Subject, open_subject
from training.files import check_output_folder, whole_folder, write_text

TABLE, PAGE = "sensitivity.csv", "sensitivity.html"
_NAMES = frozenset({TABLE, PAGE, "plotly.min.js"})
_LEGEND_LINE, _LEAST_HEIGHT = 20, 480  # pixels


def sensitivity(
    run: Path, asked: Asked, machine: Machine, *, out: Path, tolerance: float, console: Console, force: bool = False
) -> dict[str, object]:
    """Measure the classifier of a finished run layer by layer, print a table, write it and a figure into `out`.

    Returns what there is to say in one line; `skip`: the layers that lose more than `tolerance` points of accuracy at
    the lowest ratio, `layers`: the highest ratio up to which each of the others loses no more. Nothing is written
    unless all went well; ValueError for what cannot be done. `force`: files in `out` are replaced.
    """
    if not tolerance >= 0:
        raise Refusal(f"--tolerance {tolerance:g}: the points of accuracy that a layer may lose are not negative")
    check_output_folder(out, force=force)
    subject = open_subject(run, asked, machine)
    layers, bar = subject.layers(), Console(stderr=True)
    curves = list(track(subject.curves(), "layers", len(layers), transient=True, console=bar))
    print_table(subject, curves, tolerance, console)
    with whole_folder(out, known=_NAMES) as folder:
        write_text(folder / TABLE, curves_csv(curves))
        write_page(draw(subject, curves), folder / PAGE)
    skip, ratios = suggested(curves, tolerance)
    return {
        "run": subject.run,
        "method": asked.method,
        "split": "val",
        "images": len(subject.images),
        "top1": subject.top1,
        "tolerance": tolerance,
        "skip": skip,
        "layers": ratios,
        "out": str(out),
    }


def curves_csv(curves: Sequence[Curve]) -> str:
    """A row for each layer and ratio, layers in the network's order."""
    names = ["layer", "channels", *(field.name for field in fields(Point))]
    return csv_text(names, [(curve.layer, curve.width, *astuple(point)) for curve in curves for point in curve.points])


def print_table(subject: Subject, curves: Sequence[Curve], tolerance: float, console: Console) -> None:
    """A row for each layer, that which loses most on average first, and what to do with it."""
    ratios = sorted(set(subject.asked.ratios))
    images = f"{len(subject.images):,} of {subject.n_validation:,} validation images"
    heading = f"top-1 {score(subject.top1)} % on {images}; points won or lost by the fraction removed of one layer"
    console.print(heading, highlight=False, soft_wrap=True)
    table = Table("layer")
    for name in ("channels", *(f"{ratio:g}" for ratio in ratios), "bears"):
        table.add_column(name, justify="right")
    for curve in sorted(curves, key=lambda one: -one.mean_lost):
        changes = {point.ratio: signed(point.top1 - subject.top1) for point in curve.points}
        bears = curve.bears(tolerance)
        cells = [changes.get(ratio, MISSING) for ratio in ratios]
        table.add_row(escape(curve.layer), str(curve.width), *cells, f"{bears:g}" if bears else "nothing")
    console.print(table)
    noise = max(point.standard_error for curve in curves for point in curve.points)
    for line in (
        f"bears: the highest ratio up to which it loses no more than {tolerance:g} points (--tolerance)",
        f"standard errors: up to {noise:.1f} points ({TABLE} has each); more --images make them smaller",
        *_advice(subject, curves, tolerance),
        "each layer was pruned alone and nothing retrained: together they lose more, and fine-tuning brings some back",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def suggested(curves: Sequence[Curve], tolerance: float) -> tuple[list[str], dict[str, float]]:
    """The layers that lose more than `tolerance` points at the lowest ratio; what each of the others bears."""
    bears = {curve.layer: curve.bears(tolerance) for curve in curves}
    return [layer for layer, ratio in bears.items() if not ratio], {layer: r for layer, r in bears.items() if r}


def _advice(subject: Subject, curves: Sequence[Curve], tolerance: float) -> Iterator[str]:
    """What to write into a config, and which layers are not in the table."""
    skip, ratios = suggested(curves, tolerance)
    if not ratios:
        yield "every layer loses more than that at the lowest of --ratios: give lower ones"
    else:
        yield f"to leave whole: 'prune.skip=[{', '.join(skip)}]'" if skip else "no layer has to be left whole"
        layers = ", ".join(f"{layer}: {ratio:g}" for layer, ratio in ratios.items())
        yield f"to go as far as each alone bears: 'prune.layers={{{layers}}}'"
    measured = {curve.layer for curve in curves}
    narrow = [group.name for group in subject.groups() if group.name not in measured]
    if narrow:
        yield f"too narrow for any of these ratios: {', '.join(narrow)}"


def draw(subject: Subject, curves: Sequence[Curve]) -> go.Figure:
    """Accuracy by ratio, a line for each layer; its colour says how deep the layer is in the network."""
    figure = base_figure("fraction removed of the layer's channels", "top-1 on validation images (%)")
    depths = [place / max(1, len(curves) - 1) for place in range(len(curves))]
    for curve, colour in zip(curves, sample_colorscale("Viridis", depths), strict=True):
        # ratio 0 is the network as it is, with which every line begins
        points = [point for point in curve.points if point.ratio > 0]
        name = plain(curve.layer)
        figure.add_scatter(
            x=[0.0, *(point.ratio for point in points)],
            y=[subject.top1, *(point.top1 for point in points)],
            error_y={"array": [0.0, *(point.standard_error for point in points)], "thickness": 1},
            mode="lines+markers",
            line={"color": colour},
            name=name,
            hovertext=[name, *(f"{name}: {point.kept} of {curve.width} channels left" for point in points)],
            hoverinfo="text+x+y",
        )
    height = max(_LEAST_HEIGHT, _LEGEND_LINE * len(curves) + 100)
    beside = {"orientation": "v", "yref": "paper", "y": 1, "yanchor": "top", "x": 1.02}
    return figure.update_layout(height=height, legend=beside, paper_bgcolor="white", plot_bgcolor="white")
