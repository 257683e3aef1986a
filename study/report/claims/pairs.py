"""Which routes a statement compares: pairs that agree in all settings but those that the statement is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.report.claims.pruned_by import PrunedBy
from study.report.claims.statement import Side, Statement
from study.report.routes import RouteResults, describe_point
from study.report.rows import Point
from study.report.statistics.summary import is_number
from training.files import canonical

EQUAL_COST = 0.05  # the share by which two networks of an equal cost may differ
_FEWEST = 3  # values of a field that make a trend
Pruned = Mapping[str, PrunedBy]  # by the label of a route


@dataclass(frozen=True)
class Pair:
    """The routes of both sides: several where a statement is about a slope, or where a cost is met between networks."""

    better: tuple[RouteResults, ...]
    worse: tuple[RouteResults, ...]

    @property
    def point(self) -> Point:
        """All grid fields of the first routes, the worse side's where both have them."""
        return {**self.better[0].point, **self.worse[0].point}

    @property
    def place(self) -> str:
        """The grid fields in which all routes agree or that some lack, and the variants where they differ."""
        points = [route.point for route in (*self.better, *self.worse)]
        found: dict[str, dict[str, object]] = {}
        for point in points:
            for key, value in point.items():
                # by their text: values may be lists, which have no hash
                found.setdefault(key, {})[str(value)] = value
        shown = {key: next(iter(values.values())) for key, values in found.items() if len(values) == 1}
        variants = found.get("variant", {})
        if len(variants) > 1:
            shown = {"variant": " / ".join(variants), **shown}
        return describe_point(shown)


def pairs(statement: Statement, routes: Sequence[RouteResults], pruned: Pruned) -> Iterator[Pair]:
    """The pairs of a statement, in the order of the routes."""
    better, worse = (
        [r for r in routes if _fits(side, statement, r, pruned)] for side in (statement.better, statement.worse)
    )
    if statement.trend:
        yield from _trends(statement, better, worse, pruned)
    elif statement.equal_cost:
        for route in better:
            # all of them: the score at the cost of `route` is read off the line that they make (`values._at_cost`)
            rest = tuple(o for o in worse if o is not route and _agree(route, o, statement.apart, pruned))
            if rest:
                yield Pair((route,), rest)
    else:
        better, worse = (
            [r for r in found if _extreme(side, statement, r, routes, pruned)]
            for side, found in ((statement.better, better), (statement.worse, worse))
        )
        yield from (Pair((b,), (w,)) for b in better for w in worse if _agree(b, w, statement.apart, pruned))


def value_of(route: RouteResults, field: str, pruned: Pruned) -> object:
    """A route's value of a grid field, or of a setting that its variant or the config gives."""
    return route.point[field] if field in route.point else _how(route, pruned).facts.get(field)


def _how(route: RouteResults, pruned: Pruned) -> PrunedBy:
    return pruned.get(route.label, PrunedBy())


def _fits(side: Side, statement: Statement, route: RouteResults, pruned: Pruned) -> bool:
    how = _how(route, pruned)
    return (
        route.name == side.route
        and (not side.methods or how.method in side.methods)
        and (not statement.kinds or how.kind in statement.kinds)
        and all(only.fits(value_of(route, only.field, pruned)) for only in side.only)
    )


def _agree(a: RouteResults, b: RouteResults, apart: Sequence[str], pruned: Pruned) -> bool:
    """Whether two routes have the same settings but for those `apart`; one that makes no difference to a route agrees.

    Two routes of one variant differ in nothing but their grid points. Where they are of two, or one is outside the
    variants, what their stages recorded must agree too; two variants are compared only where a statement sets them
    apart.
    """
    shared = {key for key in a.point.keys() & b.point.keys() if not _among(key, apart)} - {"variant"}
    if any(a.point[key] != b.point[key] for key in shared):
        return False
    variants = a.point.get("variant"), b.point.get("variant")
    if variants[0] == variants[1]:
        return True
    facts = _how(a, pruned).facts, _how(b, pruned).facts
    if None not in variants and not (apart and facts[0] and facts[1]):
        return False
    # A fact that only one of the two has is about something that the other does not do, such as fine-tuning.
    both = facts[0].keys() & facts[1].keys()
    return all(facts[0][key] == facts[1][key] for key in both if not _among(key, apart))


def _among(key: str, apart: Iterable[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in apart)


def _extreme(
    side: Side, statement: Statement, route: RouteResults, routes: Sequence[RouteResults], pruned: Pruned
) -> bool:
    """Whether a route has the extreme of the field among those that agree with it in all else, at both sides' values.

    False where there is but one value.
    """
    if not side.extreme:
        return True
    apart = (*statement.apart, statement.field)
    values: list[set[float]] = []
    # of both sides: the smallest value of one alone may have no counterpart on the other
    for each in (statement.better, statement.worse):
        peers = [r for r in routes if _fits(each, statement, r, pruned) and _agree(route, r, apart, pruned)]
        found = [value_of(r, statement.field, pruned) for r in peers]
        numbers = {value for value in found if is_number(value)}
        if numbers:  # a side to which the field makes no difference is at every value
            values.append(numbers)
    common = set.intersection(*values) if values else set()
    if len(common) < 2:
        return False
    return value_of(route, statement.field, pruned) == (min(common) if side.extreme == "smallest" else max(common))


def _trends(
    statement: Statement, better: Sequence[RouteResults], worse: Sequence[RouteResults], pruned: Pruned
) -> Iterator[Pair]:
    """Lines of routes that agree in all but the field, at the values that both sides have, ascending."""
    for line in _lines(statement, better, pruned):
        for other in _lines(statement, worse, pruned):
            common = sorted(line.keys() & other.keys())
            if len(common) >= _FEWEST and all(_agree(line[v], other[v], statement.apart, pruned) for v in common):
                yield Pair(tuple(line[v] for v in common), tuple(other[v] for v in common))


def _lines(statement: Statement, routes: Sequence[RouteResults], pruned: Pruned) -> list[dict[float, RouteResults]]:
    lines: dict[str, dict[float, RouteResults]] = {}
    for route in routes:
        value = value_of(route, statement.field, pruned)
        if not is_number(value):
            continue
        # A line has each value once. A route that differs from all lines in more than the field, or whose value they
        # have already, begins a new one.
        fitting = (
            line
            for line in lines.values()
            if value not in line and all(_agree(each, route, statement.apart, pruned) for each in line.values())
        )
        line = next(fitting, None) or lines.setdefault(canonical(route.point), {})
        line[float(value)] = route
    return list(lines.values())
