"""Pre-activation bottleneck networks, with the CIFAR stem or the ImageNet stem.

He et al., Identity Mappings in Deep Residual Networks, ECCV 2016 (arXiv 1603.05027). The CIFAR form is that of
network slimming's released code, the ImageNet form that of sparse structure selection (arXiv 1707.01213): there the
projection reads the activated input, and the stem ends in BatchNorm, ReLU and a max-pool. In both the 3x3 convolution
has the stride.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pruning.errors import Refusal


class PreBottleneck(nn.Module):
    """x + conv1x1(conv3x3(conv1x1(x))), each convolution after BatchNorm and ReLU."""

    expansion = 4
    branch_end = "conv3"

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool, activated: bool):
        super().__init__()
        out_channels = channels * self.expansion
        self.activated = activated
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if project else None
        self.downsample = nn.Sequential(conv) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(x))
        identity = x
        if self.downsample is not None:
            identity = self.downsample(out if self.activated else x)
        out = self.conv1(out)
        out = self.conv2(self.relu(self.bn2(out)))
        return self.conv3(self.relu(self.bn3(out))) + identity

    def shortcut_only(self) -> nn.Module:
        """The identity, or the projection with the layers in front of it."""
        if self.downsample is None:
            return nn.Identity()
        return ProjectionOnly(self.downsample, self.bn1 if self.activated else None)


class ProjectionOnly(nn.Module):
    """A block whose branch is gone: its projection, and BatchNorm and ReLU in front where the block has them."""

    def __init__(self, downsample: nn.Module, bn1: nn.Module | None):
        super().__init__()
        self.bn1 = nn.Identity() if bn1 is None else bn1
        self.relu = nn.Identity() if bn1 is None else nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.relu(self.bn1(x)))


@dataclass(frozen=True)
class PreResNetShape:
    """Blocks and inner channels of each stage, the stem's width, and which of the two forms the network has."""

    blocks: Sequence[int]
    channels: Sequence[int]
    stem_channels: int
    stem: Literal["cifar", "imagenet"]


class PreResNet(nn.Module):
    """Input (N, 3, H, W), normalised RGB; output (N, num_classes) logits."""

    def __init__(self, shape: PreResNetShape, num_classes: int):
        super().__init__()
        width = shape.stem_channels
        if shape.stem == "cifar":
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.stem: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.stem = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.stages = tuple(f"layer{i + 1}" for i in range(len(shape.blocks)))
        for i, name in enumerate(self.stages):
            self.add_module(name, _make_stage(shape, width, i))
            width = shape.channels[i] * PreBottleneck.expansion
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.conv1(x))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))


def _make_stage(shape: PreResNetShape, in_channels: int, i: int) -> nn.Sequential:
    blocks = []
    for b in range(shape.blocks[i]):
        stride = 2 if b == 0 and i > 0 else 1
        activated = shape.stem == "imagenet"
        blocks.append(PreBottleneck(in_channels, shape.channels[i], stride, project=b == 0, activated=activated))
        in_channels = shape.channels[i] * PreBottleneck.expansion
    return nn.Sequential(*blocks)


def cifar_preresnet(num_classes: int, *, depth: int) -> PreResNet:
    """PreResNet-(9n+2): three stages of n bottlenecks with 16, 32 and 64 inner channels."""
    if depth < 11 or (depth - 2) % 9:
        raise Refusal(f"a bottleneck PreResNet has depth 9n+2 (11, 20, 29, 56, 110, 164, ...), not {depth}")
    n = (depth - 2) // 9
    return PreResNet(PreResNetShape((n, n, n), (16, 32, 64), 16, "cifar"), num_classes)


_IMAGENET = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def imagenet_preresnet(num_classes: int, *, depth: int) -> PreResNet:
    """Four stages of bottlenecks with 64 to 512 inner channels."""
    if depth not in _IMAGENET:
        raise Refusal(f"an ImageNet PreResNet has depth {', '.join(map(str, _IMAGENET))}, not {depth}")
    return PreResNet(PreResNetShape(_IMAGENET[depth], (64, 128, 256, 512), 64, "imagenet"), num_classes)
