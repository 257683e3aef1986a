"""The precision that all trainings of a study compute in: settled once, where the study is started."""

from collections.abc import Sequence
from pathlib import Path

import torch

from study.config.sections import Machine
from study.plan.checks import device_type, settle_on
from study.stages.stage import Stage
from training.device import Precision
from training.files import read_json, write_json


def settle_here(stages: Sequence[Stage], runs: Path, machine: Machine) -> Precision | None:
    """The answer to `machine.precision` for all stages; None where no stage trains, or where jobs must find it.

    They must where "auto" is asked for Slurm jobs on GPUs and this machine has none to look at. ValueError for a
    precision that the device has not.
    """
    left = any(s.kind in ("train_classifier", "train_detector") and not s.run(runs).done for s in stages)
    device = device_type(machine)
    elsewhere = machine.executor == "slurm" and device == "cuda" and not torch.cuda.is_available()
    if not left or (elsewhere and machine.precision == "auto"):
        return None
    return settle_on(machine.precision, device)


def settle_study(stages: Sequence[Stage], runs: Path, machine: Machine, file: Path) -> Precision | None:
    """As `settle_here`; what "auto" came to is kept in `file`, and holds when the study goes on."""
    device = device_type(machine)
    # "auto" is measured, and a measurement may come out otherwise on another day or machine; half a study in bfloat16
    # would make its routes no longer comparable. On another type of device the answer must be another.
    if machine.precision == "auto" and file.is_file():
        kept = read_json(file)
        if kept.pop("device", None) == device:
            return Precision(**kept)
    found = settle_here(stages, runs, machine)
    if found is not None and found.asked == "auto":
        write_json(file, {"device": device, **found.as_result()})
    return found
