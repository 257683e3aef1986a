"""What the report says: assembled once, for the page and for the Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.plan.named import Look
from study.report.analyses import analyse_all
from study.report.answers import Answer, answers, overall, seed_warning
from study.report.chains import ChainStep, chain_of
from study.report.claims.judge import Finding, findings, margin_of, rule
from study.report.claims.measures import Sources
from study.report.claims.pruned_by import pruned_by
from study.report.convergence import still_improving
from study.report.curves import learning_curves
from study.report.differences import Differences
from study.report.examples import Examples, examples
from study.report.expected import COLUMNS, NOTE, expected_rows
from study.report.figures import against_training_macs, training_compute
from study.report.gallery import Gallery, galleries
from study.report.intervals import intervals
from study.report.material import Material
from study.report.plots import Exhibit
from study.report.provenance import Provenance, precision_of, provenance, warnings
from study.report.rates import RatesTable, rates_table
from study.report.remarks import counted_on_regions, distilled, slower
from study.report.routes import RouteResults, point_fields
from study.report.rows import Comparison
from study.report.tables import DIFFERENCE_NOTE, MainTable, main_table, per_class, references_of
from study.report.topic import DETECTION, SUMMED, Topic
from study.report.trends import Trend, trends


@dataclass(frozen=True)
class Content:
    """The parts of a report, under the names that its templates use.

    `classes`: class name -> mean AP on each of `routes`. `figures`: those that are no analyses. The page has all; the
    Markdown leaves out figures and pictures, and has the tables of the analyses.
    """

    comparison: Comparison
    material: Material
    differences: Differences
    topic: Topic
    routes: Sequence[RouteResults]
    looks: Mapping[str, Look]
    trends: Sequence[Trend]
    answers: Sequence[Answer]
    overall: str  # of all grid points; empty where there is one, or where a trend leads
    seed_warning: str
    warnings: Sequence[str]
    precision: str
    provenance: Provenance
    table: MainTable
    expected: Sequence[tuple[str, ...]]
    expected_columns: Sequence[str]
    expected_note: str
    difference_note: str
    cost_note: str
    rates: RatesTable | None
    findings: Sequence[Finding]
    rule: str
    classes: Mapping[str, Sequence[float | None]]
    chains: Sequence[tuple[RouteResults, Sequence[ChainStep]]]
    intervals: Sequence[Exhibit]
    analyses: Sequence[Exhibit]
    figures: Sequence[Exhibit]
    galleries: Sequence[Gallery]
    examples: Examples | None


def content_of(comparison: Comparison, runs: Path, out: Path) -> Content:
    """All that is said of a comparison. `runs` holds the run directories; links to them are relative to `out`."""
    material = Material.of(comparison, runs)
    topic, routes = material.topic, material.routes
    pruned, data = pruned_by(routes, comparison.stages, runs), comparison.evaluation.dataset or ""
    margin = margin_of(comparison, topic)
    sources = Sources(routes, comparison.stages, material.files)
    differences = Differences(routes, topic.primary.key)
    leads = trends(material, list(comparison.grid))
    found = answers(differences, topic)
    led = {lead.exhibit.title for lead in leads}
    return Content(
        comparison=comparison,
        material=material,
        differences=differences,
        topic=topic,
        routes=routes,
        looks=material.looks,
        trends=leads,
        answers=found,
        overall="" if leads else overall(found),
        seed_warning=seed_warning(differences, topic),
        warnings=[
            *warnings(comparison),
            *distilled(routes, comparison.stages),
            *slower(routes),
            *still_improving(material),
            *differences.notes(references_of(routes, topic)),
        ],
        precision=precision_of(comparison.stages.values()),
        provenance=provenance(comparison),
        table=main_table(routes, point_fields(comparison), topic, differences),
        expected=expected_rows(comparison, routes, topic),
        expected_columns=COLUMNS,
        expected_note=NOTE,
        difference_note=DIFFERENCE_NOTE,
        cost_note=" ".join(filter(None, (topic.cost_caption, counted_on_regions(comparison.stages), SUMMED))),
        rates=rates_table(comparison.tuning, topic),
        findings=findings(routes, topic, differences, margin, pruned, data, sources),
        rule=rule(margin, topic),
        classes=per_class(routes),
        chains=[(route, chain_of(route, comparison.stages, runs, out)) for route in routes],
        intervals=intervals(material, differences),
        analyses=[each for each in analyse_all(material) if each.title not in led],  # that figure comes first
        figures=[
            against_training_macs(material),
            training_compute(routes),
            *learning_curves(material),
        ],
        galleries=galleries(material) if topic is DETECTION else [],
        examples=examples(material) if topic is DETECTION else None,
    )
