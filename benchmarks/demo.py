"""The demo's seeds an hour, and the share of each part of its wall time.

It runs the command of `make demo` in a folder of its own, then reads what the stages' results and files say. A stage's
seconds are of the clock; with several jobs a part's share is its seconds over jobs x wall time. "between stages": from
the first stage's start to the last one's end, what no stage took: imports of the workers, locks, waiting for parents.
Processor seconds are of the command and all its processes; on other machines, or beside other work, they compare
better. Run: python benchmarks/demo.py [--seeds 2] [--jobs 2]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from training.files import read_json

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "pipelines" / "digits.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        command = [sys.executable, "-m", "prune_transfer", "run", str(CONFIG), f"seeds={list(range(arguments.seeds))}"]
        start = time.time()
        subprocess.run([*command, "--jobs", str(arguments.jobs), "--runs", str(runs)], cwd=ROOT, check=True)
        end = time.time()
        used = getrusage(RUSAGE_CHILDREN)
        report(runs, start, end, arguments)
    processor = used.ru_utime + used.ru_stime
    a_seed = processor / arguments.seeds
    print(f"processor: {processor:.0f} s, {a_seed:.0f} s a seed, {used.ru_stime:.0f} s in the system")
    print(f"load after: {os.getloadavg()[0]:.1f}")


def report(runs: Path, start: float, end: float, arguments: argparse.Namespace) -> None:
    wall, jobs = end - start, arguments.jobs
    results = [read_json(file) for file in runs.glob("*/seed*/result.json")]
    ends = [file.stat().st_mtime for file in runs.glob("*/seed*/result.json")]
    begins = [file.stat().st_mtime for file in runs.glob("*/seed*/config.yaml")]  # written when a stage starts
    seconds: Counter[str] = Counter()
    for result in results:
        seconds[result["kind"]] += result["seconds"]
    stages = max(ends) - min(begins)
    parts = {kind: found / jobs for kind, found in seconds.most_common()}
    parts["between stages"] = stages - sum(parts.values())
    parts["before the first stage"] = min(begins) - start
    parts["report"] = end - max(ends)
    an_hour = 3600 * arguments.seeds / wall
    print(f"{arguments.seeds} seeds, {len(results)} stages, {jobs} jobs: {wall:.0f} s, {an_hour:.1f} seeds an hour")
    for part, found in parts.items():
        print(f"  {part:24s} {found:7.1f} s  {found / wall:6.1%}")


if __name__ == "__main__":
    main()
