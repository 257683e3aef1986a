"""Learning curves: training loss and validation accuracy of the routes' detectors and classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from study.plan.named import Look
from study.report.artifacts import RunFiles, User, users_of_runs
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, marked_line, plain, thin
from study.report.routes import RouteResults, joint_label
from study.report.rows import Step
from study.report.statistics.summary import is_number

_DASHES = ("solid", "dash", "dot", "dashdot")
_CAPTION = (
    "{measure} by training step; one line per run, long ones averaged in short windows. A run shared by several routes "
    "is drawn once, in the colour and with the markers of the first; the second training of a chain is dashed; seeds "
    "after the first are fainter. The table has what is drawn of each run."
)
MEASURES = {"loss": "training loss", "val_accuracy": "validation accuracy", "val_AP": "validation AP"}
_COLUMNS = ("routes", "stage", "seed", "last step", "first", "lowest", "highest", "last")


@dataclass(frozen=True)
class _Curve:
    """One run: who used it, and what is drawn of it."""

    used: list[User]
    last_step: int
    x: list[float]
    y: list[float]


def learning_curves(material: Material) -> list[Exhibit]:
    """An exhibit per kind of training and measure; of what no run recorded, only the loss has one."""
    exhibits = []
    for kind, noun in material.topic.curves.items():
        files = RunFiles(material.files.root)  # each kind of training says what of its own is absent
        users = users_of_runs(material.routes, kind)
        records = {run: files.metrics(run) for run in users}
        for key, measure in MEASURES.items():
            curves = _curves(users, records, key)
            if not curves and key != "loss":
                continue
            gaps = tuple(files.gaps) if key == "loss" else ()
            if not users:
                gaps = (f"No chain has a {kind} stage.",)
            name = measure[0].upper() + measure[1:]
            figure = _figure(curves, measure, material.looks) if curves else None
            rows = tuple(map(_row, curves))
            title, columns = f"{name} of the {noun}", _COLUMNS if rows else ()
            exhibits.append(Exhibit(title, _CAPTION.format(measure=name), figure, gaps, columns, rows))
    return exhibits


def _curves(
    users: Mapping[str, list[User]], records: Mapping[str, list[Mapping[str, float]]], key: str
) -> list[_Curve]:
    """Of the runs that recorded it."""
    found = []
    for run, used in users.items():
        points = [(r["step"], r[key]) for r in records[run] if is_number(r.get(key))]
        if points:
            found.append(_Curve(used, round(points[-1][0]), *thin([x for x, _ in points], [y for _, y in points])))
    return found


def _row(curve: _Curve) -> tuple[Value, ...]:
    (_, seed, step), y = curve.used[0], curve.y
    users = joint_label(route for route, _, _ in curve.used)
    return (users, step.step, seed, curve.last_step, y[0], min(y), max(y), y[-1])


def _figure(curves: Sequence[_Curve], measure: str, looks: Mapping[str, Look]) -> go.Figure:
    figure = base_figure("training step", measure, height=420)
    first_seed = min(seed for curve in curves for _, seed, _ in curve.used)
    for curve in curves:
        used, x, y = curve.used, curve.x, curve.y
        route, seed, step = used[0]
        dash = _DASHES[_order_in_chain(route, seed, step) % len(_DASHES)]
        names = list(dict.fromkeys(plain(other.label) for other, _, _ in used))
        hover = f"{plain(step.step)}, seed {seed}<br>{', '.join(names)}"
        figure.add_scatter(
            x=x,
            y=y,
            **marked_line(looks[route.name], dash=dash),
            meta=plain(route.name),
            opacity=1.0 if seed == first_seed else 0.4,
            name=f"{plain(step.step)}: {names[0]}{f' + {len(names) - 1} more' if names[1:] else ''}",
            legendgroup=plain(f"{step.step} {route.label}"),
            showlegend=seed == first_seed,
            hovertext=hover,
            hovertemplate="%{hovertext}<br>step %{x:.0f}: %{y:.3f}<extra></extra>",
        )
    return figure


def _order_in_chain(route: RouteResults, seed: int, step: Step) -> int:
    """How many stages of the same kind come before `step` in its chain."""
    chain = next(row.chain for row in route.rows if row.seed == seed)
    same_kind = [other.run for other in chain if other.kind == step.kind]
    return same_kind.index(step.run)
