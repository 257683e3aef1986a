"""Random weights of a narrow network by the rule of its own class, where only the constructor knows that rule.

torchvision's and timm's constructors make the layers and then draw their weights: by fan, with one deviation for all,
zeros for the last scale of a branch, each network otherwise. No call of theirs does it again for a network that lost
channels. So the constructor runs once more while each layer is given, as it is made, the widths it has in the narrow
network: what draws the weights then sees narrow layers, and a fan is that of the narrow one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

# the layers that surgery narrows, at the classes that define how they draw what they were just given room for
_LAYERS: tuple[type[nn.Module], ...] = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
_WIDTHS = ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_parameters")


def construct(build: Callable[[], nn.Module]) -> tuple[nn.Module, list[str | None]]:
    """The network that `build` makes, and the names of its layers in the order in which they were made.

    None for a layer that the network did not keep.
    """
    made: list[nn.Module] = []
    with _before_each_draw(made.append):
        model = build()
    names = {id(layer): name for name, layer in model.named_modules()}
    return model, [names.get(id(layer)) for layer in made]


def redraw(small: nn.Module, build: Callable[[], nn.Module], order: Sequence[str | None]) -> None:
    """Give `small`, cut out of a network of `build`, random weights as the constructor draws them, in place.

    `order`: of `construct`. Parameters that belong to no layer, such as a scale for each channel of a branch, stay what
    they are: a part of what the constructor drew. Buffers stay as well.
    """
    layers, names = dict(small.named_modules()), iter(order)

    def narrow(layer: nn.Module) -> None:
        name = next(names)
        if name is not None and name in layers:
            _give_widths(layer, layers[name])

    with _before_each_draw(narrow):
        drawn = dict(build().named_parameters())
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name in drawn and drawn[name].shape == parameter.shape:
                parameter.copy_(drawn[name])


def _give_widths(layer: nn.Module, like: nn.Module) -> None:
    """Make the tensors of a new layer as large as those of `like`; they hold no numbers yet."""
    wanted = {**dict(like.named_parameters(recurse=False)), **dict(like.named_buffers(recurse=False))}
    for name, parameter in list(layer.named_parameters(recurse=False)):
        if name in wanted and wanted[name].shape != parameter.shape:
            setattr(layer, name, nn.Parameter(torch.empty(wanted[name].shape), requires_grad=parameter.requires_grad))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if name in wanted and wanted[name].shape != buffer.shape:
            setattr(layer, name, torch.empty(wanted[name].shape))
    for name in _WIDTHS:
        if hasattr(layer, name) and hasattr(like, name):
            setattr(layer, name, getattr(like, name))


@contextmanager
def _before_each_draw(see: Callable[[nn.Module], None]) -> Iterator[None]:
    """Call `see` with each layer that is about to draw its first weights."""
    own = {kind: kind.reset_parameters for kind in _LAYERS}  # type: ignore[attr-defined]

    def seen_first(kind: type[nn.Module]) -> Callable[[nn.Module], None]:
        def reset_parameters(layer: nn.Module) -> None:
            see(layer)
            own[kind](layer)

        return reset_parameters

    try:
        for kind in _LAYERS:
            kind.reset_parameters = seen_first(kind)  # type: ignore[attr-defined]
        yield
    finally:
        for kind, function in own.items():
            kind.reset_parameters = function  # type: ignore[attr-defined]
