"""Every classifier by name, dense or rebuilt from a pruning plan. To add one: a file here, and a line in MODELS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature

import torch
import torchvision
from torch import Tensor, nn

from classify.models.densenet import cifar_densenet
from classify.models.init import initialise, initialise_glorot
from classify.models.lenet import conv_net, lenet5, lenet_300_100
from classify.models.own_rule import construct, redraw
from classify.models.preresnet import cifar_preresnet, imagenet_preresnet
from classify.models.resnet import cifar_resnet, imagenet_resnet
from classify.models.timm_networks import find_timm
from classify.models.vgg import (
    cifar_vgg,
    imagenet_vgg,
    imagenet_vgg_slimming,
    initialise_cifar,
    initialise_imagenet,
    initialise_slimming,
)
from pruning.cut import Arch
from pruning.errors import Refusal
from pruning.graph.groups import find_groups
from pruning.graph.members import Group
from pruning.plan import PruningPlan
from pruning.surgery import apply
from training.type_words import did_you_mean


@dataclass(frozen=True)
class Model:
    """How to build a network, the images it was made for, the module names of its stages, and its random weights.

    `init` None: the constructor draws the weights (torchvision's networks do).
    """

    build: Callable[..., nn.Module]
    input_size: int
    stages: tuple[str, ...] = ()
    in_channels: int = 3
    init: Callable[[nn.Module], None] | None = initialise


_THREE = ("layer1", "layer2", "layer3")
_FOUR = (*_THREE, "layer4")
_DENSE = ("dense1", "dense2", "dense3")
# Network slimming starts BatchNorm scales at one half; the nets that the study prunes by magnitude start at one.
_half = partial(initialise, gamma=0.5)

MODELS: dict[str, Model] = {
    "lenet_300_100": Model(lenet_300_100, 28, in_channels=1, init=initialise_glorot),
    "lenet5": Model(lenet5, 28, in_channels=1, init=initialise_glorot),
    **{f"conv{d}": Model(partial(conv_net, depth=d), 32, init=initialise_glorot) for d in (2, 4, 6)},
    "cifar_resnet": Model(cifar_resnet, 32, _THREE),
    "imagenet_resnet": Model(imagenet_resnet, 224, _FOUR),
    **{f"resnet{d}": Model(partial(cifar_resnet, depth=d), 32, _THREE) for d in (20, 32, 44, 56, 110)},
    **{f"resnet{d}": Model(partial(imagenet_resnet, depth=d), 224, _FOUR) for d in (10, 18, 34, 50, 101, 152)},
    "cifar_preresnet": Model(cifar_preresnet, 32, _THREE, init=_half),
    "preresnet110": Model(partial(cifar_preresnet, depth=110), 32, _THREE),
    "preresnet164": Model(partial(cifar_preresnet, depth=164), 32, _THREE, init=_half),
    **{f"preresnet{d}": Model(partial(imagenet_preresnet, depth=d), 224, _FOUR) for d in (50, 101, 152)},
    "cifar_densenet": Model(cifar_densenet, 32, _DENSE, init=_half),
    "densenet40": Model(partial(cifar_densenet, depth=40), 32, _DENSE, init=_half),
    "densenet_bc100": Model(partial(cifar_densenet, depth=100, bottleneck=True, compression=0.5), 32, _DENSE),
    "vgg16_l1": Model(partial(cifar_vgg, depth=16, hidden=512), 32, init=initialise_cifar),
    **{f"vgg{d}_slim": Model(partial(cifar_vgg, depth=d), 32, init=initialise_cifar) for d in (11, 13, 16, 19)},
    "vgg11_slim_imagenet": Model(partial(imagenet_vgg_slimming, depth=11), 224, init=initialise_slimming),
    **{f"vgg{d}": Model(partial(imagenet_vgg, depth=d), 224, init=initialise_imagenet) for d in (11, 13, 16, 19)},
    **{
        f"vgg{d}_bn": Model(partial(imagenet_vgg, depth=d, norm=True), 224, init=initialise_imagenet)
        for d in (11, 13, 16, 19)
    },
}


def list_models() -> list[str]:
    """Our own architectures, then torchvision's classification networks."""
    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    return [*MODELS, *(name for name in torchvision_names if name not in MODELS)]


def get_model(name: str) -> Model:
    """The entry of this name: ours, torchvision's, or timm's where it is installed; ValueError lists the known ones.

    `timm/<name>` is timm's where several have a network of that name.
    """
    if name in MODELS:
        return MODELS[name]
    if name not in list_models():
        found = find_timm(name)
        if found is None:
            known = list_models()
            hint, names = did_you_mean(name, known), ", ".join(known)
            raise Refusal(f"unknown architecture {name!r}; {hint}known: {names}; and timm's where timm is installed")
        return Model(*found, init=None)
    return Model(partial(_build_torchvision, name), 299 if name == "inception_v3" else 224, init=None)


def build(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> nn.Module:
    """A network with random weights; ValueError for an unknown name or option."""
    model, init = construct_alone(name, num_classes, options), get_model(name).init
    if init is not None:
        init(model)
    return model


def construct_alone(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> nn.Module:
    """As `build`, with the weights that the constructor draws."""
    try:
        return get_model(name).build(num_classes, **(options or {}))
    except TypeError as error:
        raise Refusal(f"architecture {name!r} does not take these options: {dict(options or {})} ({error})") from error


def own_defaults(name: str) -> dict[str, object]:
    """The defaults of the options of one of our own architectures; those of others are not known."""
    parameters = signature(MODELS[name].build).parameters if name in MODELS else {}
    return {option: each.default for option, each in parameters.items() if each.default is not Parameter.empty}


def example_input(name: str, options: Mapping[str, object] | None = None) -> Tensor:
    """A zero image batch (1, C, H, W) of the channels and the size that the architecture was made for."""
    entry, given = get_model(name), options or {}
    size = _whole("image_size", given.get("image_size", entry.input_size))
    return torch.zeros(1, in_channels(name, options), size, size)


def in_channels(name: str, options: Mapping[str, object] | None = None) -> int:
    """The channels of the images that the network reads; timm calls the option `in_chans`."""
    given = options or {}
    return _whole("in_channels", given.get("in_channels", given.get("in_chans", get_model(name).in_channels)))


def _whole(option: str, value: object) -> int:
    if not isinstance(value, int):
        raise Refusal(f"the option {option} is a whole number, not {value!r}")
    return value


def trace_input(name: str, options: Mapping[str, object] | None = None) -> Tensor:
    """As `example_input`, cut by `traced_part`."""
    return traced_part(name, example_input(name, options))


def traced_part(name: str, example: Tensor) -> Tensor:
    """Of a batch (N, C, H, W) what layers are found on: at most 64x64 for our own networks.

    They compute the same layers on it, in less time and memory.
    """
    return example[:, :, :64, :64] if name in MODELS else example


def channel_groups(name: str, model: nn.Module, example: Tensor | None = None) -> list[Group]:
    """The coupled channel groups of a network built by `build(name, ...)`; `example` as in `trace_input` if None."""
    return find_groups(model, trace_input(name) if example is None else example, stages=get_model(name).stages)


def rebuild(plan: PruningPlan, num_classes: int) -> nn.Module:
    """The pruned architecture of `plan` with random weights that fit its own widths, by the dense network's rule."""
    dense = partial(build, plan.arch, num_classes, plan.options)
    if not plan.changes_shape:
        return dense()
    model, order = construct(dense)
    small = apply(model, plan, channel_groups(plan.arch, model, trace_input(plan.arch, plan.options)))
    init = get_model(plan.arch).init
    if init is None:
        redraw(small, dense, order)
    else:
        init(small)
    return small


def arch(name: str, options: Mapping[str, object] | None = None) -> Arch:
    """The name and options that a plan records."""
    return Arch(name, dict(options or {}))


def stages_of(name: str) -> Sequence[str]:
    """Module names of the network's stages; empty where it has none."""
    return get_model(name).stages


def _build_torchvision(name: str, num_classes: int, **options: object) -> nn.Module:
    if name in ("googlenet", "inception_v3"):  # training-only classifiers: their outputs are not logits
        if options.get("aux_logits"):
            raise Refusal(f"architecture {name!r} is built without its training-only classifiers; drop aux_logits")
        options = {"aux_logits": False, "init_weights": True, **options}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
