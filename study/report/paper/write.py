"""Write what a paper needs of a report into a folder."""

from __future__ import annotations

from pathlib import Path

from pruning.errors import Refusal
from study.report.content import Content
from study.report.paper import latex
from study.report.paper.citation import citation
from study.report.paper.figures import PrintFigure, print_figures
from study.report.paper.tables import claims_latex, differences_csv, main_latex, means_csv
from study.report.rows import Comparison
from study.report.tables import claims_csv
from training.files import write_bytes, write_text

_MADE_BY = "made by `prune-transfer report --paper`"


def write_paper(content: Content, judged: Comparison, out: Path) -> None:
    """Write tables (LaTeX and CSV), figures (PDF and SVG) and citation.bib into `out`; each is replaced at once.

    `judged`: the comparison with its claims. Refusal where a LaTeX file of that name is there that is not ours.
    """
    if out.exists() and not out.is_dir():
        raise Refusal(f"--paper {out}: a file, not a folder")
    figures = print_figures(content)
    texts = {
        "results.tex": _head(content, "array,booktabs,graphicx") + main_latex(content),
        "claims.tex": _head(content, "array,booktabs,graphicx") + claims_latex(content),
        "figures.tex": _head(content, "graphicx", f"\\graphicspath{{{{{out.name}/}}}}") + _figures(content, figures),
        "means.csv": means_csv(content),
        "differences.csv": differences_csv(content),
        "claims.csv": claims_csv(judged),
        "citation.bib": citation(content),
    }
    for name in texts:
        _refuse_of_others(out / name)
    for name, text in texts.items():
        write_text(out / name, text)
    for figure in figures:
        write_bytes(out / f"{figure.name}.pdf", figure.pdf)
        write_bytes(out / f"{figure.name}.svg", figure.svg)


def _refuse_of_others(file: Path) -> None:
    if file.suffix == ".tex" and file.is_file() and _MADE_BY not in file.read_text(errors="replace")[:2000]:
        raise Refusal(f"--paper {file.parent}: {file.name} is there and not of a report; name a folder of its own")


def _head(content: Content, package: str, more: str = "") -> str:
    """Where a file comes from, what it needs, and every warning of the report."""
    lines = [f"{content.comparison.title}, of {content.comparison.config_file}: {_MADE_BY}."]
    lines.append(f"Needs \\usepackage{{{package}}}{f' and {more}' if more else ''}.")
    lines += [f"Note: {note}" for note in (content.seed_warning, *content.warnings) if note]
    return "".join(map(latex.comment, lines))


def _figures(content: Content, figures: list[PrintFigure]) -> str:
    study = content.comparison.study
    return "".join(latex.figure(f"{f.name}.pdf", caption=f.caption, label=f"{study}-{f.name}") for f in figures)
