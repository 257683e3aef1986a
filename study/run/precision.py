"""The precision that all trainings of a study compute in: settled once, where the study is started."""

from collections.abc import Sequence
from pathlib import Path

import torch

from study.config.sections import Machine
from study.stages.stage import Stage, device_of
from training.device import Precision, settle
from training.files import read_json, write_json


def settle_here(stages: Sequence[Stage], runs: Path, machine: Machine) -> Precision | None:
    """The answer to `machine.precision` for all stages; None where none is needed or this machine has none.

    It has none to "auto" for Slurm jobs on GPUs that it lacks itself: each job then takes what its GPU multiplies.
    ValueError for a precision that the device has not.
    """
    left = any(s.kind in ("train_classifier", "train_detector") and not s.run(runs).done for s in stages)
    device = _device(machine)
    elsewhere = machine.executor == "slurm" and device == "cuda" and not torch.cuda.is_available()
    if not left or (elsewhere and machine.precision == "auto"):
        return None
    try:
        return settle(machine.precision, device)
    except ValueError as error:
        raise ValueError(f"machine.{error}") from error


def settle_study(stages: Sequence[Stage], runs: Path, machine: Machine, file: Path) -> Precision | None:
    """As `settle_here`; what "auto" came to is kept in `file`, and holds when the study goes on."""
    device = _device(machine)
    if machine.precision == "auto" and file.is_file():
        kept = read_json(file)
        if kept.pop("device", None) == device:
            return Precision(**kept)
    found = settle_here(stages, runs, machine)
    if found is not None and found.asked == "auto":
        write_json(file, {"device": device, **found.as_result()})
    return found


def _device(machine: Machine) -> str:
    """The device type of the machine that stages run on, which for Slurm is not this one."""
    if machine.executor == "slurm" and machine.device == "auto":
        return "cuda" if machine.slurm.gpus else "cpu"
    return device_of(machine).partition(":")[0]
