"""What running a study costs beside its work: planning, and the overhead of a stage that does nothing.

Run: python benchmarks/scheduler.py [--stages 1000]

Planning is from a config to the list of stages and their names, for a study with many values in its grid. The
overhead is per stage, in one process: directory, lock, log, config and result with checksums, flushed to the disk.
"""

import argparse
import contextlib
import io
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from study.config.load import validate
from study.config.schema import StudyConfig
from study.config.sections import Machine
from study.plan.pipelines import all_stages, expand, labels
from study.run.scheduler import run_stages
from study.stages.stage import KINDS

PLAN_SECONDS, STAGE_MILLISECONDS = 2.0, 20.0  # bars, for 1,000 stages
STUDY = {
    "name": "scheduler",
    "classifier": {
        "arch": "resnet10",
        "dataset": {"name": "digits"},
        "train": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "fine_tune": {"epochs": 1},
    },
    "pipelines": ["unpruned", "fine_tune"],
}
SEEDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=1000)
    largest = parser.parse_args().stages
    print("stages   planning (s)   first run (ms/stage)   second run (ms/stage)      (of a clock: of this process)")
    for n in (largest // 4, largest // 2, largest):
        count, times = measure(n)
        print(f"{count:6d}   " + "   ".join(f"{clock:6.2f} : {own:6.2f}" for clock, own in times))
    print(f"bars for 1,000 stages: planning under {PLAN_SECONDS} s, first run under {STAGE_MILLISECONDS} ms a stage")


def nothing(context: Any) -> dict[str, Any]:
    """The work of a stage."""
    return {"metrics": {}, "train_macs": 0}


def measure(n: int) -> tuple[int, list[tuple[float, float]]]:
    """Stages; of the clock and of this process: seconds of planning, ms a stage when it runs, and when it is done."""
    start = now()
    # a seed has one dense training; every ratio adds a pruning and a fine-tuning
    ratios = [round(0.001 * (i + 1), 3) for i in range((n // SEEDS - 1) // 2)]
    data = {**STUDY, "seeds": list(range(SEEDS)), "grid": {"prune.ratio": ratios}}
    routes = expand(validate(StudyConfig, data, source="benchmark"), source="benchmark")
    stages = all_stages(routes)
    names = labels(routes)
    times = [since(start)]
    idle = {name: replace(kind, place=f"{__name__}:nothing") for name, kind in KINDS.items()}
    with tempfile.TemporaryDirectory() as runs, mock.patch.dict(KINDS, idle):
        for _ in range(2):
            start = now()
            with contextlib.redirect_stdout(io.StringIO()):
                assert run_stages(stages, names, Path(runs), Machine(threads=1)).complete
            times.append(since(start, scale=1000 / len(stages)))
    return len(stages), times


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float], *, scale: float = 1.0) -> tuple[float, float]:
    clock, own = now()
    return scale * (clock - start[0]), scale * (own - start[1])


if __name__ == "__main__":
    main()
