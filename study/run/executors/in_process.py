"""Stages one after the other in this process."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from study.config.sections import Machine
from study.run.executors.executor import Executor
from study.run.stage import run_stage
from study.stages.stage import Task
from training.device import set_threads


@contextmanager
def in_process(machine: Machine) -> Iterator[Executor]:
    """An executor that has run a task when `submit` returns."""
    set_threads(machine.threads, jobs=machine.n_jobs)
    yield Executor(slots=1, submit=_run_now)


def _run_now(task: Task) -> Future[str]:
    future: Future[str] = Future()
    try:
        future.set_result(run_stage(task))
    except Exception as error:  # not Stopped: a signal to this process ends the study, not a stage
        future.set_exception(error)
    return future
