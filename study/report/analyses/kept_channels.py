"""Which share of each layer's channels every pruning stage kept, and of each stage's."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from statistics import fmean

from pruning.design.pattern import stages_of
from pruning.plan import PruningPlan
from study.plan.named import OTHER_LOOKS, Look
from study.report.artifacts import users_of_runs
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, hatched, plain
from study.report.routes import joint_label
from study.report.statistics.summary import summarize

_CAPTION = (
    "Share of channels left in every layer that the plan names, mean over seeds. Layers not shown "
    "keep all of theirs. Routes that used the same plan share one bar."
)


def analyse(material: Material) -> Exhibit | None:
    """Bars of kept share per layer, one series per set of routes with the same plans; None if nothing was narrowed."""
    series = _by_users(material)
    title, gaps = "Kept channels by layer", tuple(material.files.gaps)
    if not series:
        return Exhibit(title, "", None, gaps) if gaps else None
    figure = base_figure("layer, in the order of the plan", "kept channels (% of dense)", height=430)
    figure.update_xaxes(showgrid=False)
    rows: list[tuple[Value, ...]] = []
    taken: set[Look] = set()
    others = cycle(OTHER_LOOKS)  # for the second series of a route: the same at another grid point
    for users, plans in series.items():
        own = material.looks[users[1]]
        look = next(others) if own in taken else own
        taken.add(look)
        layers = list(dict.fromkeys(layer for plan in plans for layer in plan.shares))
        name = plain(users[0])
        values = [100 * fmean(plan.shares[layer] for plan in plans if layer in plan.shares) for layer in layers]
        figure.add_bar(
            x=[plain(layer) for layer in layers],
            y=values,
            name=name,
            marker=hatched(look),
            hovertext=[f"{plain(x)}: {y:.0f} % kept<br>{name}" for x, y in zip(layers, values, strict=True)],
            hoverinfo="text",
        )
        rows += _rows(users[0], plans)
    figure.update_layout(barmode="group", bargap=0.3, legend={"y": -0.42})
    figure.update_yaxes(range=[0, 102])
    columns = ("routes", "part", "kept (%)", "standard deviation", "n")
    return Exhibit(title, _CAPTION, figure, gaps, columns, tuple(rows))


class _Kept:
    """A plan's kept shares: `shares` by layer, `by_stage` with the stage in words (empty where not known)."""

    def __init__(self, plan: PruningPlan, areas: Mapping[str, int]):
        counts = plan.kept_counts()
        self.shares = {_layer(name): kept / plan.widths[name] for name, kept in counts.items()}
        self.by_stage: dict[str, float] = {}
        known = [name for name in counts if name in areas]  # a classifier's: an FPN has no stages
        stages = stages_of(known, areas)
        for stage in sorted(set(stages.values())):
            members = [name for name in known if stages[name] == stage]
            words = f"stage {stage + 1} (maps of {areas[members[0]]} pixels)"
            self.by_stage[words] = sum(counts[m] for m in members) / sum(plan.widths[m] for m in members)


_Users = tuple[str, str]  # what the routes with the same plans are called together, and the first of them


def _by_users(material: Material) -> dict[_Users, list[_Kept]]:
    """Users -> their plans, one per seed."""
    series: dict[_Users, list[_Kept]] = {}
    for run, used in users_of_runs(material.routes, "prune", "prune_detector").items():
        plan = material.files.plan(run)
        if plan is not None and plan.keep:
            users = joint_label(route for route, _, _ in used)
            series.setdefault((users, used[0][0].name), []).append(_Kept(plan, material.areas(run)))
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


def _layer(name: str) -> str:
    """The classifier's name of a layer: a detector's backbone holds the classifier as its `body`."""
    return name.rpartition("body.")[2]
