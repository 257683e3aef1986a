"""How many threads PyTorch computes with."""

import os

import torch

from study.sections import Machine


def set_threads(machine: Machine) -> None:
    """PyTorch's threads in this process: as asked, or the cores that it may use shared among the jobs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(machine.threads or max(1, cores // machine.jobs))
