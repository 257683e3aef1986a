"""The tables of the report as rows of text, and comparison.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.report import units
from study.report.routes import DENSE, NOTES, REFERENCES, Route, distinct_names, find_route
from study.stats import summarize

_MEASURES = (
    "AP",
    "AP50",
    "AP75",
    "backbone_params",
    "backbone_macs",
    "detector_params",
    "detector_macs",
    "latency_ms",
    "train_macs",
    "seconds",
)


@dataclass(frozen=True)
class Cell:
    """One table cell: the number, smaller lines below it, and a mark ("noise" | "above" | "below" | "")."""

    text: str
    notes: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the main table: the route, its grid values, its cells under `MainTable.columns`."""

    route: Route
    paper: str
    explanation: str
    point: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MainTable:
    """The main table: grid columns, measure columns, one line per route and grid point."""

    grid: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def comparison_csv(comparison: Mapping[str, Any]) -> str:
    """comparison.csv: one row per pipeline, grid point and seed; a missing value is an empty field."""
    grid = list(comparison.get("grid") or {})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["pipeline", *grid, "seed", *_MEASURES])
    for row in comparison["rows"]:
        point = row.get("point") or {}
        values = [row.get(measure) for measure in _MEASURES]
        writer.writerow([row["pipeline"], *(_plain(point.get(key)) for key in grid), row["seed"], *values])
    return out.getvalue()


def _plain(value: object) -> object:
    """A grid value as one CSV field: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def main_table(routes: Sequence[Route], grid: Sequence[str]) -> MainTable:
    """Quality, paired differences and costs of every route; absent reference routes have no column."""
    names = distinct_names(routes)
    references = [name for name in REFERENCES if name in names and len(names) > 1]
    columns = (
        "AP",
        "AP50",
        "AP75",
        *(f"Δ AP to {name}" for name in references),
        "backbone MACs",
        "backbone params",
        "detector MACs",
        "latency",
        "training MACs",
        "time",
    )
    return MainTable(tuple(grid), columns, tuple(_line(route, routes, references, grid) for route in routes))


def _line(route: Route, routes: Sequence[Route], references: Sequence[str], grid: Sequence[str]) -> Line:
    note = NOTES.get(route.name)
    dense = find_route(routes, DENSE, route.point)
    quality = (_quality(route, "AP"), _quality(route, "AP50"), _quality(route, "AP75"))
    differences = (_difference(route, find_route(routes, name, route.point)) for name in references)
    costs = (
        _share(route, dense, "backbone_macs"),
        _share(route, dense, "backbone_params"),
        _share(route, dense, "detector_macs"),
        Cell(units.milliseconds(route.mean("latency_ms"))),
        _share(route, dense, "train_macs"),
        Cell(units.seconds(route.mean("seconds"))),
    )
    return Line(
        route,
        note.paper if note else "",
        note.explanation if note else "",
        tuple(str(route.point.get(key, units.MISSING)) for key in grid),
        (*quality, *differences, *costs),
    )


def _quality(route: Route, key: str) -> Cell:
    summary = route.summary(key)
    if summary is None:
        return Cell(units.MISSING, ("no result",))
    spread = "" if summary.std is None else f"± {units.ap(summary.std)} "
    return Cell(units.ap(summary.mean), (f"{spread}(n = {summary.n})",))


def _difference(route: Route, reference: Route | None) -> Cell:
    if reference is route:
        return Cell(units.MISSING)
    difference = None if reference is None else route.minus(reference)
    if difference is None:
        return Cell(units.MISSING, ("no common seed",))
    notes: tuple[str, ...] = (units.interval(difference), units.noise(difference))
    if difference.n < len(route.rows):  # the pairing rests on fewer seeds than the mean beside it
        notes += (f"n = {difference.n}",)
    beyond = "above" if difference.mean > 0 else "below"
    return Cell(units.signed(difference.mean), notes, beyond if difference.within_noise is False else "noise")


def _share(route: Route, dense: Route | None, key: str) -> Cell:
    value = route.mean(key)
    share = units.percent(value, dense.mean(key)) if dense is not None and dense is not route else ""
    return Cell(units.si(value), (share,) if share else ())


def per_class(routes: Sequence[Route]) -> tuple[list[str], dict[str, list[float | None]]]:
    """Class names in order, and route label -> mean AP of each class over seeds."""
    tables = [row.get("per_class") or {} for route in routes for row in route.rows]
    classes = list(dict.fromkeys(name for table in tables for name in table))
    means = {}
    for route in routes:
        here = [row.get("per_class") or {} for row in route.rows]
        by_class = [summarize(table.get(name) for table in here) for name in classes]
        means[route.label] = [None if s is None else s.mean for s in by_class]
    return classes, means
