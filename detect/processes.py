"""Processes that train one detector together, started by Detectron2's `launch`: one a GPU, or gloo ones on the CPU.

IMS_PER_BATCH is the size of the batch over all processes, as in Detectron2, and so is `batch_size` here.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import active_children
from typing import TYPE_CHECKING

import torch
from detectron2.engine import launch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from pruning.errors import Failure, Refusal
from training.stopping import Stopped

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Processes:
    """How many processes train together and where they meet, by the names and meanings of Detectron2's options.

    `num_gpus`: processes on each machine, one a GPU; on a machine without GPUs they compute on its CPU. 0 is the plain
    one process, as is 1. `dist_url`: "auto" is a free port of this machine; several machines need one of machine 0,
    such as tcp://10.0.0.1:29500.
    """

    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    @property
    def total(self) -> int:
        """How many processes there are, on all machines."""
        return max(1, self.num_gpus) * self.num_machines

    def __post_init__(self) -> None:
        if self.num_gpus < 0 or self.num_machines < 1 or not 0 <= self.machine_rank < self.num_machines:
            raise Refusal(
                f"--num-gpus {self.num_gpus} --num-machines {self.num_machines} --machine-rank {self.machine_rank}: "
                "the rank of a machine counts from 0, and there is at least one machine"
            )
        if self.num_machines > 1 and (self.num_gpus == 0 or self.dist_url == "auto"):
            raise Refusal("several machines need --num-gpus and a --dist-url, such as tcp://<machine 0>:29500")

    def check(self, device: str) -> None:
        """ValueError if several processes on this machine cannot train on `device`, "cpu" or "cuda"."""
        there = torch.cuda.device_count()
        if there and device == "cpu":  # Detectron2 connects them by nccl, which sends nothing from a CPU
            raise Refusal("device: cpu and several processes: hide the GPUs by CUDA_VISIBLE_DEVICES=")
        if there and self.num_gpus > there:
            raise Refusal(f"--num-gpus {self.num_gpus}: this machine has {there}")


def run_in_processes(work: Callable[..., None], arguments: tuple[object, ...], processes: Processes) -> int:
    """Call `work(*arguments)` in each process of this machine; returns the exit code of the first that failed, or 0.

    The others are ended then. A signal to this process is passed on to all, which end together; then Stopped is raised.
    """
    p = processes
    try:
        launch(work, p.num_gpus, p.num_machines, p.machine_rank, p.dist_url, arguments)
    except ProcessExitedException as error:
        if error.exit_code > 0:
            return error.exit_code
        raise Failure(
            f"process {error.error_index} was killed ({error.signal_name}); run the same command to go on"
        ) from error
    except ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        if last.startswith("torch.distributed."):
            raise Failure(f"the processes could not meet at {p.dist_url}: {last}") from error
        raise
    except Stopped as stopped:
        _pass_on(signal.SIGTERM if stopped.signum == signal.SIGINT else stopped.signum)
        raise
    return 0


def _pass_on(signum: int) -> None:
    """Send a signal to the processes and wait until they have ended."""
    children = active_children()
    for child in children:
        assert child.pid is not None
        os.kill(child.pid, signum)
    for child in children:
        child.join()
