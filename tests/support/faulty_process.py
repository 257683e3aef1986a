"""A study in a process of its own that is killed: from outside at any moment, or by itself inside a write."""

import io
import os
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

import study.stages.detector  # noqa: F401  (imported once for all processes)
from study.run.study import run_study
from support import tiny_classification, tiny_study
from training import checkpoint
from training import files as atomic_file

# trainings that are plain, hold masks, shrink scales, zero filters, lose channels
CLASSIFIERS = {
    "pipelines": ["unpruned", "fine_tune"],
    "classifier.train.epochs": 8,
    "variants": {
        "masked": {"prune": {"method": "magnitude", "ratio": 0.6}},
        "slimming": {"prune": {"method": "slimming", "ratio": 0.25, "level": "global"}},
        "soft": {"prune": {"method": "soft_filter", "ratio": 0.25}},
        "at_init": {"prune": {"method": "snip", "ratio": 0.6}, "pipelines": ["prune_at_init"]},
        "fisher": {"prune": {"method": "group_fisher", "ratio": 0.25, "options": {"every": 3}}},
    },
}


# every kind of stage, and a detector that is pruned between two trainings
DETECTORS = ["pipelines=[transfer_then_prune]", "detector.train.iterations=16", "evaluate.scenes=1"]
STUDIES = {
    "classifiers": lambda: tiny_classification.tiny(CLASSIFIERS),
    "detectors": lambda: tiny_study.tiny(*DETECTORS),
}


def run_to_the_end(name: str, runs: str, die_at_write: int | None = None, jobs: int = 1) -> None:
    """Run a study; `die_at_write`: the process kills itself in that write to the disk, half of it done."""
    torch.set_num_threads(1)
    if die_at_write is not None:
        _die_in_a_write(die_at_write)
    config, routes = STUDIES[name]()
    config = config.model_copy(update={"machine": config.machine.model_copy(update={"jobs": jobs})})
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        run_study(config, Path("tiny.yaml"), routes, Path(runs))


def _die_in_a_write(number: int) -> None:
    """Every write has three moments to die in: half written, written but not renamed, checkpoints half renamed."""
    moments = {"left": number}

    def maybe_die() -> None:
        moments["left"] -= 1
        if moments["left"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(path: Path, *parts: bytes | memoryview, flush: bool = True) -> Path:
        whole = b"".join(parts)
        half = path.parent / f".{path.name}.half{atomic_file.PARTIAL}"
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(whole[: len(whole) // 2])
        maybe_die()
        half.unlink()
        beside = original(path, *parts, flush=flush)
        maybe_die()
        return beside

    def previous(path: Path) -> Path:
        maybe_die()
        return original_previous(path)

    original, original_previous = atomic_file.write_beside, checkpoint.previous_checkpoint
    atomic_file.write_beside = checkpoint.write_beside = write  # type: ignore[assignment]
    checkpoint.previous_checkpoint = previous  # type: ignore[assignment]
