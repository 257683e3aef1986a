"""Which share of each layer's channels every pruning stage kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.report.artifacts import RunFiles, users_of_runs
from study.report.plots import Panel, base_figure, plain
from study.report.routes import Route
from study.stats import summarize


def kept_channels(routes: Sequence[Route], root: RunFiles, colours: Mapping[str, str]) -> Panel:
    """Bars of kept share per layer, one series per set of routes with the same plans, mean over seeds."""
    files = RunFiles(root.root)
    series = _by_users(routes, files)
    title = "Kept channels by layer"
    if not series:
        gaps = tuple(files.gaps) or ("No chain has a pruning stage.",)
        return Panel(title, "", None, gaps)
    figure = base_figure("layer, in the order of the plan", "kept channels (% of dense)", height=430)
    figure.update_xaxes(showgrid=False)
    for users, plans in series.items():
        layers = list(dict.fromkeys(layer for plan in plans for layer in plan))
        shares = [summarize(plan.get(layer) for plan in plans) for layer in layers]
        name = " + ".join(plain(label) for label, _ in users)
        values = [100 * share.mean for share in shares if share is not None]
        figure.add_bar(
            x=[plain(layer) for layer in layers],
            y=values,
            name=name,
            marker={"color": colours[users[0][1]]},
            hovertext=[f"{plain(x)}: {y:.0f} % kept<br>{name}" for x, y in zip(layers, values, strict=True)],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.3, legend={"y": -0.42})
    figure.update_yaxes(range=[0, 102])
    caption = (
        "Share of channels left in every layer that the plan names, mean over seeds. Layers not shown "
        "keep all of theirs. Routes that used the same plan share one bar."
    )
    return Panel(title, caption, figure, tuple(files.gaps))


_Users = tuple[tuple[str, str], ...]  # (route label, pipeline name) of every route that used the same plans


def _by_users(routes: Sequence[Route], files: RunFiles) -> dict[_Users, list[dict[str, float]]]:
    """Users -> their plans, one per seed."""
    series: dict[_Users, list[dict[str, float]]] = {}
    for run, used in users_of_runs(routes, "prune", "prune_detector").items():
        plan = {_layer(name): share for name, share in files.kept_shares(run).items()}
        if plan:
            users = tuple(dict.fromkeys((route.label, route.name) for route, _, _ in used))
            series.setdefault(users, []).append(plan)
    return series


def _layer(name: str) -> str:
    """The classifier's name of a layer: a detector's backbone holds the classifier as its `body`."""
    return name.rpartition("body.")[2]
