"""What the tests of the methods that read activations share: a request, and a residual network trained on digits."""

import torch
import torch.nn.functional as F
from torch import nn

from classify.models import build
from pruning.graph.groups import find_groups
from pruning.methods.method import Request
from pruning.select import Selection
from support.digits_training import digit_set


def digits():
    """Normalised images (N, 3, 8, 8) and labels: the first 200 to train and calibrate on, the others held out."""
    data = digit_set(640)
    return (data.images.float() / 255 - 0.5) / 0.25, data.labels


def trained_resnet(steps=60):
    """A ResNet-8 of half width; this many steps bring it to well over 90 % of the training digits."""
    torch.manual_seed(0)
    model = build("cifar_resnet", 10, {"depth": 8, "width": 0.5})
    images, labels = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        index = torch.randint(0, len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[index]), labels[index]).backward()
        optimizer.step()
    return model.eval()


def calibration(model):
    """Loss over the first 200 digits, in one batch."""
    images, labels = digits()
    yield F.cross_entropy(model(images[:200]), labels[:200])


def request(model, options, *, example=None, ratio=0.5, seed=0, **others):
    """Inner groups of `model` at one ratio; `others` are fields of Request and of Selection."""
    selection = Selection(ratio=ratio, skip=others.pop("skip", ()), level=others.pop("level", "layer"))
    groups = find_groups(model, torch.zeros(1, 3, 8, 8) if example is None else example)
    return Request(groups, selection, options, seed, **{"calibration": calibration, **others})


class Chain(nn.Sequential):
    """1x1 convolutions 2 -> 4 -> 2 without bias, a ReLU between; input (N, 2, H, W)."""

    def __init__(self, first, second):
        super().__init__(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False), nn.Flatten())
        with torch.no_grad():
            self[0].weight.copy_(torch.tensor(first)[..., None, None])
            self[2].weight.copy_(torch.tensor(second)[..., None, None])
