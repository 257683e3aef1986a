"""A user's own weights: a safetensors file or a PyTorch checkpoint, loaded strictly.

What people's training programs put around weights is taken off, and said: the entry of a checkpoint that they are in,
and what stands before every name. Names and shapes must then be those of the network, and every number finite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pruning.errors import Refusal

# entries of checkpoints; moving averages are another network than the weights beside them
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "params_ema")
# before every name: DistributedDataParallel, torch.compile, Lightning and other programs around a network
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel, beside `module.`
# counters that checkpoints of PyTorch before 0.4.1 lack; they do not influence what a network computes
_MAY_BE_MISSING = "num_batches_tracked"
_MOST_NAMES = 3


@dataclass(frozen=True)
class GivenWeights:
    """Tensors by name, floating-point ones in float32, and in sentences what was taken off or converted."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def read_given_weights(path: Path) -> GivenWeights:
    """The weights in a file, without what is around them.

    ValueError for a file that holds anything but tensors, that only code in it could restore, in which several entries
    could be meant, or with a number that is not finite.
    """
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file of weights")
    notes: list[str] = []
    data = _unwrapped(_read_safetensors(path) if _is_safetensors(path) else _read_checkpoint(path), path, "", notes)
    odd = [str(name) for name, value in data.items() if not isinstance(value, Tensor)]
    if odd:
        raise Refusal(
            f"{path}: {_some(odd)} {'is' if len(odd) == 1 else 'are'} no tensor; not a file of weights: tensors by name"
            f" are expected, or these as {_either(_WRAPPERS)}"
        )
    named = _without_prefixes({str(name): value for name, value in data.items() if isinstance(value, Tensor)}, notes)
    return GivenWeights(_in_float32(named, path, notes), tuple(notes))


def _unwrapped(data: object, path: Path, place: str, notes: list[str]) -> Mapping[object, object]:
    """The mapping that the weights are in, however deep; ValueError where two could be meant."""
    if not isinstance(data, Mapping) or not data:
        raise Refusal(f"{path}: no weights in it; tensors by name are expected, or these as {_either(_WRAPPERS)}")
    plain = [name for name in _WRAPPERS if isinstance(data.get(name), Mapping) and data[name]]
    averages = [name for name in _AVERAGES if isinstance(data.get(name), Mapping) and data[name]]
    found = plain or averages
    if not found:
        return data
    if len(found) > 1:
        raise Refusal(
            f"{path}: weights are in it as {_both(found)}: which are meant cannot be told; save one of them alone"
        )
    place = f"{place}.{found[0]}" if place else found[0]
    notes.append(
        f"taken from {place!r}" + (f"; not the moving averages in {_both(averages)}" if plain and averages else "")
    )
    return _unwrapped(data[found[0]], path, place, notes)


def _without_prefixes(data: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The names without what stands before every one of them."""
    taken_off = ""
    while data:
        names = data.keys() - {_AVERAGED}
        prefix = next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), None)
        if prefix is None or (_AVERAGED in data and prefix != "module."):
            break
        data = {name.removeprefix(prefix): tensor for name, tensor in data.items() if name != _AVERAGED}
        taken_off += prefix
    if taken_off:
        notes.append(f"{taken_off!r} taken off the names")
    return data


def _in_float32(data: dict[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Floating-point tensors in float32; ValueError for numbers that are not finite, or not there."""
    plain = {name: t for name, t in data.items() if t.layout == torch.strided and not (t.is_quantized or t.is_meta)}
    if len(plain) < len(data):
        raise Refusal(f"{path}: {_some(sorted(data.keys() - plain.keys()))}: not a dense tensor with its numbers")
    types = {str(t.dtype).removeprefix("torch.") for t in data.values() if t.is_floating_point()} - {"float32"}
    if types:
        notes.append(f"converted from {' and '.join(sorted(types))} to float32")
    found = {name: t.float() if t.is_floating_point() else t for name, t in data.items()}
    odd = [name for name, t in found.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if odd:
        raise Refusal(f"{path}: numbers that are not finite (NaN or infinite) in {len(odd)} tensors: {_some(odd)}")
    return found


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
    kinds = [
        f"{name} {str(weights[name].dtype).removeprefix('torch.')}"
        for name, tensor in wanted.items()
        if name in weights
        and not name.endswith(_MAY_BE_MISSING)
        and weights[name].is_floating_point() != tensor.is_floating_point()
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", odd), ("of another type", kinds))
    faults = [f"{len(names)} {word}: {_some(names)}" for word, names in found if names]
    if faults:
        raise Refusal(f"{source}: the weights do not fit the network; {'; '.join(faults)}")
    model.load_state_dict({**wanted, **weights})


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its JSON header, in eight bytes, and the header."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Refusal(f"{path}: not readable as safetensors ({error})") from error


def _read_checkpoint(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on a damaged file
        raise Refusal(
            f"{path}: not readable as weights: it is damaged, or holds more than tensors and plain values, which only"
            " code from the file could restore; save the network's state_dict() instead"
        ) from error


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _both(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)
