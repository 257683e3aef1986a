"""The tables of the report as rows of text, and comparison.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.plan.named import DENSE
from study.report import units
from study.report.claims.claim import CLAIM_COLUMNS
from study.report.differences import Differences
from study.report.plots import Value
from study.report.routes import RouteResults, distinct_names, find_route, point_fields
from study.report.rows import Comparison
from study.report.statistics.families import POOLED, Difference
from study.report.statistics.summary import mean_of
from study.report.topic import CHOOSING, Cost, Measure, Topic, topic_of

_WORDS = ("precision", "pretraining")  # columns that are no numbers
_FORMS = {"count": units.si, "seconds": units.seconds, "milliseconds": units.milliseconds, "bytes": units.memory}


@dataclass(frozen=True)
class Cell:
    """One table cell: the number, smaller lines below it, and a mark ("noise" | "above" | "below" | "")."""

    text: str
    notes: tuple[str, ...] = ()
    mark: str = ""

    @property
    def in_one_line(self) -> str:
        """The number and its notes."""
        return f"{self.text} {', '.join(self.notes)}".strip()


@dataclass(frozen=True)
class Line:
    """One line of the main table: the route, its grid values, its cells under `MainTable.columns`."""

    route: RouteResults
    paper: str
    explanation: str
    point: tuple[str, ...]
    cells: tuple[Cell, ...]


DIFFERENCE_NOTE = (
    "difference of the means with the seeds as blocks, and its 95 % interval by the residual variance of all routes, or"
    " a route's own where that is larger (at few seeds, the reference's weighs more);"
    " the intervals of one column at one grid point hold together. “Shown”: the interval leaves out 0; else,"
    " in brackets, the difference that would have been shown with a probability of 80 %."
)


@dataclass(frozen=True)
class MainTable:
    """The main table: grid columns, measure columns, one line per route and grid point; `scores`: its qualities."""

    scores: tuple[str, ...]
    grid: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def comparison_csv(comparison: Comparison) -> str:
    """comparison.csv: one row per pipeline, grid point and seed."""
    fields, columns = point_fields(comparison), topic_of(comparison).csv
    keys = [measure.key for measure in topic_of(comparison).also]
    columns = (*columns, *(key for key in keys if any(row.number(key) is not None for row in comparison.rows)))
    if any(row.pretraining for row in comparison.rows):
        columns = (*columns, "pretraining")
    if any(row.number(CHOOSING.key) is not None for row in comparison.rows):
        columns = (*columns, CHOOSING.key)
    rows = (
        (
            row.pipeline,
            *(csv_value(row.point.get(key)) for key in fields),
            row.seed,
            *(getattr(row, column) if column in _WORDS else row.number(column) for column in columns),
        )
        for row in comparison.rows
    )
    return csv_text(["pipeline", *fields, "seed", *columns], rows)


def claims_csv(comparison: Comparison) -> str:
    """claims.csv: one row per claim."""
    return csv_text(CLAIM_COLUMNS, ([getattr(claim, name) for name in CLAIM_COLUMNS] for claim in comparison.claims))


def csv_value(value: object) -> object:
    """A grid value as one CSV field: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def references_of(routes: Sequence[RouteResults], topic: Topic) -> list[str]:
    """The pipelines that the main table gives differences to."""
    names = distinct_names(routes)
    return [name for name in topic.references if name in names and len(names) > 1]


