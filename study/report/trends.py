"""The score along a numeric field of the grid: what a report of a grid leads with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from study.report import units
from study.report.figures import against_field
from study.report.material import Material
from study.report.plots import Exhibit, Value, plain
from study.report.routes import RouteResults, is_numeric_field, short_place
from study.report.statistics.families import Difference, Family, all_pairs
from study.report.statistics.summary import is_number
from study.report.tables import DIFFERENCE_COLUMNS, difference_values
from study.report.topic import Topic

_FEWEST = 2  # values that make a trend
_DASHES = ("dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Line:
    """One pipeline along the field, all other grid values equal; `routes` by the field's value, ascending."""

    name: str
    rest: str  # the other grid values in words
    routes: Mapping[float, RouteResults]
    family: Family  # all pairs of values, by the text of the values

    @property
    def label(self) -> str:
        """The pipeline and the other grid values."""
        return f"{self.name}, {self.rest}" if self.rest else self.name

    def difference(self, value: float, other: float) -> Difference | None:
        """The score at one value minus that at another."""
        return self.family.between(str(value), str(other))


@dataclass(frozen=True)
class Trend:
    """A field of the grid: a sentence for each line, and the figure with its table.

    `bars`: half-lengths of the figure's error bars by the id of a route.
    """

    field: str
    sentences: tuple[str, ...]
    exhibit: Exhibit
    bars: Mapping[int, float]


def trends(material: Material, fields: Sequence[str]) -> list[Trend]:
    """The fields that have at least two numbers, in their order."""
    found = []
    for field in fields:
        lines = _lines(material, field) if is_numeric_field(material.routes, field) else []
        if lines:
            sentences = tuple(_sentence(line, field, material.topic) for line in lines)
            bars = {id(route): _bar(line) for line in lines for route in line.routes.values()}
            found.append(Trend(field, sentences, _drawn(material, field, lines, bars), bars))
    return found


def _lines(material: Material, field: str) -> list[Line]:
    key = material.topic.primary.key
    groups: dict[tuple[str, str], dict[float, RouteResults]] = {}
    for route in material.routes:
        value = route.point.get(field)
        if is_number(value) and route.mean(key) is not None:
            others = {name: value for name, value in route.point.items() if name != field}
            place = (route.name, short_place(others) if others else "")
            groups.setdefault(place, {})[float(value)] = route
    found = []
    for (name, rest), here in groups.items():
        if len(here) >= _FEWEST:
            ordered = dict(sorted(here.items()))
            table = {str(value): route.by_seed(key) for value, route in ordered.items()}
            found.append(Line(name, rest, ordered, all_pairs(table)))
    return found


def _sentence(line: Line, field: str, topic: Topic) -> str:
    """Where the line is highest and lowest, whether that is shown, and what the highest is not told apart from."""
    # `or` for the type checker alone: `_lines` takes routes with a result
    means = {value: route.mean(topic.primary.key) or 0.0 for value, route in line.routes.items()}
    top, bottom = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    high, low = (f"{value:g} ({units.score(means[value], topic.decimals)})" for value in (top, bottom))
    ends = f"{topic.primary.name} is highest at {field} = {high} and lowest at {low}"
    fall = line.difference(top, bottom)
    if fall is None or not fall.decidable:
        return f"{line.label}: {ends}; without a second seed nothing is decided."
    size = f"{units.signed(fall.estimate, topic.decimals)} {units.interval(fall, topic.decimals)}"
    level = [f"{v:g}" for v in means if v != top and (d := line.difference(top, v)) is not None and not d.shown]
    sentence = f"{line.label}: {ends}, a difference of {size}, {units.shown(fall, topic.decimals)}."
    if fall.shown:
        sentence += f" Not told apart from the highest: {', '.join(level) if level else 'none'}."
    return sentence


def _drawn(material: Material, field: str, lines: Sequence[Line], bars: Mapping[int, float]) -> Exhibit:
    """The lines with bars, the routes that the field makes no difference to as levels, and the numbers."""
    topic = material.topic
    figure = against_field(material, field, bars)
    assert figure is not None
    ends = [find(line.routes) for find in (min, max) for line in lines]
    dashes: dict[str, int] = {}  # of each pipeline, one for each of its levels
    for mean, route in levels(material, field):
        dash = dashes[route.name] = dashes.get(route.name, -1) + 1
        figure.add_scatter(
            x=[min(ends), max(ends)],
            y=[mean, mean],
            mode="lines",
            line={"color": material.looks[route.name].colour, "width": 1.5, "dash": _DASHES[dash % len(_DASHES)]},
            name=f"{plain(route.label)} {units.score(mean, topic.decimals)}",
            meta=plain(route.name),
        )
    rows: list[tuple[Value, ...]] = []
    for line in lines:
        first = next(iter(line.routes))
        for value, route in line.routes.items():
            difference = None if value == first else line.difference(value, first)
            rows.append((line.name, line.rest, value, route.mean(topic.primary.key), *difference_values(difference)))
    columns = ("route", "at", field, topic.primary.name, "difference to the first", *DIFFERENCE_COLUMNS[1:])
    caption = (
        f"Mean over seeds by {field}; small dots are seeds. Bars are half of the widest 95 % interval of a difference"
        " of two points of the line, so points whose bars do not touch are shown to differ (the intervals of a line"
        " hold together). Broken lines: routes that the field makes no difference to."
    )
    return Exhibit(f"{topic.primary.name} against {field}", caption, figure, (), columns, tuple(rows))


def levels(material: Material, field: str) -> list[tuple[float, RouteResults]]:
    """The mean scores, ascending, of the drawn routes that a field of the grid makes no difference to."""
    outside = [r for r in material.routes if field not in r.point and r.name not in material.topic.undrawn]
    means = [(mean, r) for r in outside if (mean := r.mean(material.topic.primary.key)) is not None]
    return sorted(means, key=itemgetter(0))


def _bar(line: Line) -> float:
    """Half of the half-width of the widest interval: two such bars touch where the interval may reach 0."""
    return max(((pair.high - pair.low) / 4 for pair in line.family.pairs if pair.decidable), default=0.0)
