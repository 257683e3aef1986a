"""Random weights of narrowed networks of torchvision and timm: by the rule of their own constructor."""

import copy
from functools import partial
from math import sqrt

import pytest
import torch
from torch import nn

from classify.models import arch, build, channel_groups, rebuild, trace_input
from classify.models.init import initialise
from classify.models.own_rule import construct, redraw
from pruning.cut import make_plan
from pruning.methods import Choice
from pruning.plan import PruningPlan
from pruning.select import Selection, eligible
from pruning.surgery import apply

TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnext50_32x4d",
    "squeezenet1_1",
    "wide_resnet50_2",
]
TIMM = [
    "convnext_atto",
    "ghostnet_100",
    "mobilenetv4_conv_small",
    "rexnet_100",
    "skresnet18",
    "tf_efficientnet_b0",
    "timm/densenet121",
    "timm/regnety_002",
    "timm/resnet18",
    "timm/resnet50",
    "timm/vgg11_bn",
]


def network(name):
    if name in TIMM:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = build(name, 10).eval()
    return model, channel_groups(name, model, trace_input(name))


def same_spread(tensor, other):
    """Are the two of one distribution, as far as their means and deviations tell (5 standard errors)?"""
    n = tensor.numel()
    if n == 1 or bool((tensor == tensor.flatten()[0]).all()):
        return torch.equal(tensor, other)
    a, b = tensor.double(), other.double()
    rounding = 6 / sqrt(2 * n)  # a normal distribution's; truncated and uniform ones vary less
    means = abs(float(a.mean() - b.mean())) <= 6 * sqrt(2 / n) * float(b.std())
    return means and abs(float(a.std() / b.std()) - 1) <= 2 * rounding


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_a_plan_that_removes_nothing_draws_every_tensor_as_the_constructor_does(name):
    model, groups = network(name)
    everything = {group.name: tuple(range(group.width)) for group in groups}
    plan = PruningPlan(name, {}, everything, {group.name: group.width for group in groups})
    assert plan.changes_shape
    scratch = dict(rebuild(plan, 10).named_parameters())
    odd = [n for n, p in model.named_parameters() if not same_spread(p.detach(), scratch[n].detach())]
    assert odd == []


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "mobilenet_v2", "timm/resnet18", "tf_efficientnet_b0"])
def test_the_same_numbers_give_the_constructors_own_tensors(name):
    if name in TIMM:
        pytest.importorskip("timm")
    make = partial(build, name, 10)
    torch.manual_seed(3)
    expected, order = construct(make)
    small = copy.deepcopy(expected)
    for parameter in small.parameters():
        nn.init.constant_(parameter, 7.0)
    torch.manual_seed(3)
    redraw(small, make, order)
    for (key, tensor), other in zip(small.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(tensor, other), key


def halved(name):
    """A network that lost half of each inner layer, drawn anew, and its convolutions that are large and narrower."""
    model, groups = network(name)
    keep = {group.name: tuple(range(group.width // 2)) for group in eligible(groups, Selection(ratio=0.5))}
    small = rebuild(make_plan(arch(name), groups, Choice(keep)), 10)
    convs = [(n, m) for n, m in small.named_modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 20_000]
    return small, [(n, m) for n, m in convs if m.weight.shape != model.get_submodule(n).weight.shape]


def fan_in(conv):
    return conv.weight[0].numel()


def fan_out(conv):
    return conv.out_channels * conv.weight[0, 0].numel()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("googlenet", lambda conv: 0.01),
        ("squeezenet1_1", lambda conv: sqrt(2 / fan_in(conv))),
        ("mobilenet_v2", lambda conv: sqrt(2 / fan_out(conv))),
        pytest.param("densenet121", lambda conv: sqrt(2 / fan_in(conv)), marks=pytest.mark.slow),
        ("regnet_y_400mf", lambda conv: sqrt(2 / fan_out(conv))),  # the constructor works out the fan itself
        ("timm/resnet18", lambda conv: sqrt(2 / fan_out(conv))),
    ],
)
def test_fans_are_those_of_the_narrow_layers(name, rule):
    small, convs = halved(name)
    assert convs
    for layer, conv in convs:
        found = float(conv.weight.detach().double().std())
        assert found == pytest.approx(rule(conv), rel=0.04), layer
    small.eval()(trace_input(name))  # and it is a network


def test_the_last_scale_of_a_branch_stays_zero_where_the_class_wants_it():
    small, _ = halved("timm/resnet18")
    assert not small.get_parameter("layer3.1.bn2.weight").any()
    assert bool((small.get_parameter("layer3.1.bn1.weight") == 1).all())


def test_a_scale_for_each_channel_stays_what_the_class_says():
    small, _ = halved("convnext_tiny")
    for name, parameter in small.named_parameters():
        if name.endswith("layer_scale"):
            assert bool((parameter == 1e-6).all())


def test_the_layers_draw_as_ever_after_a_constructor_that_failed():
    before = nn.Linear.reset_parameters
    with pytest.raises(ZeroDivisionError):
        construct(lambda: 1 // 0)
    assert nn.Linear.reset_parameters is before


def test_our_own_networks_are_drawn_by_their_own_initialisation():
    """Constructed, cut and initialised: the same numbers as before there was another way."""
    torch.manual_seed(0)
    model = build("resnet20", 10)
    groups = channel_groups("resnet20", model)
    keep = {"layer1.0.conv1": tuple(range(8))}
    plan = make_plan(arch("resnet20"), groups, Choice(keep))
    torch.manual_seed(5)
    small = rebuild(plan, 10)
    torch.manual_seed(5)
    expected = apply(build("resnet20", 10), plan, groups)
    initialise(expected)
    for tensor, other in zip(small.parameters(), expected.parameters(), strict=True):
        assert torch.equal(tensor, other)
