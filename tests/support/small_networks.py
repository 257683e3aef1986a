"""Networks small enough to compute by hand, and statistics that make a wrong surgery visible."""

import torch
from torch import nn
from torchvision.models import DenseNet

from classify.models import build


class ThreeConvs(nn.Module):
    """1 -> 3 -> 2 -> 1 channels of 1x1 convolutions; an input of 2 gives 64.

    conv1: relu(1 x, -3 x + 1, 2 x); conv2: relu((1, 2, 3), (.5, .5, 1)); conv3: (1, 10).
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 1)
        self.conv2 = nn.Conv2d(3, 2, 1, bias=False)
        self.conv3 = nn.Conv2d(2, 1, 1, bias=False)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.tensor([1.0, -3.0, 2.0]).view(3, 1, 1, 1))
            self.conv1.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
            self.conv2.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.5, 1.0]]).view(2, 3, 1, 1))
            self.conv3.weight.copy_(torch.tensor([1.0, 10.0]).view(1, 2, 1, 1))

    def forward(self, x):
        return self.conv3(self.conv2(self.conv1(x).relu()).relu())


class Plain(nn.Sequential):
    """Two convolutions with BatchNorm, a flattened 2x2 map, a hidden linear layer; input (N, 3, 8, 8)."""

    def __init__(self, num_classes=5):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(48, 10),
            nn.ReLU(),
            nn.Linear(10, num_classes),
        )


def dense_network(num_classes=5):
    """A DenseNet of two blocks of two layers with 4 new channels each; input (N, 3, 32, 32)."""
    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=num_classes)


def residual_network(num_classes=5):
    """ResNet-8 of half width: one block a stage with 8, 16 and 32 channels; input (N, 3, 16, 16)."""
    return build("cifar_resnet", num_classes, {"depth": 8, "width": 0.5})


def randomise(model, batch, seed=0):
    """Random affine parameters and layer scales; statistics near those of `batch`, but not equal to them.

    A fresh BatchNorm (mean 0, variance 1, beta 0) hides mistakes: a zeroed channel stays zero whatever is cut.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.3, generator=generator)
            norm.momentum = 1.0  # one batch sets the running statistics
        model.train()(batch)
        for norm in norms:
            norm.momentum = 0.1
            noise = torch.randn(norm.num_features, generator=generator)
            norm.running_mean += 0.3 * norm.running_var.sqrt() * noise
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 1.5, generator=generator)
    return model.eval()
