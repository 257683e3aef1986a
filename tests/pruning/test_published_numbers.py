"""Params, multiply-adds and Scratch-B epochs of every published network, dense and pruned.

The numbers: the released code of Liu et al., ICLR 2019, run on current PyTorch. The L1 ResNets are in test_targets.py.
"""

import pytest
import torch
from support.reference import fixed_input, input_state, load_facts, load_state, load_vector, requires_reference

from classify.models import build, example_input, rebuild
from classify.targets import prune_to_target, target_costs
from pruning.cost import count_macs, count_params
from pruning.targets import TARGETS, get_target, plan_for_target, scratch_b_epochs

CIFAR = {
    "vgg16_l1": (14_987_722, 313_463_808),
    "vgg16_slim": (14_724_042, 313_201_664),
    "vgg19_slim": (20_035_018, 398_136_320),
    "preresnet110": (1_146_842, 167_430_656),
    "preresnet164": (1_703_258, 247_646_720),
    "densenet40": (1_059_298, 282_917_328),
    "densenet_bc100": (769_162, 287_929_692),
}
IMAGENET = {
    "resnet50": (25_557_032, 4_089_184_256),
    "preresnet50": (25_549_480, 4_089_184_256),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg11_slim_imagenet": (132_885_224, 7_609_090_048),
}

# target: params, MACs, Scratch-B epochs
PRUNED = {
    "vgg16-A": (5_397_034, 206_279_680, 243),
    "thinet-vgg16-conv": (131_452_552, 4_791_205_888, 180),
    "thinet-vgg16-gap": (8_322_696, 4_668_084_224, 180),
    "thinet-vgg16-tiny": (1_325_368, 1_004_578_816, 180),
    "thinet-resnet50-30": (8_669_158, 1_166_283_835, 180),
    "thinet-resnet50-50": (12_385_704, 1_822_031_872, 180),
    "thinet-resnet50-70": (16_949_086, 2_601_392_356, 141),
    "vgg16-5x": (130_879_294, 3_515_283_520, 180),
    "resnet50-2x": (19_697_424, 2_730_129_076, 134),
    "sss-resnet41": (25_351_080, 3_472_621_568, 117),
    "sss-resnet32": (14_261_928, 2_817_523_712, 145),
    "sss-resnet26": (14_915_496, 2_278_031_360, 179),
}


def shape_only(name, classes, options=None):
    """A network of zeros with random convolutions: the 138 M weights of a VGG take long to draw."""
    with torch.device("meta"):
        model = build(name, classes, options)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            tensor.normal_(std=0.05, generator=generator) if tensor.ndim == 4 else tensor.fill_("var" in key)
    return model


def cost(model, name):
    return count_params(model), count_macs(model, example_input(name))


@pytest.mark.parametrize("name", [*CIFAR, *IMAGENET])
def test_dense_networks(name):
    expected = {**CIFAR, **IMAGENET}[name]
    assert cost(shape_only(name, 10 if name in CIFAR else 1000), name) == expected


def test_dense_resnet50_with_biased_projections():
    biases = 256 + 512 + 1024 + 2048
    assert count_params(shape_only("resnet50", 1000, {"projection_bias": True})) == IMAGENET["resnet50"][0] + biases


@pytest.mark.parametrize("name", PRUNED)
def test_pruned_networks(name):
    target = get_target(name)
    classes = 10 if target.arch in CIFAR else 1000
    pruned = prune_to_target(name, classes, model=shape_only(target.arch, classes, target.options))
    params, macs = cost(pruned.model, target.arch)
    dense_macs = {**CIFAR, **IMAGENET}[target.arch][1]
    assert (params, macs, scratch_b_epochs(target.base_epochs, dense_macs, macs, cap=target.cap)) == PRUNED[name]


def test_every_target_has_its_numbers():
    assert set(TARGETS) - set(PRUNED) == {f"resnet{net}" for net in ("56-A", "56-B", "110-A", "110-B", "34-A", "34-B")}


def test_costs_name_the_dense_network_and_the_epochs():
    costs = target_costs("vgg16-A", prune_to_target("vgg16-A", 10).model, 10)
    assert (costs.dense_params, costs.dense_macs) == CIFAR["vgg16_l1"]
    assert (costs.params, costs.macs, costs.scratch_b_epochs) == PRUNED["vgg16-A"]


def test_biases_of_the_projections_are_the_difference_to_torchvision():
    pruned = prune_to_target("thinet-resnet50-50", 1000, options={})
    assert count_params(pruned.model) == PRUNED["thinet-resnet50-50"][0] - 3_840
    assert pruned.plan.options == {}


