"""report.html: one file that needs nothing else, with plotly.js, styles, pictures and data inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.report import units
from study.report.artifacts import RunFiles
from study.report.chains import chain_of
from study.report.curves import learning_curves
from study.report.figures import (
    ap_against_backbone_macs,
    ap_against_field,
    ap_against_training_macs,
    training_compute,
)
from study.report.findings import answers, findings, provenance, seed_warning, warnings
from study.report.gallery import galleries
from study.report.layers import kept_channels
from study.report.plots import Panel
from study.report.routes import Route, colours, describe_point, distinct_names, group_routes
from study.report.tables import main_table, per_class

_HERE = Path(__file__).parent


def render_html(comparison: Mapping[str, Any], runs: Path, out: Path) -> str:
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
    routes = group_routes(comparison["rows"])
    files = RunFiles(runs)
    stages = comparison.get("stages") or {}
    classes, class_means = per_class(routes)
    route_colours = colours(distinct_names(routes))
    return {
        "comparison": comparison,
        "evaluation": comparison.get("evaluation") or {},
        "routes": routes,
        "colours": route_colours,
        "answers": answers(routes),
        "seed_warning": seed_warning(routes),
        "warnings": warnings(comparison),
        "table": main_table(routes, list(comparison.get("grid") or {})),
        "findings": findings(routes),
        "panels": _panels(comparison, routes, files, route_colours),
        "galleries": galleries(routes, files),
        "classes": classes,
        "class_means": class_means,
        "chains": [(route, chain_of(route, stages, runs, out)) for route in routes],
        "provenance": provenance(stages),
    }


def _panels(
    comparison: Mapping[str, Any], routes: list[Route], files: RunFiles, route_colours: Mapping[str, str]
) -> list[Panel]:
    along_grid = (ap_against_field(routes, route_colours, field) for field in comparison.get("grid") or {})
    return [
        ap_against_backbone_macs(routes, route_colours),
        ap_against_training_macs(routes, route_colours),
        *(panel for panel in along_grid if panel is not None),
        training_compute(routes),
        kept_channels(routes, files, route_colours),
        *learning_curves(routes, files, route_colours),
    ]
