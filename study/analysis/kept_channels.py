"""Which share of each layer's channels every pruning stage kept, and of each stage's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.pattern import stages_of
from pruning.plan import PruningPlan
from study.analysis.material import Material
from study.report.artifacts import users_of_runs
from study.report.plots import Panel, Value, base_figure, plain
from study.stats import summarize

_CAPTION = (
    "Share of channels left in every layer that the plan names, mean over seeds. Layers not shown "
    "keep all of theirs. Routes that used the same plan share one bar."
)


def analyse(comparison: Mapping[str, Any], runs: Path) -> Panel | None:
    """Bars of kept share per layer, one series per set of routes with the same plans; None if nothing was narrowed."""
    material = Material.of(comparison, runs)
    series = _by_users(material)
    title, gaps = "Kept channels by layer", tuple(material.files.gaps)
    if not series:
        return Panel(title, "", None, gaps) if gaps else None
    figure = base_figure("layer, in the order of the plan", "kept channels (% of dense)", height=430)
    figure.update_xaxes(showgrid=False)
    rows: list[tuple[Value, ...]] = []
    for users, plans in series.items():
        layers = list(dict.fromkeys(layer for plan in plans for layer in plan.shares))
        shares = {layer: _mean([plan.shares.get(layer) for plan in plans]) for layer in layers}
        name = " + ".join(plain(label) for label, _ in users)
        values = [100 * share for share in shares.values()]
        figure.add_bar(
            x=[plain(layer) for layer in layers],
            y=values,
            name=name,
            marker={"color": material.colours[users[0][1]]},
            hovertext=[f"{plain(x)}: {y:.0f} % kept<br>{name}" for x, y in zip(layers, values, strict=True)],
            hoverinfo="text",
        )
        rows += _rows(" + ".join(label for label, _ in users), plans)
    figure.update_layout(barmode="group", bargap=0.3, legend={"y": -0.42})
    figure.update_yaxes(range=[0, 102])
    columns = ("routes", "part", "kept (%)", "standard deviation", "n")
    return Panel(title, _CAPTION, figure, gaps, columns, tuple(rows))


class _Kept:
    """A plan's kept shares: `shares` by layer, `by_stage` with the stage in words (empty where not known)."""

    def __init__(self, plan: PruningPlan, areas: Mapping[str, int]):
        counts = plan.kept_counts()
        self.shares = {_layer(name): kept / plan.widths[name] for name, kept in counts.items()}
        self.by_stage: dict[str, float] = {}
        if not counts.keys() <= areas.keys():
            return
        stages = stages_of(counts, areas)
        for stage in sorted(set(stages.values())):
            members = [name for name in counts if stages[name] == stage]
            words = f"stage {stage + 1} (maps of {areas[members[0]]} pixels)"
            self.by_stage[words] = sum(counts[m] for m in members) / sum(plan.widths[m] for m in members)


_Users = tuple[tuple[str, str], ...]  # (route label, pipeline name) of every route that used the same plans


def _by_users(material: Material) -> dict[_Users, list[_Kept]]:
    """Users -> their plans, one per seed."""
    series: dict[_Users, list[_Kept]] = {}
    for run, used in users_of_runs(material.routes, "prune", "prune_detector").items():
        plan = material.files.plan(run)
        if plan is not None and plan.keep:
            users = tuple(dict.fromkeys((route.label, route.name) for route, _, _ in used))
            series.setdefault(users, []).append(_Kept(plan, material.areas(run)))
    return series


def _rows(users: str, plans: list[_Kept]) -> list[tuple[Value, ...]]:
    """Stages, where they are known, before layers."""
    found: list[tuple[Value, ...]] = []
    for tables in ([plan.by_stage for plan in plans], [plan.shares for plan in plans]):
        for part in dict.fromkeys(part for table in tables for part in table):
            summary = summarize(100 * table[part] for table in tables if part in table)
            if summary is not None:
                found.append((users, part, summary.mean, summary.std, summary.n))
    return found


def _mean(values: list[float | None]) -> float:
    summary = summarize(values)
    return summary.mean if summary is not None else 0.0


def _layer(name: str) -> str:
    """The classifier's name of a layer: a detector's backbone holds the classifier as its `body`."""
    return name.rpartition("body.")[2]
