"""report.html: one file that needs nothing else, with plotly.js, styles, pictures and data inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.report import units
from study.report.analyses.ratios import FIELD as RATIO
from study.report.artifacts import RunFiles
from study.report.chains import chain_of
from study.report.claims.judge import findings, rule
from study.report.claims.pruned_by import pruned_by
from study.report.claims.published import published_by
from study.report.curves import learning_curves
from study.report.figures import against_training_macs, along_grid, training_compute
from study.report.findings import answers, provenance, seed_warning, warnings
from study.report.gallery import galleries
from study.report.plots import Panel
from study.report.precisions import named_precision, precision_provenance
from study.report.routes import colours, describe_point, distinct_names, group_routes, point_fields
from study.report.tables import main_table, per_class
from study.report.task import DETECTION, task_of

_HERE = Path(__file__).parent


def render_html(comparison: Mapping[str, Any], runs: Path, out: Path, analyses: Sequence[Panel]) -> str:
    """The page. `runs` holds the run directories; links to them are relative to `out`, the page's folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = figure_json
    template = environment.get_template("report.html.j2")
    return template.render(
        **_content(comparison, runs, out),
        panels=[*analyses, *_panels(comparison, runs)],
        units=units,
        describe_point=describe_point,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "report.js").read_text(encoding="utf-8")),
        plotly_js=Markup(get_plotlyjs()),
    )


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that cannot leave its <script> element, whatever its labels contain."""
    text = figure.to_json()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _content(comparison: Mapping[str, Any], runs: Path, out: Path) -> dict[str, Any]:
    task, routes = task_of(comparison), group_routes(comparison["rows"])
    stages, evaluation = comparison.get("stages") or {}, comparison.get("evaluation") or {}
    pruned, data = pruned_by(routes, stages, runs), str(evaluation.get("dataset", ""))
    classes, class_means = per_class(routes)
    return {
        "comparison": comparison,
        "task": task,
        "evaluation": evaluation,
        "routes": routes,
        "colours": colours(distinct_names(routes)),
        "answers": answers(routes, task),
        "seed_warning": seed_warning(routes, task),
        "warnings": warnings(comparison),
        "table": main_table(routes, point_fields(comparison), task, published_by(routes, pruned, data)),
        "findings": findings(routes, task, pruned, data),
        "rule": rule(task),
        "galleries": galleries(routes, RunFiles(runs)) if task is DETECTION else [],
        "classes": classes,
        "class_means": class_means,
        "chains": [(route, chain_of(route, stages, runs, out)) for route in routes],
        "precision": named_precision(comparison),
        "provenance": provenance(stages) | {"precision": precision_provenance(comparison)},
    }


def _panels(comparison: Mapping[str, Any], runs: Path) -> list[Panel]:
    """The figures that are no analyses: what was spent, other fields of the grid, and how the trainings went."""
    task, routes = task_of(comparison), group_routes(comparison["rows"])
    palette = colours(distinct_names(routes))
    fields = [field for field in comparison.get("grid") or {} if field != RATIO]  # which has an analysis of its own
    return [
        against_training_macs(routes, palette, task),
        *along_grid(routes, palette, task, fields),
        training_compute(routes),
        *learning_curves(routes, RunFiles(runs), palette, task.curves),
    ]
