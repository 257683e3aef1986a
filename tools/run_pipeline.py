"""Run a study: every route of a pipeline file on every seed, then the report.

    python tools/run_pipeline.py configs/pipelines/digits.yaml --jobs 2
    python tools/run_pipeline.py configs/pipelines/digits.yaml --dry-run
    python tools/run_pipeline.py configs/pipelines/digits.yaml seeds=[0,1,2] prune.ratio=0.7

Finished stages are not run again; after a kill the same command goes on where it was.
"""

import argparse
import sys
import warnings
from pathlib import Path

from rich.console import Console

from study.run import load_study, print_plan, run_study, summary
from study.store import read_json


def main() -> int:
    """Parse, load, run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a pipeline file, such as configs/pipelines/digits.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="show stages and their costs, train nothing")
    parser.add_argument("--jobs", type=int, help="stages at a time, in processes of their own (default: machine.jobs)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    overrides = [*arguments.overrides, *([f"machine.jobs={arguments.jobs}"] if arguments.jobs is not None else [])]
    try:
        config, routes = load_study(arguments.config, overrides)
        if arguments.dry_run:
            print_plan(config, routes, arguments.runs, Console(width=None if sys.stdout.isatty() else 200))
            return 0
        out, outcome = run_study(config, arguments.config, routes, arguments.runs)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on", file=sys.stderr)
        return 130
    print("\n".join(summary(read_json(out / "comparison.json"))))
    for stage, why in {**outcome.failed, **outcome.blocked}.items():
        print(f"not done: {stage}: {why}", file=sys.stderr)
    print(f"report: {out / 'report.html'}")
    print(f"run directory: {out}")
    return 0 if outcome.complete else 1


if __name__ == "__main__":
    sys.exit(main())
