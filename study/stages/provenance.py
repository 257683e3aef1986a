"""Where a result comes from: versions, device, commit."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "torch torchvision detectron2 torch-pruning fvcore pycocotools faster-coco-eval numpy scikit-learn prune-transfer"
).split()


@cache
def environment() -> dict[str, Any]:
    """Versions, device and git state; nothing of the environment's variables."""
    return {"versions": _versions(), "device": _device(), "git": _git()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "detectron2" not in found:
        found["detectron2"] = _detectron2_version()
    return found


def _detectron2_version() -> str:
    """Detectron2 is published under several distribution names."""
    for name in ("sal-detectron2",):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _device() -> dict[str, Any]:
    if torch.cuda.is_available():
        return {"type": "cuda", "name": torch.cuda.get_device_name(), "threads": torch.get_num_threads()}
    name = torch.cpu.get_capabilities().get("cpu_name", "") if hasattr(torch.cpu, "get_capabilities") else ""
    return {"type": "cpu", "name": str(name) or platform.processor(), "threads": torch.get_num_threads()}


def _git() -> dict[str, Any]:
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
