"""Rebuild the report of a study from what is on disk, or print one analysis of it.

prune-transfer report runs/digits
prune-transfer report runs/digits --paper paper/results    # with what a paper needs: LaTeX, CSV, PDF, SVG, BibTeX
prune-transfer report runs/digits --analysis kept_channels
prune-transfer report --list
"""

import argparse
from pathlib import Path

from pruning.errors import Refusal


def main(arguments: argparse.Namespace) -> int:
    """Rebuild, analyse or list; returns the exit code."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from study.report.analyses.alone import list_analyses, run_analysis
    from study.run.study import report_again

    study = arguments.study
    if arguments.list:
        print(list_analyses())
        return 0
    if study is None:
        raise Refusal("the study's directory is missing, such as runs/digits")
    if arguments.analysis is not None:
        for path in run_analysis(study, arguments.analysis, Console()):
            print(f"written: {path}")
        return 0
    report = report_again(study, arguments.paper)
    print(f"report: {report}")
    if arguments.paper is not None:
        print(f"for a paper: {arguments.paper}")
    print(f"run directory: {report.parent}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("study", type=Path, nargs="?", help="the study's directory, such as runs/digits")
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--analysis", metavar="NAME", help="print this analysis, and write its table and its figure")
    wanted.add_argument(
        "--paper", type=Path, metavar="DIR", help="write tables, figures and a citation for a paper into DIR"
    )
    wanted.add_argument("--list", action="store_true", help="list the analyses")
