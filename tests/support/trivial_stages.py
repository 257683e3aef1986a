"""Stages whose work is nothing, to test what is around the work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.config.sections import Machine
from study.run.scheduler import run_stages
from study.stages.stage import KINDS, Context, Stage

REAL = dict(KINDS)


def stage(number: int, *parents: Stage, seed: int = 0) -> Stage:
    return Stage("prune", {"number": number}, parents, seed)


def run(stages: list[Stage], runs: Path, **machine):
    names = {s.id: f"number {s.settings['number']}" for s in stages}
    return run_stages(stages, names, runs, Machine(**{"threads": 1, **machine}))


@dataclass(frozen=True)
class Doing:
    """A kind of stage that does what a test asks, in the place of `kind`."""

    kind: str
    run: Callable[[Context], dict]

    @property
    def version(self):
        return REAL[self.kind].version

    @property
    def settings(self):
        return REAL[self.kind].settings
