"""Masks: what is kept, what is refused, and that they hold while weights train."""

import pytest
import torch
from support.small_networks import Plain, ThreeConvs
from torch import nn

from pruning.masked_training import HoldMasks, reinitialise_surviving
from pruning.masks import Masks


def mask_of(*values):
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)


def masks_of_three_convs():
    """3 + 6 + 2 weights, of which conv1 keeps 2 and conv3 keeps 1."""
    return Masks({"conv1.weight": mask_of(1, 0, 1), "conv3.weight": mask_of(0, 1).view(1, 2, 1, 1)})


def test_density_counts_the_named_parameters_only():
    masks = masks_of_three_convs()
    assert masks.kept() == 3
    assert masks.density() == 3 / 5
    assert masks.densities() == {"conv1.weight": pytest.approx(2 / 3), "conv3.weight": 0.5}


def test_apply_zeroes_the_removed_weights_and_no_others():
    model = ThreeConvs()
    masks_of_three_convs().apply(model)
    assert model.conv1.weight.flatten().tolist() == [1, 0, 2]
    assert model.conv1.bias.tolist() == [0, 1, 0]
    assert model.conv3.weight.flatten().tolist() == [0, 10]
    assert model.conv2.weight.flatten().tolist() == [1, 2, 3, 0.5, 0.5, 1]


def test_file_round_trip(tmp_path):
    masks = masks_of_three_convs()
    path = tmp_path / "masks.safetensors"
    path.write_bytes(masks.to_bytes())
    again = Masks.load(path)
    assert list(again) == list(masks)
    assert all(again[name].equal(masks[name]) and again[name].dtype == torch.bool for name in masks)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv9.weight": torch.ones(1)}, "the masks name 'conv9.weight', which ThreeConvs does not have"),
        ({"conv1.weight": torch.ones(3)}, r"the mask of 'conv1.weight' has shape \(3,\), the parameter \(3, 1, 1, 1\)"),
    ],
)
def test_masks_of_another_network_are_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        Masks(tensors).apply(ThreeConvs())


def test_values_between_zero_and_one_are_refused():
    with pytest.raises(ValueError, match="the mask of 'w' has values other than 0 and 1"):
        Masks({"w": torch.tensor([0.5, 1])})


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "masks.safetensors"
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match=r"masks\.safetensors: not a safetensors file"):
        Masks.load(path)


@pytest.mark.parametrize(("hold", "revived"), [(False, True), (True, False)])
def test_momentum_revives_removed_weights_unless_they_are_held(hold, revived):
    model, masks = ThreeConvs(), masks_of_three_convs()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    effect = HoldMasks(model, masks)
    for step in range(3):
        if step == 1:  # pruned while the optimiser has momentum
            effect.at_start()
        optimizer.zero_grad()
        model(torch.tensor(2.0).view(1, 1, 1, 1)).sum().backward()
        if hold and step:
            effect.after_backward()
        optimizer.step()
        if hold and step:
            effect.after_step(1e-4)
    assert bool(model.conv3.weight[0, 0] != 0) is revived
    assert model.conv3.weight[0, 1] != 10


def test_gradients_of_removed_weights_are_zero():
    model = ThreeConvs()
    effect = HoldMasks(model, masks_of_three_convs())
    effect.at_start()
    # an input of 2 gives (2, 1, 4), conv2 gives (16, 5.5): the gradients of conv3
    model(torch.tensor(2.0).view(1, 1, 1, 1)).sum().backward()
    assert model.conv3.weight.grad.flatten().tolist() == [16, 5.5]
    effect.after_backward()
    assert model.conv3.weight.grad.flatten().tolist() == [0, 5.5]


def test_masks_travel_in_the_state():
    model = ThreeConvs()
    state = HoldMasks(model, masks_of_three_convs()).state_dict()
    other = Masks({"conv1.weight": mask_of(1, 1, 1), "conv3.weight": mask_of(1, 1).view(1, 2, 1, 1)})
    effect = HoldMasks(model, other)
    effect.load_state_dict(state)
    effect.after_step(0.1)
    assert model.conv1.weight.flatten().tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match=r"masks other parameters than this run: conv3\.weight"):
        effect.load_state_dict({"conv1.weight": state["conv1.weight"]})


def test_surviving_weights_are_drawn_with_their_own_fan():
    """64 x 32 filters of 3x3, one eighth kept: n = 18432 / 8 / 32 = 72, std = sqrt(2 / 72) = 1/6."""
    model = nn.Sequential(nn.Conv2d(32, 64, 3), nn.Conv2d(32, 128, 3), nn.Linear(4, 4))
    linear = model[2].weight.clone()
    mask = torch.zeros(64, 32, 3, 3)
    mask.view(-1)[::8] = 1
    reinitialise_surviving(model, Masks({"0.weight": mask}), generator=torch.Generator().manual_seed(0))
    kept = model[0].weight[mask.bool()]
    assert len(kept) == 2304
    assert kept.std().item() == pytest.approx(1 / 6, rel=0.05)
    assert not model[0].weight[~mask.bool()].any()
    # no mask: the dense fan-out 128 * 9 = 1152, std = sqrt(2 / 1152) = 1/24
    assert model[1].weight.std().item() == pytest.approx(1 / 24, rel=0.02)
    assert model[2].weight.equal(linear)


def test_a_grouped_convolution_has_the_dense_fan_out():
    """128 filters of 3x3, depthwise or in four groups: n = 128 * 9 = 1152, std = 1/24."""
    model = nn.Sequential(nn.Conv2d(128, 128, 3, groups=128), nn.Conv2d(128, 128, 3, groups=4))
    reinitialise_surviving(model, Masks({}), generator=torch.Generator().manual_seed(0))
    assert [layer.weight.std().item() for layer in model] == pytest.approx([1 / 24, 1 / 24], rel=0.06)


def test_a_layer_that_lost_everything_stays_zero():
    model = Plain()
    reinitialise_surviving(model, Masks({"0.weight": torch.zeros(8, 3, 3, 3)}))
    assert not model[0].weight.any()
