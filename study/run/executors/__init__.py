"""Where stages run: in this process, in worker processes, or as jobs of a Slurm cluster."""

from contextlib import AbstractContextManager

from study.config.sections import Machine
from study.run.executors.executor import Executor, OpenExecutor
from study.run.executors.in_process import in_process
from study.run.executors.workers import workers

__all__ = ["EXECUTORS", "Executor", "check_executor", "open_executor"]


def _local(machine: Machine) -> AbstractContextManager[Executor]:
    return in_process(machine) if machine.n_jobs == 1 else workers(machine)


def _slurm(machine: Machine) -> AbstractContextManager[Executor]:
    from study.run.executors.slurm import slurm  # submitit, which one machine works without

    return slurm(machine)


EXECUTORS: dict[str, OpenExecutor] = {"local": _local, "slurm": _slurm}


def check_executor(machine: Machine) -> None:
    """ValueError in a sentence where what `machine.executor` names is not there, before any work."""
    if machine.executor == "slurm":
        from study.run.executors.slurm import check_cluster

        check_cluster()


def open_executor(machine: Machine) -> AbstractContextManager[Executor]:
    """The executor that `machine.executor` names."""
    return EXECUTORS[machine.executor](machine)
