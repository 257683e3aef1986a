"""The state of an unfinished training in one file, written atomically."""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain containers; the file at `path` is the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path, *, required: Collection[str], device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint that has the `required` keys; ValueError in one sentence if it is damaged or something else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises many types on a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a readable checkpoint ({reason}); delete it to train from the start") from error
    missing = set(required) - set(state if isinstance(state, dict) else ())
    if missing:
        raise ValueError(f"{path}: a checkpoint has {', '.join(sorted(missing))}, this file has not")
    return state
