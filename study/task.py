"""A stage that is about to run, with all that running it needs."""

from dataclasses import dataclass
from pathlib import Path

from study.sections import Machine
from study.stages import Stage
from study.store import RunDir


@dataclass(frozen=True)
class Task:
    """A stage to run below `runs` on a machine; `label` is what a person calls it."""

    stage: Stage
    label: str
    runs: Path
    machine: Machine

    @property
    def run(self) -> RunDir:
        return self.stage.run(self.runs)
