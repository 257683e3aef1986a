"""Rebuild the report of a study from what is on disk.

python tools/report.py runs/digits
"""

import argparse
import sys
from pathlib import Path

from study.run import report_again


def main() -> int:
    """Parse and rebuild; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's directory, such as runs/digits")
    try:
        report = report_again(parser.parse_args().study)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {report}")
    print(f"run directory: {report.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
