"""Stages side by side in worker processes of this machine: with GPUs of their own where there are several."""

import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context

import torch

from pruning.errors import Failure
from study.config.sections import Machine
from study.run.executors.executor import Executor
from study.run.stage import run_stage
from study.stages.stage import Task
from training.device import set_threads
from training.stopping import end_with_parent, stop_on_signals

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def workers(machine: Machine) -> Iterator[Executor]:
    """`machine.jobs` processes. One that dies takes only its stage with it, and is replaced."""
    pool = _Workers(machine)
    try:
        yield Executor(machine.n_jobs, pool.submit)
    except BaseException:
        pool.stop()
        raise
    pool.close()


class _Workers:
    """A pool of one process for each slot: when a process dies its pool is of no use any more, the others are.

    Each slot has as many GPUs as a stage takes; more slots than there are GPUs for share them in turn.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        # as this process sees them; each worker is then given some by the same names
        devices, size = visible_devices(), machine.gpus_per_stage
        # only whole sets: GPUs that are left over stay idle
        self.devices = [",".join(devices[i : i + size]) for i in range(0, len(devices) - size + 1, size)]
        self.pools: dict[int, ProcessPoolExecutor] = {}
        self.free = list(range(machine.n_jobs))[::-1]  # taken from the end, so slot 0 first

    def submit(self, task: Task) -> Future[str]:
        # there is one: the scheduler submits no more than there are slots
        slot = self.free.pop()
        outcome: Future[str] = Future()
        running = self._pool(slot).submit(_work, task)
        # The scheduler waits for `outcome`, not for `running`: when it hears of the end, the slot must be free again.

        def hand_over(done: Future[str]) -> None:
            # called in a thread of the pool; appending to a list needs no lock
            self.free.append(slot)
            if done.cancelled():
                outcome.cancel()
                return
            error = done.exception()
            if isinstance(error, BrokenProcessPool):
                # there is nobody left to wait for; the next stage in this slot gets a new process
                self.pools.pop(slot).shutdown(wait=False)
                error = Failure("its process died (killed, or out of memory); run the same command to go on")
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(done.result())

        running.add_done_callback(hand_over)
        return outcome

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown()

    def stop(self) -> None:
        """Have the stages end after their step; a second Ctrl-C does not wait for them."""
        # SIGTERM has each training write its checkpoint and end (`stop_on_signals`); `shutdown` waits for that.
        processes = active_children()
        try:
            for process in processes:
                process.terminate()
            for pool in list(self.pools.values()):
                pool.shutdown(cancel_futures=True)
        except BaseException:
            for process in processes:
                process.kill()
            raise

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        if slot not in self.pools:
            # spawned, not forked: CUDA cannot be used in a fork of a process that has touched it
            # with one set or none there is nothing to share out: a worker sees what this process sees
            device = self.devices[slot % len(self.devices)] if len(self.devices) > 1 else None
            self.pools[slot] = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_prepare, initargs=(self.machine, device)
            )
        return self.pools[slot]


def visible_devices() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    named = os.environ.get(_VISIBLE)
    # an empty text hides all GPUs, where no such variable shows all
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]


def _prepare(machine: Machine, device: str | None) -> None:
    """In a new worker: its GPU, before CUDA is used; its threads; no life longer than its parent's."""
    if device is not None:
        os.environ[_VISIBLE] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the parent passes it on as SIGTERM
    warnings.simplefilter("ignore")
    set_threads(machine.threads, jobs=machine.n_jobs)
    end_with_parent()


def _work(task: Task) -> str:
    with stop_on_signals():
        return run_stage(task)
