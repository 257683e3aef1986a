"""Plans for networks whose trunk keeps its width: selected inputs, scattered outputs, dropped blocks, new weights."""

import pytest
import torch
from torch import nn, tensor
from torchvision.models.feature_extraction import create_feature_extractor

from classify.models import arch, build, channel_groups, rebuild
from pruning.cut import prune_by_choice
from pruning.graph.groups import find_groups
from pruning.graph.layers import LAYERS, ScatterBatchNorm2d, SelectConv2d
from pruning.methods import Choice
from pruning.plan import PruningPlan
from pruning.surgery import apply, mask

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet8():
    """A CIFAR ResNet-8 with distinct BatchNorm values, and its groups."""
    torch.manual_seed(0)
    model = build("cifar_resnet", 10, {"depth": 8}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model, channel_groups("cifar_resnet", model)


def prune_resnet8(resnet8, **choice):
    model, groups = resnet8
    return prune_by_choice(model, arch("cifar_resnet", {"depth": 8}), groups, Choice(**choice), batch=X)


STRUCTURES = {
    "select": {"select": {"layer1.0.conv1": (0, 3, 5), "fc": (1, 2, 60)}},
    "scatter": {"scatter": {"layer1.0.bn2": (2, 7), "bn1": (0, 1, 9), "layer3.0.bn2": (5,)}},
    "drop": {"drop": ("layer1.0", "layer3.0")},
    "all": {
        "keep": {"layer1.0.conv1": (0, 2), "layer2.0.conv1": (1, 5)},
        "select": {"layer2.0.conv1": (0, 3)},
        "scatter": {"layer2.0.bn2": (2, 7)},
        "drop": ("layer1.0",),
    },
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_small_network_equals_the_masked_dense_one(resnet8, name):
    pruned = prune_resnet8(resnet8, **STRUCTURES[name])
    assert pruned.difference <= 1e-5
    dense = resnet8[0]
    with torch.no_grad():
        assert not torch.allclose(pruned.model.eval()(X), dense(X), rtol=0.01)  # something was removed
    assert sum(p.numel() for p in pruned.model.parameters()) < sum(p.numel() for p in dense.parameters())


@pytest.mark.parametrize("name", STRUCTURES)
def test_plan_survives_json_and_rebuilds_the_network(resnet8, name):
    pruned = prune_resnet8(resnet8, **STRUCTURES[name])
    plan = PruningPlan.from_json(pruned.plan.to_json())
    assert plan == pruned.plan
    twin = rebuild(plan, 10).eval()
    twin.load_state_dict(pruned.model.state_dict())
    assert torch.equal(twin(X), pruned.model.eval()(X))


def test_parameter_names_stay(resnet8):
    pruned = prune_resnet8(resnet8, **{k: STRUCTURES[k][k] for k in ("select", "scatter")})
    dense_names = [name for name, _ in resnet8[0].named_parameters()]
    assert [name for name, _ in pruned.model.named_parameters()] == dense_names
    assert type(pruned.model.layer1[0].conv1) is SelectConv2d
    assert pruned.model.layer1[0].conv1.weight.shape == (16, 3, 3, 3)
    assert type(pruned.model.layer1[0].bn2) is ScatterBatchNorm2d
    assert pruned.model.layer1[0].conv2.weight.shape == (2, 16, 3, 3)


def test_pruned_layers_keep_their_names_when_traced(resnet8):
    pruned = prune_resnet8(resnet8, **{k: STRUCTURES[k][k] for k in ("select", "scatter")})
    pruned.model.eval()
    traced = create_feature_extractor(pruned.model, {"layer3": "out"}, tracer_kwargs={"leaf_modules": list(LAYERS)})
    names = {name for name, _ in traced.named_parameters()}
    assert names == {n for n, _ in pruned.model.named_parameters() if not n.startswith("fc.")}
    with torch.no_grad():
        assert traced(X)["out"].shape == (2, 64, 8, 8)


def test_inner_channels_of_a_pruned_network_can_be_pruned_again(resnet8):
    pruned = prune_resnet8(resnet8, select={"layer1.0.conv1": (0, 3, 5)}, scatter={"layer2.0.bn2": (2, 7)})
    groups = {g.name: g for g in find_groups(pruned.model, X[:1])}
    assert groups["layer1.0.conv1"].fixed is None
    later = PruningPlan(
        "cifar_resnet", {"depth": 8}, {"layer1.0.conv1": (0, 1)}, {"layer1.0.conv1": 16}, {"layer1.0.conv1": (0, 2)}
    )
    twice = apply(pruned.model, later, list(groups.values()))
    assert twice.layer1[0].conv1.inputs.tolist() == [0, 5]
    at_once = apply(resnet8[0], pruned.plan.then(later), resnet8[1])
    assert torch.allclose(twice.eval()(X), at_once.eval()(X), atol=1e-5)


def test_dropped_block_leaves_its_shortcut(resnet8):
    small = prune_resnet8(resnet8, drop=("layer2.0",)).model
    x = torch.randn(1, 16, 4, 4)
    expected = resnet8[0].layer2[0].downsample(x).relu()
    assert torch.equal(small.layer2[0](x), expected)
    assert not any(name.startswith("layer2.0.conv") for name, _ in small.named_parameters())


def test_dropped_torchvision_block_keeps_the_projection():
    torch.manual_seed(0)
    model = build("wide_resnet50_2", 10).eval()
    plan = PruningPlan("wide_resnet50_2", drop=("layer1.0", "layer1.1"))
    groups = find_groups(model, torch.zeros(1, 3, 32, 32))
    small = apply(model, plan, groups)
    assert next(n for n, _ in small.layer1.named_parameters() if "conv" in n).startswith("2.")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(small.eval()(x), mask(model, plan, groups)(x), atol=1e-4)


def test_masked_network_has_zero_inputs_outside_the_selection(resnet8):
    model, groups = resnet8
    masked = mask(model, PruningPlan("cifar_resnet", select={"fc": (0, 1)}), groups)
    assert masked.fc.weight[:, 2:].abs().sum() == 0
    assert torch.equal(masked.fc.weight[:, :2], model.fc.weight[:, :2])


def test_rewritten_weights_are_cut_with_the_rest(resnet8):
    model, _ = resnet8
    weight = torch.arange(float(model.fc.weight.numel())).reshape(model.fc.weight.shape)
    pruned = prune_resnet8(resnet8, select={"fc": (1, 3)}, weights={"fc.weight": weight})
    assert pruned.model.fc.weight[0].tolist() == [1.0, 3.0]
    assert not torch.equal(model.fc.weight, weight)


def test_masks_are_applied_and_returned(resnet8):
    masks = {"fc.weight": torch.zeros(10, 64)}
    pruned = prune_resnet8(resnet8, masks=masks)
    assert pruned.masks == masks and not pruned.plan.changes_shape
    assert pruned.model.fc.weight.abs().sum() == 0 and resnet8[0].fc.weight.abs().sum() > 0


def test_selecting_from_a_narrowed_trunk_finds_its_channels():
    # 3 -> 4 channels, of which (1, 3) stay, -> 1 channel that reads only dense channel 3
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    groups = find_groups(net, torch.zeros(1, 3, 5, 5))
    plan = PruningPlan("net", keep={"0": (1, 3)}, widths={"0": 4}, select={"2": (3,)})
    small = apply(net, plan, groups)
    assert small[2].inputs.tolist() == [1] and small[2].in_channels == 1
    assert torch.equal(small[2].weight, net[2].weight[:, 3:])
    x = torch.randn(1, 3, 5, 5)
    assert torch.allclose(small(x), mask(net, plan, groups)(x), atol=1e-6)
    with pytest.raises(ValueError, match=r"channels \[0\], which are removed"):
        apply(net, PruningPlan("net", keep={"0": (1, 3)}, widths={"0": 4}, select={"2": (0,)}), groups)


def test_plan_without_the_new_keys_can_be_read():
    plan = PruningPlan.from_json('{"format": 1, "arch": "a", "options": {}, "widths": {"c": 3}, "keep": {"c": [0, 2]}}')
    assert (plan.select, plan.scatter, plan.drop) == ({}, {}, ())
    assert '"select"' not in plan.to_json()


def test_plan_after_plan_composes():
    first = PruningPlan("a", select={"c": (1, 4, 6)}, drop=("x",), scatter={"n": (0, 2)})
    later = PruningPlan("a", select={"c": (0, 2), "d": (3,)}, drop=("y",), scatter={"n": (2,)})
    both = first.then(later)
    assert both.select == {"c": (1, 6), "d": (3,)}
    assert both.drop == ("x", "y")
    assert both.scatter == {"n": (2,)}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"select": {"layer9": (0,)}}, "names 'layer9', which ResNet does not have"),
        ({"select": {"bn1": (0,)}}, "'bn1' cannot select its inputs"),
        ({"select": {"fc": (0, 64)}}, r"channels \[64\]"),
        ({"scatter": {"relu": (0,)}}, "'relu' cannot scatter its outputs"),
        ({"scatter": {"bn1": (3, 16)}}, r"channels \[16\]"),
        ({"drop": ("layer1",)}, "'layer1' is a Sequential, not a residual block"),
        ({"drop": ("layer7.0",)}, "drops 'layer7.0', which ResNet does not have"),
        ({"drop": ("layer1.0", "layer1.0")}, "names a block twice"),
        ({"keep": {"layer9": (0,)}}, "no channel group of 'cifar_resnet' is named layer9"),
        ({"weights": {"nothing": tensor([0.0])}}, "rewrote 'nothing'"),
        ({"masks": {"fc.weight": tensor([0.0])}}, r"rewrote 'fc.weight' as \(1,\), it is \(10, 64\)"),
    ],
)
def test_impossible_choices_are_refused(resnet8, choice, message):
    with pytest.raises(ValueError, match=message):
        prune_resnet8(resnet8, **choice)
