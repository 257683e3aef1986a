"""Write the report: CSV, JSON, Markdown, and one HTML page with plotly.js, styles, pictures and data inside."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from study.report import units
from study.report.claims.table import claims_of
from study.report.content import Content, content_of
from study.report.paper.write import write_paper
from study.report.plots import give_legend_room, plain
from study.report.routes import describe_point
from study.report.rows import COMPARISON, Comparison
from study.report.tables import claims_csv, comparison_csv
from training.files import write_text

CSV, CLAIMS, MARKDOWN, HTML = "comparison.csv", "claims.csv", "report.md", "report.html"
_HERE = Path(__file__).parent
_DIGITS = 5  # of a number that is drawn: finer than a pixel
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def write_report(comparison: Comparison, runs: Path, out: Path, paper: Path | None = None) -> Path:
    """Write comparison.csv, comparison.json, claims.csv, report.md and report.html into `out`; the page's path.

    `runs`: the folder of the run directories that the comparison names. What is absent from them is said in the report.
    `paper`: the folder for the same results as a paper has them.
    """
    content = content_of(comparison, runs, out)
    judged = replace(comparison, claims=claims_of(content.findings))
    texts = {
        CSV: comparison_csv(comparison),
        CLAIMS: claims_csv(judged),
        COMPARISON: json.dumps(judged.to_json(), indent=1, allow_nan=False) + "\n",
        MARKDOWN: render_markdown(content),
        HTML: render_html(content),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    if paper is not None:
        write_paper(content, judged, paper)
    return out / HTML


def render_html(content: Content) -> str:
    """The page: one file that needs nothing else."""
    return _page().render(
        vars(content),
        units=units,
        plain=plain,
        describe_point=describe_point,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "report.js").read_text(encoding="utf-8")),
        plotly_js=_packed_plotly(get_plotlyjs()),
    )


@cache  # compiled once for all reports of a process, as `_text` is
def _page() -> jinja2.Template:
    environment = _environment()
    environment.filters |= {"figure_json": figure_json, "packed": packed}
    return environment.get_template("report.html.j2")


def packed(text: str) -> str:
    """Text as base64 of its gzip, which the page's own script unpacks.

    Two fifths of the size of plotly.js, a tenth of that of figures; and no label can leave its <script> element.
    """
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


@lru_cache(maxsize=1)
def _packed_plotly(script: str) -> str:
    return packed(script)


def render_markdown(content: Content) -> str:
    """The answer, the tables and the provenance as GitHub-flavoured Markdown, without figures."""
    return _text().render(vars(content), describe_point=describe_point)


@cache
def _text() -> jinja2.Template:
    # what a template prints is escaped once: here before Jinja2 would do it for HTML
    environment = _environment(finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)))
    environment.filters |= {"row": _table_row, "fence": _fence, "score": units.score, "value": units.value}
    return environment.get_template("report.md.j2")


def _environment(finalize: Callable[[object], object] | None = None) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=finalize is not None,
        finalize=finalize,
    )


def figure_json(figure: go.Figure) -> str:
    """A figure as JSON, its floats as they are seen."""
    found = json.loads(give_legend_room(figure).to_json(), parse_float=lambda text: float(f"{float(text):.{_DIGITS}g}"))
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def escape(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line break."""
    flat = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _table_row(cells: Iterable[object]) -> Markup:
    """A line of a pipe table."""
    return Markup(f"| {' | '.join(map(escape, cells))} |")


def _fence(text: str) -> Markup:
    """A fence for a block of code: longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return Markup("`" * max(3, longest + 1))
