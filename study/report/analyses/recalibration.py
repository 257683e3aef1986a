"""Accuracy right after pruning, before and after BatchNorm's statistics are estimated again, and after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from study.report.material import Material
from study.report.plots import Exhibit, base_figure, plain
from study.report.routes import RouteResults, distinct_names, find_route, full_points, short_place
from study.report.tables import DIFFERENCE_COLUMNS, difference_values

PRUNED, RECALIBRATED, FINE_TUNE = "pruned_top1", "recalibrated_top1", "fine_tune"
COLOURS = ("#af8a44", "#6d4ec8", "#0d6d93")


def analyse(material: Material) -> Exhibit | None:
    """Three bars per grid point and pruning; None where nothing was pruned from trained weights."""
    measured = [route for route in material.routes if route.mean(PRUNED) is not None]
    if not measured:
        return None
    places, rows, values, primary = [], [], [], material.topic.primary.key
    for place, here in _by_pruning(measured):
        route = here[0]  # all saw the same pruned network
        tuned = next((r for r in here if r.name == FINE_TUNE), None)
        bars = (route.mean(PRUNED), route.mean(RECALIBRATED), None if tuned is None else tuned.mean(primary))
        places.append(place)
        values.append(bars)
        rows.append((places[-1], *bars, *difference_values(route.minus(route, RECALIBRATED, PRUNED))))
    names = ("right after pruning", "BatchNorm recalibrated", "after fine-tuning")
    figure = base_figure(material.topic.primary.name, "", height=130 + 60 * len(places))
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
        figure.add_bar(
            orientation="h",
            y=[plain(place) for place in places],
            x=[bars[i] for bars in values],
            name=name,
            marker={"color": colour},
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_yaxes(autorange="reversed", ticksuffix="  ", showgrid=False)
    caption = (
        "Mean over seeds of the test accuracy before any training after pruning. The table's difference is what "
        "recalibration adds, paired by seed, with its 95 % interval."
    )
    return Exhibit("Right after pruning", caption, figure, (), ("at", *names, *DIFFERENCE_COLUMNS), tuple(rows))


def _by_pruning(routes: Sequence[RouteResults]) -> Iterator[tuple[str, list[RouteResults]]]:
    """Grid points in words, and the routes there with the same last pruning; by name where there are several."""
    names = distinct_names(routes)
    for point in full_points(routes):
        found: dict[str, list[RouteResults]] = {}  # by the pruning, whatever its seed
        for route in (r for name in names if (r := find_route(routes, name, point)) is not None):
            runs = [step.run for step in route.rows[0].chain if step.kind == "prune"]
            found.setdefault(runs[-1].partition("/")[0], []).append(route)
        for here in found.values():
            of = f": {' + '.join(route.name for route in here)}" if len(found) > 1 else ""
            yield f"{short_place(point)}{of}", here
