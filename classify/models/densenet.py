"""Densely connected networks for CIFAR, plain or with bottlenecks and compression (BC).

Huang et al., Densely Connected Convolutional Networks, CVPR 2017 (arXiv 1608.06993), section 3. Layer names are those
of network slimming's released code. Both forms start with 24 channels, twice the growth of 12, as there; the released
"DenseNet-BC-100" has no bottlenecks (4.07 M params), this one has them.
"""

import math

import torch
from torch import Tensor, nn

from pruning.errors import Refusal


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution; `growth` new channels are put behind the input's."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv1(self.relu(self.bn1(x)))], 1)


class DenseBottleneck(nn.Module):
    """As `DenseLayer`, with a 1x1 convolution to four times the growth in front of the 3x3 one."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(self.relu(self.bn2(out)))], 1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution, 2x2 average pool."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv1(self.relu(self.bn1(x))))


class DenseNet(nn.Module):
    """Input (N, 3, H, W), normalised RGB; output (N, num_classes) logits."""

    def __init__(self, num_classes: int, *, layers: int, growth: int, bottleneck: bool, compression: float):
        super().__init__()
        layer = DenseBottleneck if bottleneck else DenseLayer
        width = 2 * growth
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.body: list[str] = []
        for stage in (1, 2, 3):
            block = nn.Sequential(*(layer(width + i * growth, growth) for i in range(layers)))
            width += layers * growth
            self._append(f"dense{stage}", block)
            if stage < 3:
                self._append(f"trans{stage}", Transition(width, math.floor(width * compression)))
                width = math.floor(width * compression)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def _append(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.body.append(name)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for name in self.body:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))


def cifar_densenet(
    num_classes: int, *, depth: int, growth: int = 12, bottleneck: bool = False, compression: float = 1.0
) -> DenseNet:
    """DenseNet-(3n+4), with bottlenecks -(6n+4), of three stages; `compression`: a transition keeps that share."""
    step = 6 if bottleneck else 3
    if depth < step + 4 or (depth - 4) % step:
        form = f"{step}n+4 {'with' if bottleneck else 'without'} bottlenecks"
        raise Refusal(f"a CIFAR DenseNet has depth {form}, not {depth}")
    if not 0 < compression <= 1:
        raise Refusal(f"compression={compression} is outside 0 < compression <= 1 (it is the share kept)")
    return DenseNet(
        num_classes, layers=(depth - 4) // step, growth=growth, bottleneck=bottleneck, compression=compression
    )
