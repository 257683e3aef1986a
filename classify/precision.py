"""Which arithmetic a device is fast in."""

from pathlib import Path

import torch

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
