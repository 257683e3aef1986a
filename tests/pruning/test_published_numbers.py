"""Params, multiply-adds and Scratch-B epochs of every published network, dense and pruned.

The numbers and their source are in support/published.py.
"""

import pytest
import torch
from support import published
from support.published import CIFAR10, IMAGENET
from support.reference import fixed_input, input_state, load_state, load_vector

from classify.models import arch, build, channel_groups, example_input, rebuild, trace_input
from pruning.cost import count_macs, count_params
from pruning.cut import prune_by_choice
from pruning.targets import TARGETS, choose_for_target, get_target, scratch_b_epochs


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


def prune_to_target(name, model, options=None):
    """`model` cut to the published shape, and compared with the masked one; `options`: the target's if None."""
    target = get_target(name)
    options = target.options if options is None else options
    example = trace_input(target.arch, options)
    batch = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    groups = channel_groups(target.arch, model, example)
    return prune_by_choice(
        model, arch(target.arch, options), groups, choose_for_target(target, model, groups), batch=batch
    )


def cost(model, name):
    return count_params(model), count_macs(model, example_input(name))


@pytest.mark.parametrize("name", [*CIFAR10, *IMAGENET])
def test_dense_networks(name):
    expected = {**CIFAR10, **IMAGENET}[name]
    assert cost(shape_only(name, 10 if name in CIFAR10 else 1000), name) == expected


def test_dense_resnet50_with_biased_projections():
    biased = shape_only("resnet50", 1000, {"projection_bias": True})
    assert cost(biased, "resnet50") == published.RESNET50_WITH_BIASES


# of a network and a method that one other entry stands for
SLOW = (
    *("resnet56-A", "resnet110-B", "resnet34-B", "thinet-vgg16-conv", "thinet-resnet50-30", "thinet-resnet50-70"),
    *("sss-resnet41", "sss-resnet32"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in published.TARGETS]
)
def test_pruned_networks(name):
    target = get_target(name)
    classes = 10 if target.arch in CIFAR10 else 1000
    pruned = prune_to_target(name, shape_only(target.arch, classes, target.options))
    params, macs = cost(pruned.model, target.arch)
    dense_macs = {**CIFAR10, **IMAGENET}[target.arch][1]
    epochs = scratch_b_epochs(target.base_epochs, dense_macs, macs, cap=target.cap)
    assert (params, macs, epochs) == published.TARGETS[name]


def test_every_target_has_its_numbers():
    assert set(TARGETS) == set(published.TARGETS)


def test_biases_of_the_projections_are_the_difference_to_torchvision():
    pruned = prune_to_target("thinet-resnet50-50", shape_only("resnet50", 1000), options={})
    assert count_params(pruned.model) == published.TARGETS["thinet-resnet50-50"][0] - published.PROJECTION_BIASES
    assert pruned.plan.options == {}


def test_dropped_blocks_rebuild_from_the_plan():
    plan = prune_to_target("sss-resnet26", shape_only("preresnet50", 1000)).plan
    assert len(plan.drop) == 16 - 8
    assert count_params(rebuild(plan, 1000)) == published.TARGETS["sss-resnet26"][0]


def test_blocks_with_the_largest_last_layer_stay():
    model = shape_only("preresnet50", 1000)
    with torch.no_grad():
        for block in (1, 3):
            model.layer2[block].conv3.weight.mul_(2)
    plan = prune_to_target("sss-resnet26", model).plan
    assert [name for name in plan.drop if name.startswith("layer2")] == ["layer2.0", "layer2.2"]


def test_selected_inputs_are_those_with_the_largest_kernels():
    model = shape_only("resnet50", 1000, {"projection_bias": True})
    with torch.no_grad():
        model.layer1[0].conv1.weight[:, 20:].mul_(10)
    plan = prune_to_target("resnet50-2x", model).plan
    assert len(plan.select["layer1.0.conv1"]) == 35
    assert min(plan.select["layer1.0.conv1"]) >= 20


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown target 'vgg16-B'; known: vgg16-A, resnet56-A"):
        get_target("vgg16-B")


def test_target_of_another_network_is_refused():
    with pytest.raises(ValueError, match="no layer matches"):
        choose_for_target(get_target("vgg16-A"), build("resnet20", 10), [])


def conv_widths(model):
    return [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]


def block_widths(model):
    """By bottleneck: channels that the first convolution reads, its own, and the second one's."""
    convs = [(m.conv1, m.conv2) for m in model.modules() if hasattr(m, "conv3")]
    return [n for first, second in convs for n in (first.in_channels, first.out_channels, second.out_channels)]


@pytest.mark.parametrize("name", published.TARGETS_CIFAR100)
def test_pruned_networks_for_a_hundred_classes(name):
    pruned = prune_to_target(name, shape_only(get_target(name).arch, 100))
    assert cost(pruned.model, get_target(name).arch) == published.TARGETS_CIFAR100[name]


@pytest.mark.parametrize(
    ("name", "widths", "expected"),
    [
        ("vgg16-A", conv_widths, published.VGG16_A_WIDTHS),
        ("resnet50-2x", block_widths, published.RESNET50_2X_WIDTHS),
    ],
)
def test_widths_of_the_released_code(name, widths, expected):
    target = get_target(name)
    classes = 10 if target.arch in CIFAR10 else 1000
    pruned = prune_to_target(name, shape_only(target.arch, classes, target.options))
    assert widths(pruned.model) == expected


@pytest.mark.parametrize("name", published.CIFAR100)
def test_dense_networks_for_a_hundred_classes(name):
    assert cost(shape_only(name, 100), name) == published.CIFAR100[name]


def test_released_magnitude_vgg_has_biases():
    biased = shape_only("vgg19_slim", 10, {"conv_bias": True})
    assert cost(biased, "vgg19_slim") == (published.CONV_BIAS_PARAMS["vgg19_slim"], CIFAR10["vgg19_slim"][1])


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


def test_thinet_tiny_computes_the_released_logits():
    vector, options = load_vector("in_thinet_vgg16_tiny"), {"head": "gap"}
    pruned = prune_to_target("thinet-vgg16-tiny", shape_only("vgg16", 1000, options))
    model = pruned.model.eval()
    load_state(model, input_state(vector))
    with torch.no_grad():
        assert relative(model(fixed_input(224)), vector["logits_before"]) <= 1e-4


@pytest.mark.parametrize(("name", "vector"), [("vgg19_slim", "ns_vgg19_70"), ("preresnet110", "wl_preresnet110")])
def test_dense_networks_compute_the_released_logits(name, vector):
    vector, model = load_vector(vector), shape_only(name, 10).eval()
    load_state(model, input_state(vector))
    with torch.no_grad():
        assert relative(model(fixed_input(32)), vector["logits_before"]) <= 1e-4
