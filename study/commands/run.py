"""Run a study: every route of a pipeline file on every seed, then the report.

    prune-transfer run digits --jobs auto
    prune-transfer run digits --dry-run
    prune-transfer run digits --executor slurm machine.slurm.partition=gpu
    prune-transfer run digits --watch
    prune-transfer run --keys detector.model
    prune-transfer run digits 'seeds=[0, 1, 2]' prune.ratio=0.7

Finished stages are not run again; after a kill the same command goes on where it was.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from study.run.launch import add_config, add_keys, finish


def main(arguments: argparse.Namespace) -> int:
    """Load, show or run; returns the exit code."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from study.plan.load import load_study
    from study.stages.contents import Contents

    flags = {"--jobs": arguments.jobs, "--executor": arguments.executor}
    overrides = [*arguments.overrides, *(f"{flag}={value}" for flag, value in flags.items() if value is not None)]
    # who only looks downloads nothing
    contents = Contents(arguments.runs, fetch=not (arguments.dry_run or arguments.watch))
    config, routes = load_study(arguments.config, overrides, contents)
    if arguments.watch:
        from study.plan.tune import plan_study
        from study.run.watch import check_begun, watch
        from study.stages.store import RunDir

        study = RunDir(arguments.runs / config.name)
        check_begun(study)
        plan = plan_study(config, routes, source=str(arguments.config), contents=contents)
        watch(partial(plan.named_stages, study), study, Console())
        return 0
    if arguments.dry_run:
        from study.plan.dry_run import print_plan  # alone: the report loads what draws and tests its numbers

        console = Console(width=None if sys.stdout.isatty() else 200)
        print_plan(config, routes, arguments.runs, console, arguments.config, overrides)
        return 0
    from study.report.closing import closing
    from study.report.rows import load_comparison
    from study.run.study import run_study

    out, outcome = run_study(config, arguments.config, routes, arguments.runs, contents, overrides)
    print("\n".join(closing(load_comparison(out), arguments.runs)))
    print(f"report: {out / 'report.html'}")
    return finish(out, outcome)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    add_config(parser, "a pipeline file", "pipelines")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    add_keys(parser, "study")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="show stages and their costs, train nothing")
    parser.add_argument("--jobs", metavar="N", help="stages at a time, a number or auto (default: machine.jobs)")
    parser.add_argument("--executor", choices=("local", "slurm"), help="where stages run (default: machine.executor)")
    parser.add_argument("--watch", action="store_true", help="show a study that another process runs; run nothing")
