"""Write the report: CSV, JSON, Markdown, HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.report.analyses import analyse_all
from study.report.html import render_html
from study.report.markdown import render_markdown
from study.report.stats import is_number
from study.report.tables import comparison_csv
from training.files import write_text

CSV, JSON, MARKDOWN, HTML = "comparison.csv", "comparison.json", "report.md", "report.html"


def write_report(comparison: Mapping[str, Any], runs: Path, out: Path) -> Path:
    """Write comparison.csv, comparison.json, report.md and report.html into `out`; returns the page's path.

    `comparison` is the content of comparison.json (AP 0..100, None or NaN for a missing value), `runs` the
    folder of the run directories its chains name. What is absent from them is said in the report.
    """
    comparison = without_nan(comparison)
    panels = analyse_all(comparison, runs)
    texts = {
        CSV: comparison_csv(comparison),
        JSON: json.dumps(comparison, indent=1, allow_nan=False) + "\n",
        MARKDOWN: render_markdown(comparison, runs, out, panels),
        HTML: render_html(comparison, runs, out, panels),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    return out / HTML


def without_nan(value: Any) -> Any:
    """The same value with None for every NaN or infinity: Detectron2 reports an AP without objects as NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not is_number(value) else value
