"""What a terminal shows when a study ends: each route's mean with its interval, and the report's first sentence."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

from study.report import units
from study.report.answers import answers, overall
from study.report.differences import Differences
from study.report.material import Material
from study.report.routes import RouteResults
from study.report.rows import Comparison
from study.report.tables import references_of
from study.report.topic import Topic
from study.report.trends import trends

_WIDTH = 79


def closing(comparison: Comparison, runs: Path) -> list[str]:
    """The lines, of 79 columns at most where names of routes are no longer; `runs`: the folder of the runs."""
    material = Material.of(comparison, runs)
    topic, routes = material.topic, material.routes
    differences = Differences(routes, topic.primary.key)
    lines = [line for route in routes for line in _route(route, routes, topic, differences)]
    leads = [sentence for trend in trends(material, list(comparison.grid)) for sentence in trend.sentences]
    found = answers(differences, topic)
    return [*lines, *wrap((leads or [overall(found) or found[0].sentence])[0], _WIDTH, break_on_hyphens=False)]


def _route(route: RouteResults, routes: list[RouteResults], topic: Topic, differences: Differences) -> list[str]:
    """A route's mean, and how far it is from the first route that all are compared with."""
    found = route.summary(topic.primary.key)
    if found is None:
        return [f"{route.label}: no {topic.primary.unit}"]
    line = f"{route.label}: {topic.primary.unit} {units.mean_std(found, topic.decimals)}"
    references = [name for name in references_of(routes, topic) if name != route.name]
    difference = differences.to(route, references[0]) if references else None
    if difference is None:
        return [line]
    amount = f"{units.signed(difference.estimate, topic.decimals)} {units.interval(difference, topic.decimals)}"
    against = f"{amount} to {difference.reference}"
    return [f"{line}, {against}"] if len(line) + len(against) + 2 <= _WIDTH else [line, f"    {against}"]
