"""Where a result comes from: versions, device, commit."""

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import torch

_PACKAGES = ("torch torchvision torch-pruning fvcore pycocotools hotcoco numpy scikit-learn prune-transfer").split()
_AMPERE = (8, 0)  # the first GPUs with TF32


def environment(device: str) -> dict[str, object]:
    """Versions, the device ("cpu", "cuda") that computed, git state; nothing of the environment's variables."""
    return {"versions": _versions(), "device": _device(device), "git": _git()}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"detectron2": _detectron2_version()}


def _detectron2_version() -> str:
    """The user's own, or else the wheel that tools/install.py takes.

    With the commit where pip noted one (PEP 610): upstream has called itself 0.6 since 2021.
    """
    for name in ("detectron2", "sal-detectron2"):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        commit = origin.get("vcs_info", {}).get("commit_id")
        return f"{found.version} at {commit[:12]}" if commit else found.version
    return "unknown"


def _device(device: str) -> dict[str, object]:
    """The device, and what PyTorch chooses by it: the width of vectors on a CPU, TF32 for float32 on a GPU."""
    threads = torch.get_num_threads()
    if device.startswith("cuda"):
        tf32 = {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32}
        used = [name for name, on in tf32.items() if on and torch.cuda.get_device_capability() >= _AMPERE]
        name = torch.cuda.get_device_name()
        return {"type": "cuda", "name": name, "threads": threads, "tf32": " and ".join(used) or "none"}
    name = torch.cpu.get_capabilities().get("cpu_name", "") if hasattr(torch.cpu, "get_capabilities") else ""
    vectors = torch.backends.cpu.get_cpu_capability()
    return {"type": device, "name": str(name) or platform.processor(), "vectors": vectors, "threads": threads}


@cache
def _git() -> dict[str, object]:
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", __file__)  # or it is another's, such as one that holds a `.venv`
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
