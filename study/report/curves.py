"""Learning curves: training loss and validation accuracy of the routes' detectors and classifiers."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from study.plan.named import Look
from study.report.artifacts import RunFiles, User, users_of_runs
from study.report.material import Material
from study.report.plots import Exhibit, base_figure, marked_line, plain, thin
from study.report.routes import RouteResults
from study.report.rows import Step
from study.report.statistics.summary import is_number

_DASHES = ("solid", "dash", "dot", "dashdot")
_CAPTION = (
    "{measure} by training step; one line per run, long ones averaged in short windows. A run shared by several routes "
    "is drawn once, in the colour and with the markers of the first; the second training of a chain is dashed; seeds "
    "after the first are fainter."
)
MEASURES = {"loss": "training loss", "val_accuracy": "validation accuracy", "val_AP": "validation AP"}


def learning_curves(material: Material) -> list[Exhibit]:
    """An exhibit per kind of training and measure; of what no run recorded, only the loss has one."""
    exhibits = []
    for kind, noun in material.topic.curves.items():
        files = RunFiles(material.files.root)  # each kind of training says what of its own is absent
        users = users_of_runs(material.routes, kind)
        records = {run: files.metrics(run) for run in users}
        for key, measure in MEASURES.items():
            figure = _figure(users, records, key, measure, material.looks)
            if figure is None and key != "loss":
                continue
            gaps = tuple(files.gaps) if key == "loss" else ()
            if not users:
                gaps = (f"No chain has a {kind} stage.",)
            name = measure[0].upper() + measure[1:]
            exhibits.append(Exhibit(f"{name} of the {noun}", _CAPTION.format(measure=name), figure, gaps))
    return exhibits


def _figure(
    users: Mapping[str, list[User]],
    records: Mapping[str, list[Mapping[str, float]]],
    key: str,
    measure: str,
    looks: Mapping[str, Look],
) -> go.Figure | None:
    figure = base_figure("training step", measure, height=420)
    first_seed = min((seed for used in users.values() for _, seed, _ in used), default=0)
    for run, used in users.items():
        points = [(r["step"], r[key]) for r in records[run] if is_number(r.get(key))]
        if not points:
            continue
        route, seed, step = used[0]
        x, y = thin([p[0] for p in points], [p[1] for p in points])
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
            hovertext=[f"{hover}<br>step {a:.0f}: {b:.3f}" for a, b in zip(x, y, strict=True)],
            hoverinfo="text",
        )
    return figure if figure.data else None


def _order_in_chain(route: RouteResults, seed: int, step: Step) -> int:
    """How many stages of the same kind come before `step` in its chain."""
    chain = next(row.chain for row in route.rows if row.seed == seed)
    same_kind = [other.run for other in chain if other.kind == step.kind]
    return same_kind.index(step.run)
