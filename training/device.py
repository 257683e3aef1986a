"""Which arithmetic a training computes in, and how that is decided where it is left open: by measuring.

A processor's flags do not say what is fast: with AMX a product in bfloat16 runs at four times float32's rate, with
AVX512_BF16 alone at half of it, and with neither it is emulated.
"""

import ctypes
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
import torch.utils.deterministic
from torch import Tensor

from pruning.errors import Refusal
from training.checkpoint import State
from training.distributed import from_main, is_main, world_size
from training.products import linear

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_REASONS = MEASURED, ASKED, DEVICE, CHECKPOINT = "measuring", "asking", "the device's kind", "the checkpoint"
_SECONDS = 0.1  # of measuring, where two rounds do not take longer
_FEWEST_ROUNDS = 2
_LEAST_SPEEDUP = 1.1  # less is not worth bfloat16's 8 bits, nor more than so short a measurement tells
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMPILED = ", compiled"
_log = logging.getLogger(__name__)
_JOB_BYTES = 2 * 2**30  # a small detector's training takes about 1 GiB


@dataclass(frozen=True)
class Precision:
    """What a training computes in, `name`: "float32", "bfloat16" or "float16" (autocast's type; weights are float32).

    `asked`: what the config says. `by`: how it was chosen, one of `_REASONS`; "the checkpoint" is the precision of the
    training that is continued. `bfloat16_speedup`: seconds in float32 over those in bfloat16; None: not measured.
    `compiled`: by torch.compile, which rounds in other places.
    """

    name: str
    asked: str
    by: str = ASKED
    bfloat16_speedup: float | None = None
    compiled: bool = False

    @property
    def dtype(self) -> torch.dtype | None:
        """The type for torch.autocast; None for plain float32."""
        return _DTYPES[self.name]

    @property
    def words(self) -> str:
        """As a checkpoint and a report say it: "bfloat16", or "bfloat16, compiled"."""
        return f"{self.name}{_COMPILED}" if self.compiled else self.name

    def as_result(self) -> dict[str, str | float | None]:
        """What result.json says of it; of `compiled` only where it is so."""
        return {key: value for key, value in asdict(self).items() if key != "compiled" or value}

    def of_checkpoint(self, saved: State | None, path: Path) -> "Precision":
        """The one to go on in with the training whose state, `saved`, was read from `path`: that of its first part.

        ValueError if a definite other one is asked for: the two would be mixed in one network.
        """
        if saved is None or saved["precision"] == self.words:
            return self
        name, compiled, _ = saved["precision"].partition(_COMPILED)
        if bool(compiled) != self.compiled:
            was, key = ("compiled", "true") if compiled else ("not compiled", "false")
            raise Refusal(
                f"{path}: a checkpoint of a training that was {was}; set machine.compile to {key} to go on with it, or"
                " delete it to train from the start"
            )
        if self.asked != "auto":
            raise Refusal(
                f"{path}: a checkpoint of a training with precision={name}, not {self.asked}; ask for {name} or auto to"
                " go on with it, or delete it to train from the start"
            )
        _log.warning("%s: made in %s, and the training goes on in that, not in %s", path, name, self.name)
        return replace(self, name=name, by=CHECKPOINT)


