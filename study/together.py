"""One classifier's training in all the processes that torchrun started."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from classify.distributed import any_process, is_main, process_group
from study.classifier_stages import run_train_classifier
from study.context import Context, device_of
from study.execute import set_threads
from study.sections import Machine
from study.stages import Stage

Result = TypeVar("Result")


def run_together(stage: Stage, machine: Machine, runs: Path, run: Callable[[Machine], Result]) -> Result | None:
    """The main process calls `run(machine)`, which writes the run directory; the others train with it, and get None.

    Unless the machine section says how many threads, the processes on one machine share its cores.
    """
    set_threads(machine.model_copy(update={"jobs": int(os.environ["LOCAL_WORLD_SIZE"])}))
    machine = machine.model_copy(update={"jobs": 1, "threads": torch.get_num_threads()})
    device = device_of(machine)
    with process_group(device):
        done = any_process(is_main() and stage.run(runs).done, device)
        if is_main():
            return run(machine)
        if not done:
            report = None  # the main process reports
            run_train_classifier(Context(stage, runs, machine, report))  # type: ignore[arg-type]
        return None
