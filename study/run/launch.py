"""What all launchers do the same way: say an error in one sentence, name the run directory, exit with a code."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from study.stages.store import RunDir
from training.stopping import Stopped, stop_on_signals

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from study.run.scheduler import Outcome


def launch(work: Callable[[], int]) -> int:
    """Run a launcher's work; expected failures become one sentence and a non-zero exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about themselves
    try:
        with stop_on_signals():
            return work()
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{stopped}; run the same command to go on where it was", file=sys.stderr)
        return 128 + stopped.signum


def finish(out: Path, outcome: "Outcome") -> int:
    """Say what is not done and where everything is; the exit code."""
    for stage, why in {**outcome.failed, **outcome.blocked}.items():
        print(f"not done: {stage}: {why}", file=sys.stderr)
    if RunDir(out).done:
        print(json.dumps(RunDir(out).read_result()["metrics"]))
    print(f"run directory: {out}")
    return 0 if outcome.complete else 1
