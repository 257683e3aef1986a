"""What an executor is."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass

from study.config.sections import Machine
from study.stages.stage import Task


@dataclass(frozen=True)
class Executor:
    """`submit(task)` runs `study.run.stage.run_stage` on it somewhere; the future has its line or its error.

    At most `slots` tasks may be under way at a time.
    """

    slots: int
    submit: Callable[[Task], Future[str]]


# Opened for a study; when the block ends by an error, what is under way is told to write its checkpoint and end.
OpenExecutor = Callable[[Machine], AbstractContextManager[Executor]]
