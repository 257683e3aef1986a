"""One analysis on its own: its table in the terminal, and as CSV and HTML beside the report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pruning.errors import Refusal
from study.report.analyses import ANALYSES, get_analysis
from study.report.material import Material
from study.report.plots import write_page
from study.report.rows import load_comparison
from study.report.tables import csv_text
from study.report.units import value
from training.files import write_text


def run_analysis(out: Path, name: str, console: Console) -> list[Path]:
    """Print the analysis `name` of a study's directory and write analysis-<name>.csv and .html into it.

    Returns the paths written. ValueError if the directory holds no comparison, or the study has nothing to analyse.
    """
    analyse = get_analysis(name)
    exhibit = analyse(Material.of(load_comparison(out), out.parent))
    if exhibit is None:
        raise Refusal(f"{out}: the study has nothing for the analysis {name!r}")
    table = Table(*exhibit.columns, title=exhibit.title)
    for row in exhibit.rows:
        table.add_row(*map(value, row))
    console.print(table)
    for gap in exhibit.gaps:
        console.print(gap, style="yellow", markup=False)
    written = [out / f"analysis-{name}.csv"]
    write_text(written[0], csv_text(exhibit.columns, exhibit.rows))
    if exhibit.figure is not None:
        written.append(out / f"analysis-{name}.html")
        write_page(exhibit.figure, written[1])
    return written


def list_analyses() -> str:
    """The names, each with the first sentence of what it draws."""
    return "\n".join(f"{name}: {(analyse.__doc__ or '').strip().splitlines()[0]}" for name, analyse in ANALYSES.items())
