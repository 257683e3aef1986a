"""Residual networks of any depth and width, with the CIFAR stem or the ImageNet stem.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385), sections 3.3 and 4.2.
Layer names are torchvision's, so weights of its ResNet-18/34/50 load as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.blocks import ShortcutThenReLU

Shortcut = Literal["average", "stride"]


class PadShortcut(nn.Module):
    """The parameter-free shortcut of the CIFAR networks (option A): a smaller image, and zeros for the new channels.

    `average`: the mean of each stride x stride patch, as in the released code of Liu et al., ICLR 2019; `stride`: every
    stride-th pixel, as in He et al., CVPR 2016, and in the released code of soft filter pruning.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Shortcut):
        super().__init__()
        if form not in get_args(Shortcut):
            raise Refusal(f"unknown shortcut {form!r}; known: {', '.join(get_args(Shortcut))}")
        self.stride = stride
        self.form = form
        self.padding = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        # gradients flow through: the released code of the study cuts them here (`x.data`), a mistake
        if self.form == "average":
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)  # an odd side shrinks as in the strided convolution
        else:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.padding))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1
    branch_end = "bn2"

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)

    def shortcut_only(self) -> nn.Module:
        """relu(shortcut(x)): this block when its branch is zero."""
        return ShortcutThenReLU(self.downsample)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride, as in torchvision), 1x1 to four times the channels."""

    expansion = 4
    branch_end = "bn3"

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)

    def shortcut_only(self) -> nn.Module:
        """relu(shortcut(x)): this block when its branch is zero."""
        return ShortcutThenReLU(self.downsample)


@dataclass(frozen=True)
class ResNetShape:
    """Blocks and channels of each stage, and which of the two forms of the paper the network has."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: Sequence[int]
    channels: Sequence[int]
    stem: Literal["cifar", "imagenet"]
    shortcut: Shortcut = "average"  # of the CIFAR form; the other one has a projection
    projection_bias: bool = False


class ResNet(nn.Module):
    """Input (N, 3, H, W), normalised RGB; output (N, num_classes) logits."""

    def __init__(self, shape: ResNetShape, num_classes: int):
        super().__init__()
        first = shape.channels[0]
        cifar = shape.stem == "cifar"
        self.conv1 = nn.Conv2d(3, first, 3, 1, 1, bias=False) if cifar else nn.Conv2d(3, first, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        width = first
        self.stages = tuple(f"layer{i + 1}" for i in range(len(shape.blocks)))
        for i, name in enumerate(self.stages):
            stage = _make_stage(shape, width, i)
            width = shape.channels[i] * shape.block.expansion
            self.add_module(name, stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def _make_stage(shape: ResNetShape, in_channels: int, i: int) -> nn.Sequential:
    out_channels = shape.channels[i] * shape.block.expansion
    blocks: list[nn.Module] = []
    for b in range(shape.blocks[i]):
        stride = 2 if b == 0 and i > 0 else 1
        shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            if shape.stem == "cifar":
                shortcut = PadShortcut(in_channels, out_channels, stride, shape.shortcut)
            else:
                conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=shape.projection_bias)
                shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
        blocks.append(shape.block(in_channels, shape.channels[i], stride, shortcut))
        in_channels = out_channels
    return nn.Sequential(*blocks)


def cifar_resnet(num_classes: int, *, depth: int, width: float = 1.0, shortcut: Shortcut = "average") -> ResNet:
    """ResNet-(6n+2) of section 4.2: three stages of n basic blocks, 16, 32 and 64 channels times `width`.

    `shortcut`: how it halves the image, see `PadShortcut`.
    """
    if depth < 8 or (depth - 2) % 6:
        raise Refusal(f"a CIFAR ResNet has depth 6n+2 (8, 14, 20, 32, 44, 56, 110, ...), not {depth}")
    n = (depth - 2) // 6
    return ResNet(ResNetShape(BasicBlock, (n, n, n), _scaled((16, 32, 64), width), "cifar", shortcut), num_classes)


_IMAGENET: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def imagenet_resnet(num_classes: int, *, depth: int, width: float = 1.0, projection_bias: bool = False) -> ResNet:
    """ResNet of table 1: four stages, 64 to 512 channels times `width`.

    `projection_bias`: the shortcuts' convolutions have biases, although a BatchNorm follows, as in the released code
    of the study for ThiNet's and the regression method's networks.
    """
    if depth not in _IMAGENET:
        raise Refusal(f"an ImageNet ResNet has depth {', '.join(map(str, _IMAGENET))}, not {depth}")
    block, blocks = _IMAGENET[depth]
    channels = _scaled((64, 128, 256, 512), width)
    return ResNet(ResNetShape(block, blocks, channels, "imagenet", projection_bias=projection_bias), num_classes)


def _scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    if width <= 0:
        raise Refusal(f"width={width} must be positive")
    return tuple(max(1, round(c * width)) for c in channels)
