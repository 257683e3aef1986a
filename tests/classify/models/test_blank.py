"""Networks for planning have the shapes, and so the costs, of the networks that are trained."""

import pytest
import torch

from classify.models import build, channel_groups, rebuild
from classify.models.blank import build_blank, rebuild_blank, rebuild_hollow
from pruning.cost import count_macs
from pruning.plan import PruningPlan


def shapes(model):
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "preresnet110", "densenet40", "vgg16_l1", "squeezenet1_1"])
def test_the_same_tensors(name):
    assert shapes(build_blank(name, 7)) == shapes(build(name, 7))


def test_its_weights_are_zero_and_the_generator_is_not_used():
    before = torch.get_rng_state()
    model = build_blank("resnet20", 10)
    assert not any(bool(p.any()) for p in model.parameters())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(before, torch.get_rng_state())


def test_its_groups_are_those_of_the_network():
    assert channel_groups("resnet20", build_blank("resnet20", 10)) == channel_groups("resnet20", build("resnet20", 10))


def test_a_pruned_network_too():
    group = "layer1.0.conv1"
    plan = PruningPlan("resnet20", {}, {group: (0, 3)}, {group: 16})
    small, example = rebuild_blank(plan, 10), torch.zeros(1, 3, 32, 32)
    assert shapes(small) == shapes(rebuild(plan, 10))
    # 14 of 16 filters go out of two 3x3 convolutions on 32x32 pixels
    assert count_macs(small, example) == 40_551_040 - 2 * 14 * 16 * 9 * 32 * 32


def test_a_hollow_network_has_no_values_unless_its_layers_choose_among_channels():
    group = "layer1.0.conv1"
    plan = PruningPlan("resnet20", {}, {group: (0, 3)}, {group: 16})
    hollow = rebuild_hollow(plan, 10)
    assert {t.device.type for t in hollow.state_dict().values()} == {"meta"}
    assert shapes(hollow) == shapes(rebuild(plan, 10))
    choosing = rebuild_hollow(PruningPlan("resnet20", {}, select={group: (1, 5)}), 10)
    assert choosing.layer1[0].conv1.inputs.tolist() == [1, 5]
