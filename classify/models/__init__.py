"""Every classifier by name, dense or rebuilt from a pruning plan. To add one: a file here, and a line in MODELS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from classify.models.init import initialise
from classify.models.resnet import cifar_resnet, imagenet_resnet
from pruning.groups import Group, find_groups
from pruning.plan import PruningPlan
from pruning.prune import Arch
from pruning.surgery import apply


@dataclass(frozen=True)
class Model:
    """How to build a network, the input side it was made for, and the module names of its stages."""

    build: Callable[..., nn.Module]
    input_size: int
    stages: tuple[str, ...] = ()


_THREE = ("layer1", "layer2", "layer3")
_FOUR = (*_THREE, "layer4")

MODELS: dict[str, Model] = {
    "cifar_resnet": Model(cifar_resnet, 32, _THREE),
    "imagenet_resnet": Model(imagenet_resnet, 224, _FOUR),
    **{f"resnet{d}": Model(partial(cifar_resnet, depth=d), 32, _THREE) for d in (20, 32, 44, 56, 110)},
    **{f"resnet{d}": Model(partial(imagenet_resnet, depth=d), 224, _FOUR) for d in (10, 18, 34, 50, 101, 152)},
}


def list_models() -> list[str]:
    """Our own architectures, then torchvision's classification networks."""
    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    return [*MODELS, *(name for name in torchvision_names if name not in MODELS)]


def get_model(name: str) -> Model:
    """The entry of this name; ValueError lists the known ones."""
    if name in MODELS:
        return MODELS[name]
    if name not in list_models():
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(list_models())}")
    return Model(partial(_build_torchvision, name), 299 if name == "inception_v3" else 224)


def build(name: str, num_classes: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A network with random weights; ValueError for an unknown name or option."""
    try:
        return get_model(name).build(num_classes, **(options or {}))
    except TypeError as error:
        raise ValueError(
            f"architecture {name!r} does not take these options: {dict(options or {})} ({error})"
        ) from error


def example_input(name: str) -> Tensor:
    """A zero image batch (1, 3, H, W) of the size that the architecture was made for."""
    size = get_model(name).input_size
    return torch.zeros(1, 3, size, size)


def channel_groups(name: str, model: nn.Module, example: Tensor | None = None) -> list[Group]:
    """The coupled channel groups of a network built by `build(name, ...)`."""
    return find_groups(model, example_input(name) if example is None else example, stages=get_model(name).stages)


def rebuild(plan: PruningPlan, num_classes: int) -> nn.Module:
    """The pruned architecture of `plan` with random weights that fit its own widths."""
    model = build(plan.arch, num_classes, plan.options)
    if not plan.changes_shape:
        return model
    small = apply(model, plan, channel_groups(plan.arch, model))
    initialise(small)
    return small


def arch(name: str, options: Mapping[str, Any] | None = None) -> Arch:
    """The name and options that a plan records."""
    return Arch(name, dict(options or {}))


def stages_of(name: str) -> Sequence[str]:
    """Module names of the network's stages; empty where it has none."""
    return get_model(name).stages


def _build_torchvision(name: str, num_classes: int, **options: Any) -> nn.Module:
    if name in ("googlenet", "inception_v3"):  # training-only classifiers: their outputs are not logits
        options = {"aux_logits": False, "init_weights": True, **options}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
