"""Weights of torchvision's classification networks, in PyTorch's cache."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from classify.models.normalization import torchvision_normalization
from classify.published.preset import Preset
from pruning.errors import Refusal
from training.type_words import known

_CLASSES = 1000  # of a head that torchvision says nothing of: one for features alone, whose numbers are none
# torchvision's DenseNets were published before a layer's parts got the names that they have now
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def preset(arch: str, tag: str, options: Mapping[str, object]) -> Preset:
    """That of an entry of torchvision's weights, such as IMAGENET1K_V2 or DEFAULT."""
    entry = _entry(arch, tag)
    transforms = entry.transforms()
    mean, std, _ = torchvision_normalization(arch, options, transforms)
    return Preset(
        f"torchvision:{entry.name}",
        mean,
        std,
        transforms.crop_size[0],
        len(entry.meta["categories"] or ()) or _CLASSES,
        f"put {entry.url} into {_cache()}, or run once where it can be fetched",
    )


def cached(arch: str, tag: str) -> Path | None:
    """The file in the folder that torch.hub keeps checkpoints in."""
    file = _cache() / Path(urlparse(_entry(arch, tag).url).path).name
    return file if file.is_file() else None


def fetch(arch: str, tag: str) -> None:
    """Download by torchvision, which compares the beginning of the SHA-256 with the one in the file's name."""
    _entry(arch, tag).get_state_dict(progress=False, check_hash=True, weights_only=True)


def renamed(arch: str, tag: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of today's networks."""
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}


def _entry(arch: str, tag: str) -> WeightsEnum:
    """The entry of torchvision's enumeration of this network's weights."""
    if arch not in torchvision.models.list_models(module=torchvision.models):
        raise Refusal(f"torchvision:{tag}: torchvision has no classification network {arch!r}")
    entries = torchvision.models.get_model_weights(arch)
    known(tag, ("DEFAULT", *(entry.name for entry in entries)), f"torchvision's weights of {arch}")
    return entries[tag]


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
