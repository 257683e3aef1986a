"""Rebuild the report of a study from what is on disk, or print one analysis of it.

python tools/report.py runs/digits
python tools/report.py runs/digits --analysis kept_channels
python tools/report.py --list
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from study.report.analyses.alone import list_analyses, run_analysis
from study.run.launch import launch
from study.run.study import report_again


def main(study: Path | None, analysis: str | None, names: bool) -> int:
    """Rebuild, analyse or list; returns the exit code."""
    if names:
        print(list_analyses())
        return 0
    if study is None:
        raise ValueError("the study's directory is missing, such as runs/digits")
    if analysis is not None:
        for path in run_analysis(study, analysis, Console()):
            print(f"written: {path}")
        return 0
    report = report_again(study)
    print(f"report: {report}")
    print(f"run directory: {report.parent}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", help="the study's directory, such as runs/digits")
    parser.add_argument("--analysis", metavar="NAME", help="print this analysis, and write its table and its figure")
    parser.add_argument("--list", action="store_true", help="list the analyses")
    arguments = parser.parse_args()
    sys.exit(launch(lambda: main(arguments.study, arguments.analysis, arguments.list)))