def difference_heading(topic: Topic, reference: str) -> str:
    """Of the column with the differences from a route."""
    return f"Δ {topic.primary.name} to {reference}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV with all digits; a missing value is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def main_table(
    routes: Sequence[RouteResults],
    fields: Sequence[str],
    topic: Topic,
    differences: Differences,
) -> MainTable:
    """Quality, differences and costs of every route; columns that would be empty are left out."""
    references = references_of(routes, topic)
    costs = [cost for cost in topic.costs if any(route.mean(cost.key) is not None for route in routes)]
    also, after = (_measured(some, routes) for some in (topic.also, topic.after_pruning))
    scores = (*topic.measures, *also)
    columns = (
        *(measure.name for measure in scores),
        *(difference_heading(topic, name) for name in references),
        *(measure.name for measure in after),
        *(cost.name for cost in costs),
    )
    lines = []
    for route in routes:
        note = topic.pipelines.get(route.name)
        cells = (
            *(_quality(route, measure, topic.decimals) for measure in topic.measures),
            *(_if_measured(route, measure, topic.decimals) for measure in also),
            *(_difference(route, find_route(routes, name, route.point), topic, differences) for name in references),
            *(_if_measured(route, measure, topic.decimals) for measure in after),
            *(_cost(route, find_route(routes, DENSE, route.point), cost) for cost in costs),
        )
        point = tuple(str(route.point.get(key, units.MISSING)) for key in fields)
        lines.append(Line(route, note.paper if note else "", note.explanation if note else "", point, cells))
    return MainTable(tuple(measure.name for measure in scores), tuple(fields), columns, tuple(lines))


def _measured(measures: Sequence[Measure], routes: Sequence[RouteResults]) -> list[Measure]:
    return [measure for measure in measures if any(route.mean(measure.key) is not None for route in routes)]


def _quality(route: RouteResults, measure: Measure, decimals: int) -> Cell:
    summary = route.summary(measure.key)
    if summary is None:
        return Cell(units.MISSING, ("no result",))
    spread = "" if summary.std is None else f"± {units.score(summary.std, decimals)} "
    return Cell(units.score(summary.mean, decimals), (f"{spread}(n = {summary.n})",))


def _if_measured(route: RouteResults, measure: Measure, decimals: int) -> Cell:
    """As `_quality`, of what a route may lack without a gap."""
    return Cell(units.MISSING) if route.summary(measure.key) is None else _quality(route, measure, decimals)


def _difference(route: RouteResults, reference: RouteResults | None, topic: Topic, differences: Differences) -> Cell:
    if reference is route:
        return Cell(units.MISSING)
    difference = None if reference is None else differences.to(route, reference.name)
    if difference is None:
        return Cell(units.MISSING, ("no common seed" if reference else "not at this point",))
    notes: tuple[str, ...] = (units.interval(difference, topic.decimals), units.shown(difference, topic.decimals))
    if difference.n < len(route.rows):  # the pairing rests on fewer seeds than the mean beside it
        notes += (f"n = {difference.n}",)
    if difference.method != POOLED:
        notes += (difference.method,)
    direction = "above" if difference.estimate > 0 else "below"
    mark = direction if difference.decidable and difference.shown else "noise"
    return Cell(units.signed(difference.estimate, topic.decimals), notes, mark)


def _cost(route: RouteResults, dense: RouteResults | None, cost: Cost) -> Cell:
    value = route.mean(cost.key)
    other = dense.mean(cost.key) if cost.relative and dense is not None and dense is not route else None
    share = units.percent(value, other)
    notes: tuple[str, ...] = (share,) if share else ()
    if cost.key == "train_macs" and route.pretraining:
        notes += (f"pretraining {route.pretraining}",)
    spread = route.latency_spread if cost.form == "milliseconds" else None
    if spread is not None:
        low, high, n = spread
        notes += (f"{low:.1f} to {high:.1f} (n = {n})",)
    return Cell(_FORMS[cost.form](value), notes)


DIFFERENCE_COLUMNS = ("difference", "95 % from", "95 % to", "n")


def difference_values(difference: Difference | None) -> tuple[Value, Value, Value, Value]:
    """Mean, both ends of the 95 % interval, and n of a paired difference, for a table."""
    if difference is None:
        return None, None, None, 0
    ends = (difference.low, difference.high) if difference.decidable else (None, None)
    return difference.estimate, *ends, difference.n


def per_class(routes: Sequence[RouteResults]) -> dict[str, list[float | None]]:
    """Class name -> its AP on each route, mean over seeds; empty where the task has no classes."""
    tables = [[row.measured.per_class or {} for row in route.rows] for route in routes]
    found: dict[str, list[float | None]] = {}
    for name in dict.fromkeys(name for here in tables for table in here for name in table):
        found[name] = [mean_of(table.get(name) for table in here) for here in tables]
    return found
