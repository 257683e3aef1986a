"""Passes that stop and go on, against passes through the whole network."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from support.reconstruction_networks import trained_resnet
from torch import nn

from classify.models import build
from pruning.graph.groups import find_groups
from pruning.methods import METHODS, reconstruction, thinet
from pruning.methods.method import Request
from pruning.reconstruct import passes as passes_module
from pruning.reconstruct.passes import Passes
from pruning.reconstruct.responses import evaluating, hooked
from pruning.select import Selection


class WholePasses(Passes):
    """Runs the calibration in full each time."""

    def observe(self, hooks):
        with hooked(self.model, hooks), evaluating(self.model):
            for _ in self._calibration(self.model):
                yield


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))


def observe(model, calibration, hooks):
    assert list(Passes(model, calibration).observe(hooks))


def test_observing_leaves_modes_and_statistics_alone():
    model = small_network().train()
    model[1].eval()
    around = nn.ModuleList([model])
    statistics = model[1].running_mean.clone()
    seen = []

    def calibration(candidate):
        around.train()  # as a detector's loss does
        assert not candidate.training
        yield candidate(torch.randn(2, 3, 8, 8)).mean()

    observe(model, calibration, {"3": lambda layer, x, output: seen.append(tuple(x.shape))})
    assert seen == [(2, 4, 6, 6)]
    assert torch.equal(model[1].running_mean, statistics)
    assert model.training and not model[1].training and model[3].training
    assert not model[3]._forward_hooks
    around.train()
    assert model[1].training


def test_calibration_data_of_the_wrong_shape_is_one_sentence():
    model = small_network()
    with pytest.raises(ValueError, match=r"the calibration data does not fit Sequential: .*channels"):
        observe(model, lambda m: [m(torch.randn(2, 1, 8, 8)).mean()], {"3": lambda layer, x, output: None})
    assert not model[3]._forward_hooks and model.training


def test_calibration_that_reaches_no_layer_is_refused():
    with pytest.raises(ValueError, match="ran no batch through 3 of Sequential"):
        observe(small_network(), lambda m: [torch.tensor(0.0)], {"3": lambda layer, x, output: None})


class Dense(nn.Module):
    """Two layers in a row that later ones read again, and activations that work in place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 6, 3, padding=1)
        self.second = nn.Conv2d(10, 6, 1)
        self.third = nn.Conv2d(16, 6, 3)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        x = torch.cat([x, self.first(x)], 1).relu_()
        x = torch.cat([x, self.second(x).relu_()], 1)
        return self.fc(self.third(x).relu_().mean((2, 3)))


class Untraceable(Dense):
    """What it does depends on its values, so that torch.fx gives up."""

    def forward(self, x):
        return super().forward(x if x.mean() > -100 else -x)


class Twice(nn.Module):
    """Its second layer is run on two maps, the second of which the third layer comes before."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.third, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.shared(self.first(x).relu())
        return self.fc(self.shared(self.third(x).relu()).mean((2, 3)))


NETWORKS = {
    "residual": lambda: trained_resnet(steps=10),
    "pre-activation": lambda: build("cifar_preresnet", 10, {"depth": 11}),
    "plain": lambda: build("lenet5", 10, {"in_channels": 3, "image_size": 32}),
    "dense": Dense,
    "untraceable": Untraceable,
    "one layer twice": Twice,
}


def batches(model):
    """Three, of 2, 2 and 1 images."""
    for x in torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(2):
        yield model(x).square().mean()


@cache
def warmed(name):
    """A network of NETWORKS whose BatchNorms have seen data, and its groups."""
    torch.manual_seed(0)
    model = NETWORKS[name]().train()
    with torch.no_grad():
        list(batches(model))
    return model.eval(), find_groups(model, torch.zeros(1, 3, 32, 32))


def choice(way, name, method, scope, finetune=None):
    """What the method chooses by one way to pass through a network of NETWORKS."""
    model, groups = warmed(name)
    selection = Selection(0.5, scope=scope, skip=tuple(group.name for group in groups if group.fixed))
    asked = Request(groups, selection, METHODS[method].options(), 0, batches, finetune=finetune)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for module in (thinet, reconstruction):
            patch.setattr(module, "Passes", way)
        return METHODS[method].prune(model, asked)


@cache
def whole_choice(name, method, scope):
    """By whole passes, which hold nothing."""
    return choice(WholePasses, name, method, scope)


def assert_same(ours, whole):
    assert ours.keep == whole.keep and ours.keep
    assert ours.weights.keys() == whole.weights.keys()
    assert all(torch.equal(value, whole.weights[key]) for key, value in ours.weights.items())


@pytest.mark.parametrize("most_held", [0, 2**31])
@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_choice_as_by_whole_passes(monkeypatch, name, method, scope, most_held):
    monkeypatch.setattr(passes_module, "MOST_HELD", most_held)
    assert_same(choice(Passes, name, method, scope), whole_choice(name, method, scope))


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_after_fine_tuning_nothing_that_was_held_counts(method):
    def finetune(model):
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.mul_(1.1)

    ours, whole = (choice(way, "residual", method, "inner", finetune) for way in (Passes, WholePasses))
    assert_same(ours, whole)
