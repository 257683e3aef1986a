"""The small networks of the lottery tickets, without BatchNorm.

Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019 (arXiv 1803.03635), figure 2; LeNet-5 with the widths that
Han et al., NIPS 2015 prune (20, 50, 500; 431,080 parameters).
"""

from torch import nn

from pruning.errors import Refusal


def lenet_300_100(num_classes: int, *, in_channels: int = 1, image_size: int = 28) -> nn.Module:
    """Three linear layers on images (N, in_channels, image_size, image_size)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * image_size**2, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )


def lenet5(num_classes: int, *, in_channels: int = 1, image_size: int = 28) -> nn.Module:
    """Two unpadded 5x5 convolutions with max-pools, two linear layers."""
    side = ((image_size - 4) // 2 - 4) // 2
    if side < 1:
        raise Refusal(f"LeNet-5 needs images of at least 16x16, not image_size={image_size}")
    return nn.Sequential(
        nn.Conv2d(in_channels, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * side * side, 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    )


def conv_net(num_classes: int, *, depth: int, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """Conv-2, Conv-4 or Conv-6: pairs of 3x3 convolutions (64, 128, 256 channels), max-pools, three linear layers."""
    if depth not in (2, 4, 6):
        raise Refusal(f"Conv-2, Conv-4 and Conv-6 are known, not depth {depth}")
    side = image_size // 2 ** (depth // 2)
    if side < 1:
        raise Refusal(f"image_size={image_size} is too small for Conv-{depth}")
    layers: list[nn.Module] = []
    channels = in_channels
    for width in (64, 128, 256)[: depth // 2]:
        for inputs in (channels, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    layers += [nn.Flatten(), nn.Linear(channels * side * side, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, num_classes))