def settle(precision: str | Precision, device: str) -> Precision:
    """A definite precision for a device type ("cpu", "cuda"); one that is settled stays as it is.

    "auto" is on the CPU the faster of float32 and bfloat16, measured once in a process; on a GPU bfloat16 where that is
    multiplied, float16 (which needs a GradScaler) on older ones; float32 elsewhere. ValueError for what there is not.
    """
    if isinstance(precision, Precision):
        return precision
    if precision not in PRECISIONS:
        raise Refusal(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "float16" and device != "cuda":
        raise Refusal(f"precision='float16' is for GPUs; on {device!r} take auto, float32 or bfloat16")
    if precision != "auto":
        return Precision(precision, precision)
    if device == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bfloat16" if supported else "float16", precision, DEVICE)
    if device != "cpu":
        return Precision("float32", precision, DEVICE)
    speedup = bfloat16_speedup()
    return Precision("bfloat16" if speedup > _LEAST_SPEEDUP else "float32", precision, MEASURED, speedup)


def settle_together(precision: str | Precision, device: str) -> Precision:
    """As `settle`; of several processes that train together the main one decides for all. All must ask."""
    asked = precision.asked if isinstance(precision, Precision) else precision
    if world_size() == 1 or asked != "auto":
        return settle(precision, device)
    answer = torch.zeros(3, dtype=torch.float64, device=device)
    if is_main():
        ours = settle(precision, device)
        speedup = math.nan if ours.bfloat16_speedup is None else ours.bfloat16_speedup
        answer += torch.tensor([PRECISIONS.index(ours.name), _REASONS.index(ours.by), speedup], device=device)
    name, by, speedup = from_main(answer).tolist()
    return Precision(PRECISIONS[int(name)], asked, _REASONS[int(by)], None if math.isnan(speedup) else speedup)


@cache
def bfloat16_speedup() -> float:
    """Seconds of a convolution and a product, forward and backward, in float32 over those in bfloat16, on this CPU.

    Processor seconds of one thread, the types taking turns, the best time of each: what else the machine does then
    weighs little. (Threads that wait for one another on a busy machine make it useless.)
    """
    works = _convolution(), _product()
    best: dict[tuple[int, str], float] = {}
    start, rounds = time.perf_counter(), 0
    with torch.enable_grad(), _one_thread():
        while rounds <= _FEWEST_ROUNDS or time.perf_counter() - start < _SECONDS:
            for i, work in enumerate(works):
                for name in ("float32", "bfloat16"):
                    seconds = _seconds(work, _DTYPES[name])
                    if rounds:  # the first one warms up
                        best[i, name] = min(seconds, best.get((i, name), seconds))
            rounds += 1
    in_float32, in_bfloat16 = (sum(best[i, name] for i in range(len(works))) for name in ("float32", "bfloat16"))
    return round(in_float32 / in_bfloat16, 3)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _convolution() -> Callable[[], Tensor]:
    """3 x 3 from 64 to 64 channels on 8 maps of 16 x 16, in the layout of the trainings: most of a network's time."""
    x, weight = (_random(*shape).to(memory_format=torch.channels_last) for shape in ((8, 64, 16, 16), (64, 64, 3, 3)))
    x, weight = x.requires_grad_(), weight.requires_grad_()
    return lambda: F.conv2d(x, weight, padding=1)


def _product() -> Callable[[], Tensor]:
    """64 rows of 512 features through a linear layer of 512: a head's layer."""
    x, weight = _random(64, 512).requires_grad_(), _random(512, 512).requires_grad_()
    return lambda: linear(x, weight)


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))  # not from the generator of a training


def _seconds(work: Callable[[], Tensor], dtype: torch.dtype | None) -> float:
    """Processor seconds of this process, forward and backward; casts from float32 and back count, as in training."""
    start = time.process_time()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        y = work()
    y.sum().backward()
    return time.process_time() - start


# cuBLAS needs it, before its first use, to give the same bits each time
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms(wanted: bool | None, device: str) -> Iterator[None]:
    """Within the block PyTorch uses deterministic algorithms, if `wanted`; None: on the CPU yes, elsewhere no.

    On the CPU an operation that has none raises RuntimeError. On a GPU it warns and runs. The gradient of ROIAlign,
    which has none there, is taken by products instead (detect/cpu/roi_align.py).
    """
    on = wanted if wanted is not None else device == "cpu"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if on and device != "cpu":
        os.environ.setdefault(_CUBLAS, ":4096:8")
        logging.getLogger(__name__).info("deterministic on %s, but for operations that warn", device)
    try:
        torch.use_deterministic_algorithms(on, warn_only=device != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def usable_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_that_fit(device: str, threads: int, processes: int = 1) -> int:
    """Trainings of so many processes that there is room for side by side.

    Each process takes a GPU, or `threads` cores and 2 GiB of memory.
    """
    if device != "cpu" and torch.cuda.is_available():
        return max(1, torch.cuda.device_count() // processes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(usable_cores() // max(1, threads), memory // _JOB_BYTES) // processes)


def set_threads(threads: int, *, jobs: int) -> None:
    """PyTorch's threads in this process: as many as asked, or (0) the cores it may use shared among `jobs`.

    COCO's evaluation has as many, from its first use on.
    """
    count = threads or max(1, usable_cores() // jobs)
    torch.set_num_threads(count)
    os.environ["RAYON_NUM_THREADS"] = str(count)  # of hotcoco
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one, instead of giving it back to the system.

    Each large tensor costs page faults otherwise: thousands a step.
    """
    if (allocator := _glibc()) is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        allocator.mallopt(mmap_threshold, 2**30)
        allocator.mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Have glibc give back to the system what is free, after a training, the holes between what is in use included.

    Otherwise a process that trains one network after the other grows by what none of the later ones fits into.
    """
    if (allocator := _glibc()) is not None:
        allocator.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library that this process runs on, if it is glibc."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
