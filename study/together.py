"""One stage in several processes: a classifier's training in those that torchrun started, a detector's stages in those
that Detectron2's `launch` started.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from classify.distributed import any_process, is_main, process_group
from study.context import Context, device_of
from study.determinism import deterministic_algorithms
from study.execute import set_threads
from study.run_stage import KINDS
from study.sections import Machine
from study.stages import Stage

Result = TypeVar("Result")


def run_together(stage: Stage, machine: Machine, runs: Path, run: Callable[[Machine], Result]) -> Result | None:
    """As `share_stage`, of a classifier, in the processes that torchrun started."""
    machine = share_of(machine, int(os.environ["LOCAL_WORLD_SIZE"]))
    with process_group(device_of(machine)):
        return share_stage(stage, machine, runs, run)


def share_of(machine: Machine, processes: int) -> Machine:
    """What each of so many processes on this machine has of it.

    Unless the machine section says how many threads, they share its cores. The stage runs here, whatever the executor.
    """
    set_threads(machine.model_copy(update={"jobs": processes}))
    return machine.model_copy(update={"jobs": 1, "executor": "local", "threads": torch.get_num_threads()})


def share_stage(stage: Stage, machine: Machine, runs: Path, run: Callable[[Machine], Result]) -> Result | None:
    """The main process calls `run(machine)`, which writes the run directory; the others compute with it, and get None.

    All wait for the main process to come, so that what it wrote before can be read.
    """
    device = device_of(machine)
    done = any_process(is_main() and stage.run(runs).done, device)
    if is_main():
        return run(machine)
    if not done:
        report = None  # the main process reports
        with deterministic_algorithms(machine.deterministic, device):
            KINDS[stage.kind](Context(stage, runs, machine, report))  # type: ignore[arg-type]
    return None
