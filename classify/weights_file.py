"""A user's own weights: a safetensors file or a PyTorch checkpoint, loaded strictly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."  # of DistributedDataParallel
# counters that checkpoints of PyTorch before 0.4.1 lack; they do not influence what a network computes
_MAY_BE_MISSING = "num_batches_tracked"
_MOST_NAMES = 3


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Tensors by name; the wrapper `state_dict` or `model` and the prefix `module.` are taken off.

    ValueError for a file that holds anything but tensors, or that only code in it could restore.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights")
    data: Any = _read_safetensors(path) if _is_safetensors(path) else _read_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(data, Mapping) and isinstance(data.get(wrapper), Mapping):
            data = data[wrapper]
    if not isinstance(data, Mapping) or not data:
        raise ValueError(f"{path}: no weights in it; tensors by name are expected, or these as {_either(_WRAPPERS)}")
    odd = [str(name) for name, value in data.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{path}: {_some(odd)} {'is' if len(odd) == 1 else 'are'} no tensor; not a file of weights")
    wrapped = all(str(name).startswith(_PREFIX) for name in data)
    return {str(name).removeprefix(_PREFIX) if wrapped else str(name): tensor for name, tensor in data.items()}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load into `model`, in place; ValueError names the first entries that do not fit, and then nothing is loaded."""
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in weights and not n.endswith(_MAY_BE_MISSING)]
    unexpected = [name for name in weights if name not in wanted]
    odd = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", odd))
    faults = [f"{len(names)} {word}: {_some(names)}" for word, names in found if names]
    if faults:
        raise ValueError(f"{source}: the weights do not fit the network; {'; '.join(faults)}")
    model.load_state_dict({**wanted, **weights})


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its JSON header, in eight bytes, and the header."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on a damaged file
        raise ValueError(
            f"{path}: not readable as weights: it is damaged, or holds more than tensors and plain values, which only"
            " code from the file could restore; save the network's state_dict() instead"
        ) from error


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)