def test_dropped_blocks_rebuild_from_the_plan():
    plan = prune_to_target("sss-resnet26", 1000, model=shape_only("preresnet50", 1000)).plan
    assert len(plan.drop) == 16 - 8
    assert count_params(rebuild(plan, 1000)) == PRUNED["sss-resnet26"][0]


def test_blocks_with_the_largest_last_layer_stay():
    model = shape_only("preresnet50", 1000)
    with torch.no_grad():
        for block in (1, 3):
            model.layer2[block].conv3.weight.mul_(2)
    plan = prune_to_target("sss-resnet26", 1000, model=model).plan
    assert [name for name in plan.drop if name.startswith("layer2")] == ["layer2.0", "layer2.2"]


def test_selected_inputs_are_those_with_the_largest_kernels():
    model = shape_only("resnet50", 1000, {"projection_bias": True})
    with torch.no_grad():
        model.layer1[0].conv1.weight[:, 20:].mul_(10)
    plan = prune_to_target("resnet50-2x", 1000, model=model).plan
    assert len(plan.select["layer1.0.conv1"]) == 35
    assert min(plan.select["layer1.0.conv1"]) >= 20


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown target 'vgg16-B'; known: vgg16-A, resnet56-A"):
        get_target("vgg16-B")


def test_target_of_another_network_is_refused():
    with pytest.raises(ValueError, match="no layer matches"):
        plan_for_target("vgg16-A", build("resnet20", 10), [])


def conv_widths(model):
    return [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]


def block_widths(model):
    """By bottleneck: channels that the first convolution reads, its own, and the second one's."""
    convs = [(m.conv1, m.conv2) for m in model.modules() if hasattr(m, "conv3")]
    return [n for first, second in convs for n in (first.in_channels, first.out_channels, second.out_channels)]


@requires_reference
@pytest.mark.parametrize(
    ("name", "published", "widths"),
    [
        ("vgg16-A", "l1/vgg16-A@cifar100", None),
        ("resnet56-B", "l1/resnet56-B@cifar100", None),
        ("vgg16-A", "l1/vgg16-A", conv_widths),
        ("resnet50-2x", "in-reg/resnet50-2x", block_widths),
    ],
)
def test_widths_and_numbers_of_the_released_code(name, published, widths):
    facts, target = load_facts()["architectures"][published], get_target(name)
    classes = 1000 if target.input_size == 224 else 100 if published.endswith("cifar100") else 10
    pruned = prune_to_target(name, classes, model=shape_only(target.arch, classes, target.options))
    assert cost(pruned.model, target.arch) == (facts["params"], facts["macs"]["total"])
    if widths is not None:
        assert widths(pruned.model) == [n for n in facts["widths"] if n != "M"]


@requires_reference
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vgg16_slim", "ns/vgg16@cifar100"),
        ("preresnet110", "wl/preresnet110@cifar100"),
        ("densenet40", "ns/densenet40@cifar100"),
        ("densenet_bc100", "wl/densenet-BC-100-k12(Bottleneck class passed explicitly)@cifar100"),
    ],
)
def test_dense_networks_for_a_hundred_classes(name, published):
    facts = load_facts()["architectures"][published]
    assert cost(shape_only(name, 100), name) == (facts["params"], facts["macs"]["total"])


@requires_reference
def test_released_magnitude_vgg_has_biases():
    facts = load_facts()["architectures"]["wl/vgg19_bn"]
    assert cost(shape_only("vgg19_slim", 10, {"conv_bias": True}), "vgg19_slim") == (
        facts["params"],
        facts["macs"]["total"],
    )


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@requires_reference
def test_thinet_tiny_computes_the_released_logits():
    vector, options = load_vector("in_thinet_vgg16_tiny"), {"head": "gap"}
    pruned = prune_to_target("thinet-vgg16-tiny", 1000, model=shape_only("vgg16", 1000, options))
    model = pruned.model.eval()
    load_state(model, input_state(vector))
    with torch.no_grad():
        assert relative(model(fixed_input(224)), vector["logits_before"]) <= 1e-4


@requires_reference
@pytest.mark.parametrize(("name", "vector"), [("vgg19_slim", "ns_vgg19_70"), ("preresnet110", "wl_preresnet110")])
def test_dense_networks_compute_the_released_logits(name, vector):
    vector, model = load_vector(vector), shape_only(name, 10).eval()
    load_state(model, input_state(vector))
    with torch.no_grad():
        assert relative(model(vector["x"]), vector["logits_before"]) <= 1e-4
