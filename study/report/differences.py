"""Every difference between routes that a report states, and the family of intervals that it belongs to.

At each grid point the routes that meet there and the seeds are one block design: the residual variance is that of all
routes together, and the intervals of one family hold together with a probability of 95 %. A family is either all routes
against one reference (the columns of the main table) or all pairs of some routes (which of them is best).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from study.report.routes import RouteResults, describe_point, distinct_names, find_route, full_points
from study.report.rows import Point
from study.report.statistics.families import Difference, Family, all_pairs
from study.report.statistics.grid import over_grid


@dataclass(frozen=True)
class Meeting:
    """The routes with a result that meet at one grid point, by pipeline; one outside the grid meets those at any."""

    point: Point
    routes: Mapping[str, RouteResults]

    def table(self, key: str) -> dict[str, dict[int, float | None]]:
        """Pipeline -> seed -> value."""
        return {name: route.by_seed(key) for name, route in self.routes.items()}

    def has(self, route: RouteResults) -> bool:
        """Whether this very route is one of them."""
        return self.routes.get(route.name) is route


class Differences:
    """The differences of the score `key` between routes; it is asked with the routes that it was made of."""

    def __init__(self, routes: Sequence[RouteResults], key: str):
        self.key = key
        self._scored = [route for route in routes if route.mean(key) is not None]
        # both are filled when first asked for: a family of a new layout takes a simulation
        self._to: dict[str, list[tuple[Meeting, Family]]] = {}
        self._pairs: dict[int, Family] = {}  # of all routes, by the place of a meeting

    @cached_property
    def meetings(self) -> list[Meeting]:
        """The grid points with the routes that meet there."""
        names = distinct_names(self._scored)
        found = []
        for point in full_points(self._scored):
            # one of each pipeline, the most specific that fits: routes outside the grid meet those at every point
            here = {name: route for name in names if (route := find_route(self._scored, name, point)) is not None}
            found.append(Meeting(point, here))
        return found

    def to(self, route: RouteResults, reference: str) -> Difference | None:
        """A route minus the pipeline `reference`, among all routes against it; None where the two do not meet."""
        for meeting, family in self._against(reference):
            if meeting.has(route):
                return next((pair for pair in family.pairs if pair.route == route.name), None)
        return None

    def between(self, route: RouteResults, other: RouteResults) -> Difference | None:
        """A route minus another, among all pairs where the two meet; by their own differences where they never do."""
        for place, meeting in enumerate(self.meetings):
            if meeting.has(route) and meeting.has(other):
                if place not in self._pairs:
                    self._pairs[place] = all_pairs(meeting.table(self.key))
                return self._pairs[place].between(route.name, other.name)
        return route.minus(other, self.key)

    def notes(self, references: Sequence[str]) -> list[str]:
        """What the intervals against these references leave out or treat apart, in sentences, each once."""
        found = []
        for meeting, family in (pair for reference in references for pair in self._against(reference)):
            at = f" at {describe_point(meeting.point)}" if meeting.point else ""
            if family.odd:
                verb = "varies" if len(family.odd) == 1 else "vary"
                found.append(
                    f"{' and '.join(family.odd)} {verb} more over seeds than the other routes{at}: the intervals of"
                    " such a route rest on its own differences and are no part of the pooled variance."
                )
            if family.left_out:
                found.append(
                    f"Left out of the intervals{at}, as there is nothing to pair: {', '.join(family.left_out)}."
                )
        return list(dict.fromkeys(found))

    def _against(self, reference: str) -> list[tuple[Meeting, Family]]:
        if reference not in self._to:
            here = [m for m in self.meetings if reference in m.routes and len(m.routes) > 1]
            # all points in one call, since variances are moderated over them
            families = over_grid([meeting.table(self.key) for meeting in here], reference)
            self._to[reference] = list(zip(here, families, strict=True))
        return self._to[reference]
