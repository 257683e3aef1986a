"""VGG networks: the CIFAR forms of filter pruning and of network slimming, and the ImageNet forms.

Simonyan & Zisserman, ICLR 2015 (arXiv 1409.1556), table 1. The CIFAR forms have BatchNorm, 32x32 inputs and no last
max-pool; their layer names are those of the released code of Liu et al., ICLR 2019. The ImageNet forms are
torchvision's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torchvision
from torch import Tensor, nn

from classify.models.init import initialise
from pruning.errors import Refusal

Head = Literal["linear", "gap"]

# convolutions of each of the five stages; a max-pool follows each stage
_STAGES: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS = (64, 128, 256, 512, 512)

initialise_cifar = partial(initialise, gamma=0.5, linear_std=0.01)
initialise_imagenet = partial(initialise, linear_std=0.01)
initialise_slimming = partial(initialise, gamma=0.5, hidden_gamma=0.5, linear_std=0.01)


class CifarVGG(nn.Module):
    """Input (N, 3, H, W), made for 32x32; output (N, num_classes) logits. `hidden`: width of a hidden linear layer."""

    def __init__(self, stages: Sequence[int], num_classes: int, *, hidden: int | None, conv_bias: bool):
        super().__init__()
        self.feature = nn.Sequential(*_layers(stages, conv_bias))
        self.pool = nn.AdaptiveAvgPool2d(1)
        if hidden is None:
            self.classifier: nn.Module = nn.Linear(_WIDTHS[-1], num_classes)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(_WIDTHS[-1], hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, num_classes),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.feature(x)).flatten(1))


def cifar_vgg(num_classes: int, *, depth: int, hidden: int | None = None, conv_bias: bool = False) -> CifarVGG:
    """VGG-11, 13, 16 or 19 for CIFAR, one linear layer (slimming), or two with `hidden` channels between (L1).

    `conv_bias` as in the nets that the study prunes by magnitude, although a BatchNorm follows.
    """
    return CifarVGG(_stages_of(depth), num_classes, hidden=hidden, conv_bias=conv_bias)


def imagenet_vgg(
    num_classes: int, *, depth: int, norm: bool = False, head: Head = "linear", dropout: float = 0.5
) -> nn.Module:
    """torchvision's VGG, with its own head or without hidden linear layers.

    `linear`: two hidden layers of 4096 with `dropout`, on 7x7 features. `gap`: no last max-pool, global average, one
    linear layer (ThiNet, arXiv 1707.06342, section 4.2).
    """
    if head not in get_args(Head):
        raise Refusal(f"unknown head {head!r}; known: {', '.join(get_args(Head))}")
    model = _torchvision_vgg(depth, norm, num_classes if head == "linear" else 1, dropout=dropout)
    if head == "gap":
        model.features = model.features[:-1]
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Sequential(nn.Linear(_WIDTHS[-1], num_classes))
    return model


def imagenet_vgg_slimming(num_classes: int, *, depth: int) -> nn.Module:
    """torchvision's VGG with BatchNorm, in the hidden linear layers too, where it replaces dropout."""
    model = _torchvision_vgg(depth, True, 1)
    layers: list[nn.Module] = []
    for width in (_WIDTHS[-1] * 7 * 7, 4096):
        layers += [nn.Linear(width, 4096), nn.BatchNorm1d(4096), nn.ReLU(inplace=True)]
    model.classifier = nn.Sequential(*layers, nn.Linear(4096, num_classes))
    return model


def _torchvision_vgg(depth: int, norm: bool, num_classes: int, *, dropout: float = 0.5) -> torchvision.models.VGG:
    _stages_of(depth)
    build = torchvision.models.get_model_builder(f"vgg{depth}{'_bn' if norm else ''}")
    return build(weights=None, num_classes=num_classes, init_weights=False, dropout=dropout)


def _stages_of(depth: int) -> tuple[int, ...]:
    if depth not in _STAGES:
        raise Refusal(f"a VGG has depth {', '.join(map(str, _STAGES))}, not {depth}")
    return _STAGES[depth]


def _layers(stages: Sequence[int], conv_bias: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for i, n in enumerate(stages):
        if i > 0:
            layers.append(nn.MaxPool2d(2))
        for _ in range(n):
            conv = nn.Conv2d(channels, _WIDTHS[i], 3, padding=1, bias=conv_bias)
            layers += [conv, nn.BatchNorm2d(_WIDTHS[i]), nn.ReLU(inplace=True)]
            channels = _WIDTHS[i]
    return layers
