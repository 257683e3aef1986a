"""Architectures by name: shapes, initialisation, and what is refused."""

import pytest
import torch
from torch import nn

from classify.models import MODELS, build, channel_groups, example_input, get_model, rebuild, trace_input
from pruning.cost import count_params
from pruning.plan import PruningPlan

SMALL = {
    "lenet_300_100": {},
    "lenet5": {},
    "conv2": {},
    "conv4": {},
    "conv6": {},
    "cifar_resnet": {"depth": 8},
    "cifar_preresnet": {"depth": 11},
    "cifar_densenet": {"depth": 7, "bottleneck": False},
    "vgg11_slim": {},
    "vgg16_l1": {},
}


@pytest.mark.parametrize("name", SMALL)
def test_network_maps_its_example_to_logits(name):
    model = build(name, 7, SMALL[name]).eval()
    assert model(example_input(name, SMALL[name])).shape == (1, 7)
    assert all(group.fixed is None for group in channel_groups(name, model) if group.inner)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lenet_300_100", 266_610),  # 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
        ("lenet5", 431_080),  # Han et al., NIPS 2015, table 1: 431 K
        (
            "conv2",
            4_301_642,
        ),  # Frankle & Carbin, ICLR 2019, figure 2: 4.3 M, 2.4 M (its 1.7 M for Conv-6 do not follow)
        ("conv4", 2_425_930),
    ],
)
def test_networks_of_the_lottery_tickets(name, params):
    assert count_params(build(name, 10)) == params


def test_lenet_takes_colour_images_as_an_option():
    options = {"in_channels": 3, "image_size": 32}
    assert example_input("lenet5", options).shape == (1, 3, 32, 32)
    assert build("lenet5", 10, options)(example_input("lenet5", options)).shape == (1, 10)
    assert example_input("lenet5").shape == (1, 1, 28, 28)


def test_groups_of_an_imagenet_network_do_not_depend_on_the_image():
    model = build("resnet18", 10)
    assert trace_input("resnet18").shape == (1, 3, 64, 64)
    assert channel_groups("resnet18", model) == channel_groups("resnet18", model, torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("name", "gamma"),
    [("vgg16_l1", 0.5), ("vgg11_slim", 0.5), ("cifar_preresnet", 0.5), ("cifar_densenet", 0.5), ("cifar_resnet", 1.0)],
)
def test_batchnorm_scales_start_where_the_paper_starts_them(name, gamma):
    model = build(name, 10, SMALL[name])
    assert {v for m in model.modules() if isinstance(m, nn.BatchNorm2d) for v in m.weight.tolist()} == {gamma}
    assert {v for m in model.modules() if isinstance(m, nn.BatchNorm1d) for v in m.weight.tolist()} <= {1.0}


def test_linear_layers_of_a_vgg_start_small():
    weight = build("vgg16_l1", 10).classifier[0].weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_rebuilt_network_is_drawn_as_its_architecture_is_for_its_own_widths():
    keep = tuple(range(8))
    plan = PruningPlan("vgg11_slim", keep={"feature.0": keep}, widths={"feature.0": 64})
    torch.manual_seed(0)
    small = rebuild(plan, 10)
    assert small.feature[1].weight.tolist() == [0.5] * 8
    # 8 filters of 3x3 on 3 channels: std sqrt(2 / (9 * 8)) = 1/6, from 216 numbers
    assert small.feature[0].weight.std().item() == pytest.approx(1 / 6, rel=0.2)
    assert small.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_glorot_start_of_the_lottery_networks():
    model = build("lenet_300_100", 10)
    assert model[1].weight.std().item() == pytest.approx((2 / (784 + 300)) ** 0.5, rel=0.02)
    assert model[1].bias.abs().sum() == 0


def test_projection_of_a_block_without_branch_sees_what_it_saw():
    for name, options in (("cifar_preresnet", {"depth": 11}), ("preresnet50", {})):
        model = build(name, 10, options).eval()
        block = model.layer1[0]
        x = torch.randn(1, block.bn1.num_features, 4, 4)
        block.bn1.bias.data.fill_(0.3)
        block.conv3.weight.data.zero_()
        assert torch.equal(block.shortcut_only().eval()(x), block(x))


def test_densenet_puts_new_channels_behind():
    layer = build("cifar_densenet", 10, {"depth": 7}).dense1[0]
    x = torch.randn(1, 24, 4, 4)
    assert torch.equal(layer(x)[:, :24], x)
    assert layer(x).shape == (1, 36, 4, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar_preresnet", {"depth": 20 + 1}, "depth 9n\\+2"),
        ("cifar_densenet", {"depth": 41}, "depth 3n\\+4 without bottlenecks, not 41"),
        ("cifar_densenet", {"depth": 13, "bottleneck": True}, "depth 6n\\+4 with bottlenecks"),
        ("cifar_densenet", {"depth": 10, "compression": 0.0}, "compression=0.0"),
        ("vgg16", {"head": "mlp"}, "unknown head 'mlp'; known: linear, gap"),
        ("lenet5", {"image_size": 12}, "at least 16x16"),
        ("conv6", {"image_size": 4}, "image_size=4 is too small"),
        ("vgg16_l1", {"width": 2}, "'vgg16_l1' does not take these options"),
        ("resnet21", {}, "unknown architecture 'resnet21'"),
    ],
)
def test_impossible_networks_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, 10, options)


def test_own_entries_come_before_torchvisions():
    assert get_model("vgg16") is MODELS["vgg16"]
    assert get_model("mobilenet_v2").input_size == 224
