"""Which arithmetic a device is fast in."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.utils.deterministic
from torch import nn

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """The type for torch.autocast on a device type ("cpu", "cuda"); None for plain float32.

    "auto" takes bfloat16 only where the hardware multiplies it, and float16 on older GPUs; float16 needs a GradScaler.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "float16" and device != "cuda":
        raise ValueError(f"precision='float16' is for GPUs; on {device!r} take auto, float32 or bfloat16")
    if precision == "float16":
        return torch.float16
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device == "cpu" and cpu_multiplies_bfloat16() else None


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 products (AMX, AVX-512); elsewhere they are emulated, and slow."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    cpuinfo = Path("/proc/cpuinfo")  # PyTorch before 2.11 does not say; this file is Linux's
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    return "amx_bf16" in flags or "avx512_bf16" in flags


# In float32 on a CPU, PyTorch reorders the gradient of a channels-last weight back and forth; for a convolution with
# more weights than this that takes longer than channels-last saves (256 x 256 x 3 x 3 has 590 thousand; measured
# at batch 4 and 128 pixels, where it is a third of such a layer's time).
_MOST_WEIGHTS = 500_000


@contextmanager
def channels_last(model: nn.Module, *, dtype: torch.dtype | None) -> Iterator[None]:
    """Within the block the model computes on (N, H, W, C) in memory; shapes and values are the same.

    `dtype` is autocast's, None for float32. On leaving, all weights are contiguous again.
    """
    model.to(memory_format=torch.channels_last)
    hooks = []
    if dtype is None and all(p.device.type == "cpu" for p in model.parameters()):
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > _MOST_WEIGHTS:
                module.to(memory_format=torch.contiguous_format)
                hooks.append(module.register_forward_pre_hook(_contiguous_input))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.to(memory_format=torch.contiguous_format)


def _contiguous_input(module: nn.Module, inputs: tuple) -> tuple:
    return tuple(x.contiguous() for x in inputs)


# cuBLAS needs it, before its first use, to give the same bits each time
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms(wanted: bool | None, device: str) -> Iterator[None]:
    """Within the block PyTorch uses deterministic algorithms, if `wanted`; None: on the CPU yes, elsewhere no.

    On the CPU an operation that has none raises RuntimeError. On a GPU it warns and runs: ROIAlign's gradient, for
    one, has none there.
    """
    on = wanted if wanted is not None else device == "cpu"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if on and device != "cpu":
        os.environ.setdefault(_CUBLAS, ":4096:8")
        logging.getLogger(__name__).info("deterministic on %s: operations without such a form only warn", device)
    try:
        torch.use_deterministic_algorithms(on, warn_only=device != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def set_threads(threads: int, *, jobs: int) -> None:
    """PyTorch's threads in this process: as many as asked, or (0) the cores it may use shared among `jobs`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores // jobs))
