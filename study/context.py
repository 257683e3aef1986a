"""What a stage's code is given: where things are, how it runs, how it tells its progress."""

from dataclasses import dataclass
from pathlib import Path

import torch

from study.progress import Recorder
from study.sections import Machine
from study.stages import Stage
from study.store import RunDir


@dataclass(frozen=True)
class Context:
    """One stage about to run on this machine."""

    stage: Stage
    runs: Path
    machine: Machine
    report: Recorder

    @property
    def run(self) -> RunDir:
        return self.stage.run(self.runs)

    @property
    def parent(self) -> RunDir:
        """The run directory of the stage's parent."""
        return self.stage.parents[0].run(self.runs)

    @property
    def data(self) -> Path:
        """Where generated detection data is kept: beside the runs."""
        return self.runs / "data"

    @property
    def device(self) -> str:
        """Where this stage computes."""
        return device_of(self.machine)


def device_of(machine: Machine) -> str:
    """`cuda` where there is one, unless the machine section says otherwise."""
    if machine.device != "auto":
        return machine.device
    return "cuda" if torch.cuda.is_available() else "cpu"
