"""The state of an unfinished training in one file, and snapshots of a network; written atomically."""

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

_MOST_NAMES = 3


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain containers; the file at `path` is the old one or the new one, never a part."""
    _write(path, lambda file: torch.save(state, file))


def save_snapshot(path: Path, model: nn.Module) -> None:
    """Write all tensors of a network, parameters and buffers, as safetensors; as atomic as a checkpoint."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    _write(path, lambda file: file.write(save(state)))


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


def check_same_network(path: Path, model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """ValueError unless the tensors `saved` in the checkpoint at `path` have the names and shapes of the model's."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    odd = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if odd:
        of = [f"{name} is {theirs.get(name, 'missing')} there, {ours.get(name, 'missing')} here" for name in odd]
        more = f" and {len(odd) - _MOST_NAMES} more" if len(odd) > _MOST_NAMES else ""
        raise ValueError(
            f"{path}: a checkpoint of another architecture: {'; '.join(of[:_MOST_NAMES])}{more};"
            " delete it to train from the start"
        )


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside `path` and put it there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
