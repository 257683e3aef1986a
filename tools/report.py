"""Rebuild the report of a study from what is on disk.

python tools/report.py runs/digits
"""

import argparse
import sys
from pathlib import Path

from study.launch import launch
from study.run import report_again


def main(study: Path) -> int:
    """Rebuild; returns the exit code."""
    report = report_again(study)
    print(f"report: {report}")
    print(f"run directory: {report.parent}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's directory, such as runs/digits")
    sys.exit(launch(lambda: main(parser.parse_args().study)))
