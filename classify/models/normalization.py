"""The normalisation of images that the published weights of an architecture were trained with."""

from collections.abc import Mapping
from typing import NamedTuple

import torchvision
from torchvision.transforms._presets import ImageClassification

from classify.models import MODELS
from classify.models.timm_networks import timm_config

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# They turn ImageNet's normalisation into this one with `transform_input`, which torchvision sets for its weights
_TRANSFORMS_INPUT = ("googlenet", "inception_v3")
_AFTER_TRANSFORM = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Published(NamedTuple):
    """Mean and standard deviation by channel, of pixels in 0..1, and whose they are."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def published_normalization(name: str, options: Mapping[str, object] | None = None) -> Published | None:
    """That of torchvision's or timm's weights of this network; None where neither publishes weights of it.

    Networks of ours that torchvision has under the same name take its weights, so they are among them.
    """
    if name in torchvision.models.list_models(module=torchvision.models):
        entries = list(torchvision.models.get_model_weights(name))
        return torchvision_normalization(name, options or {}, entries[0].transforms() if entries else None)
    config = None if name in MODELS else timm_config(name)
    if config is None:
        return None
    tag = f".{config.tag}" if config.tag else ""  # an architecture's weights differ, this says whose are meant
    return Published(tuple(config.mean), tuple(config.std), f"of timm's weights {config.architecture}{tag}")


def torchvision_normalization(
    name: str, options: Mapping[str, object], preset: ImageClassification | None
) -> Published:
    """That of weights of torchvision's network `name` whose images `preset` prepares; None: of the usual ones."""
    source = f"of torchvision's weights of {name}"
    if name in _TRANSFORMS_INPUT and not options.get("transform_input", False):
        return Published(*_AFTER_TRANSFORM, f"{source} without transform_input")
    mean, std = (preset.mean, preset.std) if preset else _IMAGENET
    return Published(tuple(mean), tuple(std), source)
