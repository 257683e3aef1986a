"""Look after a folder of runs: list them, check them, remove what no study uses.

prune-transfer runs list runs
prune-transfer runs verify runs
prune-transfer runs remove runs          shows what would be removed; --yes removes it
"""

import argparse
import sys
from pathlib import Path


def main(arguments: argparse.Namespace) -> int:
    """List, verify or remove; the exit code: 1 if something is wrong with a run."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from study.run.housekeeping import remove_runs, unused_runs, verify_runs
    from study.run.watch import list_runs, runs_table
    from study.stages.progress import size_in_words

    console = Console(width=None if sys.stdout.isatty() else 160)
    if arguments.action == "verify":
        finished, faults = verify_runs(arguments.runs)
        print("\n".join([*faults, f"{finished} finished runs, {len(faults)} faults"]))
        return 1 if faults else 0
    if arguments.action == "list":
        console.print(runs_table(list_runs(arguments.runs)))
        return 0
    unused = unused_runs(arguments.runs)
    console.print(runs_table(unused, title="used by no study"))
    removed = remove_runs(unused) if arguments.yes else []
    for info in unused if arguments.yes else []:
        if info not in removed:
            print(f"not removed: {info.id}: a process works on it")
    what = "removed" if arguments.yes else "would be removed; --yes removes them"
    runs = removed if arguments.yes else unused
    print(f"{len(runs)} runs, {size_in_words(sum(info.size for info in runs))}: {what}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("action", choices=("list", "verify", "remove"))
    parser.add_argument("runs", type=Path, help="a folder of run directories")
    parser.add_argument("--yes", action="store_true", help="really remove")
