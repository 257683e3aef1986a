"""Processes that train one network together: who they are, and which images of a batch each one takes.

torchrun starts them. A batch is dealt out like cards, so that every part of a batch that is computed at once has the
same images in it, whatever the number of processes.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pruning.errors import Failure, Refusal


def world_size() -> int:
    """How many processes train together; 1 outside of `process_group`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Is this the process that writes files and reports?"""
    return rank() == 0


def launched_processes() -> int:
    """How many processes torchrun started; 1 if this one was started by hand."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: str, meeting: Path | None = None) -> Iterator[None]:
    """Within the block the processes that torchrun started are connected: nccl for "cuda", gloo for "cpu".

    `meeting`: a file that does not exist, where they meet; None: as torchrun says.
    """
    if launched_processes() == 1:
        yield
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise Refusal(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=None if meeting is None else meeting.absolute().as_uri(),
        rank=int(os.environ["RANK"]),
        world_size=launched_processes(),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_images() -> slice:
    """The images of a batch that this process takes: every `world_size()`-th from its rank on."""
    return slice(rank(), None, world_size()) if world_size() > 1 else slice(None)


def own_parts(n: int, parts: int) -> list[slice]:
    """Cut a batch of `n` images into `parts`: the slice of this process's images that is in each; empty parts left out.

    The cuts are at n * a // parts, so that they do not depend on the number of processes. A slice may be empty where
    another process has images in the part.
    """
    cuts = [n * a // parts for a in range(parts + 1)]
    # this process's image j is image rank + j * world_size of the batch
    own = [-((rank() - cut) // world_size()) for cut in cuts]
    return [slice(own[a], own[a + 1]) for a in range(parts) if cuts[a] < cuts[a + 1]]


def data_parallel(model: nn.Module) -> nn.Module:
    """`model`, or where several processes train it a wrapper that averages their gradients; it starts as rank 0's."""
    if world_size() == 1:
        return model
    # buffers stay equal without being sent: normalisation is synchronised, and all else is computed alike
    return DistributedDataParallel(model, broadcast_buffers=False)


def averaged_later(network: nn.Module, later: bool) -> AbstractContextManager[None]:
    """Within the block a backward pass leaves the gradients of `data_parallel(model)` unaveraged, if `later`."""
    return network.no_sync() if later and isinstance(network, DistributedDataParallel) else nullcontext()


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's `values`, in all of them."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of every process's `values`, in all of them."""
    return sum_over_processes(values) / world_size()


def from_main(values: Tensor) -> Tensor:
    """The main process's `values`, in all of them."""
    if world_size() > 1:
        dist.broadcast(values, src=0)
    return values


def any_process(flag: bool, device: str) -> bool:
    """Is `flag` set in one of the processes? All must ask."""
    return flag if world_size() == 1 else bool(sum_over_processes(torch.tensor(int(flag), device=device)))


def check_equal(value: int, what: str, device: str) -> None:
    """RuntimeError in all processes unless they all have the same `value`."""
    if world_size() == 1:
        return
    values = torch.zeros(world_size(), dtype=torch.int64, device=device)
    values[rank()] = value
    found = sum_over_processes(values).tolist()
    if len(set(found)) > 1:
        raise Failure(f"the processes disagree about {what}: {found}; do all see the same run directory?")
