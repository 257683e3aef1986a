"""The work of one stage in several processes of this machine: one a GPU, or gloo ones on the CPU."""

import logging
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch

from pruning.errors import Failure
from study.run.log import log_into
from study.stages.progress import Recorder
from study.stages.stage import KINDS, Context, Task, device_of
from training.device import deterministic_algorithms, set_threads
from training.distributed import process_group
from training.stopping import Stopped, end_with_parent, stop_on_signals

_log = logging.getLogger(__name__)
_PATIENCE = 20.0  # seconds that a process has to end where another one failed, for which it may wait


def run_here(task: Task, report: Recorder | None) -> dict[str, object]:
    """What the stage's kind does, in this process; `report` None in one that another one reports for."""
    context = Context(task.stage, task.runs, task.machine, report, task.precision)  # type: ignore[arg-type]
    with deterministic_algorithms(task.machine.deterministic, context.device):
        return KINDS[task.stage.kind].run(context)


@dataclass(frozen=True)
class _Member:
    """One of the processes, and what it says at its end: what it found, or the error that ended it."""

    process: SpawnProcess
    says: Connection


def run_together(task: Task, processes: int) -> dict[str, object]:
    """As `run_here`, in so many new processes; a signal to this one ends them after their step.

    What one of them raises is raised here, and the others are ended; Failure if one is killed.
    """
    # this process waits meanwhile, so its threads are there to be shared out
    threads = task.machine.threads or max(1, torch.get_num_threads() // processes)
    members: list[_Member] = []
    with TemporaryDirectory() as folder:
        try:
            for rank in range(processes):
                members.append(_start(task, rank, processes, threads, Path(folder) / "meeting"))
            return _wait(members)
        except BaseException:
            _end(members)
            raise


def _start(task: Task, rank: int, processes: int, threads: int, meeting: Path) -> _Member:
    spawn = get_context("spawn")  # CUDA cannot be used in a fork of a process that has touched it
    says, tell = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(task, rank, processes, threads, meeting, tell))
    process.start()
    tell.close()  # so that the end of the process is the end of the pipe
    return _Member(process, says)


def _wait(members: Sequence[_Member]) -> dict[str, object]:
    """Until all have ended: what the first one found. Raises what ended the one that failed first."""
    left = {member.says: member for member in members}
    found: dict[str, object] = {}
    while left:
        for says in wait(list(left)):
            assert isinstance(says, Connection)
            try:
                said = says.recv()
            except EOFError:
                # the end of the pipe without a word is the end of the process
                said = Failure(
                    f"one of its {len(members)} processes died (killed, or out of memory); run the same command to go"
                    " on"
                )
            if isinstance(said, BaseException):
                _end(members, None if isinstance(said, Stopped) else _PATIENCE)  # all write their checkpoint then
                raise said
            # only the first process has something to say, the others say {}
            found |= said
            left.pop(says).process.join()
    return found


def _end(members: Sequence[_Member], patience: float | None = None) -> None:
    """Have them end after their step; those that have not within so many seconds are killed. None: all do."""
    left = [member.process for member in members if member.process.is_alive()]
    try:
        for process in left:
            process.terminate()
        for process in left:
            process.join(patience)
    finally:  # a second Ctrl-C does not wait for them
        for process in left:
            if process.is_alive():
                process.kill()
                process.join()


def _work(task: Task, rank: int, processes: int, threads: int, meeting: Path, tell: Connection) -> None:
    """What each process does; the first one has the result, and reports."""
    # as torchrun sets them: whoever asks for the rank need not know who started the processes
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    warnings.simplefilter("ignore")
    set_threads(threads, jobs=1)
    end_with_parent()
    try:
        with stop_on_signals(), log_into(task.run), process_group(device_of(task.machine), meeting):
            # of a terminal: the parent passes it on as SIGTERM
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                # told before the process group is left, which waits for processes that may wait for this one
                found = run_here(task, Recorder(task.run, task.label) if rank == 0 else None)
            except BaseException as error:
                _fail(error, tell)
    except BaseException as error:
        _fail(error, tell)
    tell.send(found)


def _fail(error: BaseException, tell: Connection) -> NoReturn:
    """Say so and end at once: taking leave of the others may take for ever where they wait for this one."""
    if isinstance(error, Exception):
        _log.error("one of the processes failed", exc_info=error)
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # it cannot travel
        error = Failure(f"{type(error).__name__}: {error}")
    tell.send(error)
    os._exit(1)
