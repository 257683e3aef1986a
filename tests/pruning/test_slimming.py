"""Network slimming: the subgradient, the selection, and what the removed channels mean for the surgery."""

import copy
import math

import pytest
import torch
from support.digits_training import accuracy, small_vgg, train_on_digits
from support.reference import fixed_input, input_state, load_state, load_vector
from support.small_networks import Plain, randomise, residual_network
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from classify.models import arch, build, channel_groups
from classify.models.preresnet import PreResNet, PreResNetShape
from pruning.cost import count_macs, count_params
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.graph.norm_channels import norm_channels
from pruning.methods import METHODS, Request
from pruning.methods.slimming import SlimmingEffect, SlimmingOptions, above_threshold
from pruning.select import Selection


def slim(model, x, ratio, *, selection=None, **options):
    groups = find_groups(model, x[:1])
    selection = selection or Selection(ratio=ratio)
    return prune(
        model, Arch("test", {}), groups, "slimming", selection, batch=x, seed=0, options=SlimmingOptions(**options)
    )


def two_norms(first, second):
    """Two convolutions whose BatchNorms have these scales."""
    model = nn.Sequential(
        nn.Conv2d(3, len(first), 3, padding=1),
        nn.BatchNorm2d(len(first)),
        nn.ReLU(),
        nn.Conv2d(len(first), len(second), 3, padding=1),
        nn.BatchNorm2d(len(second)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(len(second), 2),
    )
    model[1].weight.data = torch.tensor(first)
    model[4].weight.data = torch.tensor(second)
    return model.eval()


def zero_removed(model, found, plan):
    """A copy of `model` in which gamma and beta of every removed channel are zero, as in the released code."""
    zeroed = copy.deepcopy(model)
    for item in found:
        kept = plan.select.get(item.readers[0]) if item.readers else plan.keep[item.unit.name]
        norm = zeroed.get_submodule(item.norms[0])
        gone = sorted(set(range(item.unit.width)) - set(range(item.unit.width) if kept is None else kept))
        norm.weight.data[gone] = 0
        norm.bias.data[gone] = 0
    return zeroed


def test_the_subgradient_is_s_times_the_sign_of_gamma():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].weight.data = torch.tensor([2.0, -3.0, 0.0])
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    SlimmingEffect(model, SlimmingOptions(s=0.25)).after_backward()
    assert model[1].weight.grad.tolist() == [0.75, 0.25, 0.5]
    untouched = [model[0].weight, model[0].bias, model[1].bias, model[3].weight, model[4].weight]
    assert all(bool((p.grad == 0.5).all()) for p in untouched)
    SlimmingEffect(model, SlimmingOptions(s=0.25, linear_norms=True)).after_backward()
    assert model[4].weight.grad.tolist() == [0.75, 0.75]


def test_frozen_scales_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[1].weight.requires_grad = False
    model[2].weight.grad = torch.zeros(3)
    SlimmingEffect(model, SlimmingOptions(s=1)).after_backward()
    assert model[1].weight.grad is None
    assert model[2].weight.grad.tolist() == [1, 1, 1]
    model[2].weight.requires_grad = False
    with pytest.raises(ValueError, match="every BatchNorm scale is frozen"):
        SlimmingEffect(model, SlimmingOptions())


def test_the_smallest_scales_of_the_network_go():
    model = two_norms([0.9, -0.1, 0.8, 0.2], [0.3, 0.7, -0.05, 0.6, 0.5, 0.4])
    plan = slim(model, torch.randn(2, 3, 8, 8), 0.4).plan
    assert plan.keep == {"0": (0, 2), "3": (1, 3, 4, 5)}
    whole = slim(model, torch.randn(2, 3, 8, 8), 0.0).plan
    assert whole.keep == {"0": (0, 1, 2, 3), "3": (0, 1, 2, 3, 4, 5)}
    skipped = slim(model, torch.randn(2, 3, 8, 8), 0, selection=Selection(ratio=0.5, skip=("0",))).plan
    assert skipped.keep == {"3": (1, 3, 4)}
    by_layer = slim(model, torch.randn(2, 3, 8, 8), 0.5, level="layer").plan
    assert by_layer.keep == {"0": (0, 2), "3": (1, 3, 4)}


def test_the_released_rule_removes_one_more_and_all_ties():
    scales = {"a": torch.tensor([0.1, 0.2, 0.3, 0.4]), "b": torch.tensor([0.5, 0.6, 0.7, 0.8])}
    assert above_threshold(scales, 0.5) == {"a": (3,), "b": (1, 2, 3)}  # 5 of 8 go, and `a` keeps its largest
    tied = {"a": torch.full((4,), 0.5)}
    assert above_threshold(tied, 0.25) == {"a": (0,)}


def test_a_layer_never_loses_all_its_channels():
    model = two_norms([0.01, 0.02], [0.5, 0.6, 0.7, 0.8])
    assert slim(model, torch.randn(2, 3, 8, 8), 0.5).plan.keep == {"0": (1,), "3": (2, 3)}
    assert slim(model, torch.randn(2, 3, 8, 8), 0.5, exact=False).plan.keep == {"0": (1,), "3": (2, 3)}


@pytest.mark.parametrize(
    ("name", "options", "n_scales", "kept", "selecting"),
    [
        # 2 blocks a stage: bn1 selects, bn2 and bn3 narrow; the final BatchNorm selects for fc
        ("cifar_preresnet", {"depth": 20}, 1360, 12, 7),
        # 4 layers a stage, two transitions and the final BatchNorm: all select
        ("cifar_densenet", {"depth": 16}, 1440, 0, 15),
        # bottlenecks: the second BatchNorm narrows the first convolution
        ("cifar_densenet", {"depth": 22, "bottleneck": True, "compression": 0.5}, 996, 9, 12),
    ],
)
def test_trunks_keep_their_width_and_their_readers_select(name, options, n_scales, kept, selecting):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    model = randomise(build(name, 10, options), x)
    groups = channel_groups(name, model)
    found = norm_channels(model, groups)
    assert sum(item.unit.width for item in found) == n_scales
    pruned = prune(model, arch(name, options), groups, "slimming", Selection(ratio=0.4), batch=x, seed=0)
    assert (len(pruned.plan.keep), len(pruned.plan.select)) == (kept, selecting)
    left = sum(map(len, pruned.plan.keep.values())) + sum(map(len, pruned.plan.select.values()))
    assert n_scales - left == int(n_scales * 0.4)
    with torch.no_grad():
        expected = zero_removed(model, found, pruned.plan)(x)
        assert torch.allclose(pruned.model.eval()(x), expected, rtol=1e-4, atol=1e-4)
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n not in pruned.plan.keep]
    wide = {n: len(model.get_parameter(f"{n}.weight")) for n in convs}
    assert wide == {n: len(pruned.model.get_parameter(f"{n}.weight")) for n in convs}


def test_every_reader_of_a_shared_norm_selects():
    """The projection of the ImageNet form reads the activated input, as the branch does."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = randomise(PreResNet(PreResNetShape((1, 2), (4, 8), 8, "imagenet"), 10), x)
    pruned = slim(model, x, 0.3)
    assert pruned.plan.select["layer2.0.conv1"] == pruned.plan.select["layer2.0.downsample.0"]
    assert len(pruned.plan.select["layer2.0.conv1"]) < 16


def test_the_end_of_a_residual_branch_decides_nothing():
    model = residual_network().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bn1.weight", "bn2.weight")):
                parameter.copy_(torch.linspace(0.1, 1, len(parameter)))
    pruned = slim(model, torch.randn(2, 3, 16, 16), 0.5)
    assert list(pruned.plan.keep) == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
    assert not pruned.plan.select
    assert sum(pruned.plan.kept_counts().values()) == 28  # half of 8 + 16 + 32


def test_scales_behind_linear_layers_count_when_asked():
    model = build("vgg16_l1", 10)
    groups = channel_groups("vgg16_l1", model)
    assert sum(item.unit.width for item in norm_channels(model, groups)) == 4224
    assert sum(item.unit.width for item in norm_channels(model, groups, linear=True)) == 4224 + 512


def test_a_network_that_selects_is_pruned_further():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    model = randomise(build("cifar_densenet", 10, {"depth": 10}), x)
    once = slim(model, x, 0.4)
    twice = slim(once.model, x, 0.25)
    total = sum(map(len, once.plan.select.values()))
    assert sum(map(len, once.plan.then(twice.plan).select.values())) == total - math.ceil(total * 0.25)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (FrozenBatchNorm2d, "1 is a FrozenBatchNorm2d, which holds gamma as a constant"),
        (lambda width: nn.GroupNorm(2, width), "1 is a GroupNorm, which mixes channels"),
        (lambda width: nn.Identity(), "no normalisation over the batch"),
    ],
)
def test_networks_without_trainable_scales_are_refused(norm, message):
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), pool, nn.Linear(4, 2))
    with pytest.raises(ValueError, match=message):
        SlimmingEffect(model, SlimmingOptions())
    with pytest.raises(ValueError, match=message):
        slim(model, torch.randn(2, 3, 8, 8), 0.5)


@pytest.mark.parametrize("options", [{"s": -1.0}, {"level": "stage"}, {"level": "layer", "exact": False}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SlimmingOptions(**options)


def test_ratios_by_layer_need_the_level_layer():
    selection = Selection(layers={"0": 0.5})
    with pytest.raises(ValueError, match="level 'layer'"):
        slim(Plain().eval(), torch.randn(2, 3, 8, 8), 0, selection=selection)
    kept = slim(Plain().eval(), torch.randn(2, 3, 8, 8), 0, selection=selection, level="layer").plan.kept_counts()
    assert kept == {"0": 4, "4": 6}


def test_training_brings_scales_to_zero(tmp_path):
    model = small_vgg()
    train_on_digits(model, [SlimmingEffect(model, SlimmingOptions(s=0.03))], tmp_path, epochs=10)
    gammas = torch.cat([model[1].weight, model[5].weight]).detach().abs()
    assert int((gammas < 1e-2).sum()) >= 12  # 48 scales; the smallest without the effect is above 0.3
    before = accuracy(model)
    pruned = slim(model, torch.randn(2, 3, 8, 8), 0.25)
    assert accuracy(pruned.model) >= before - 1 > 90


def test_released_choice_and_logits_are_met():
    """VGG-19 at 70 %: of 5504 channels int(3852.8) are to go; the released rule takes one more."""
    vector = load_vector("ns_vgg19_70")
    model = build("vgg19_slim", 10).eval()
    load_state(model, input_state(vector))
    x = fixed_input(32)
    groups = channel_groups("vgg19_slim", model)
    released = SlimmingOptions(exact=False)
    pruned = prune(
        model, arch("vgg19_slim"), groups, "slimming", Selection(ratio=0.7), batch=x, seed=0, options=released
    )
    assert [list(kept) for kept in pruned.plan.keep.values()] == vector["kept"]
    assert list(pruned.plan.kept_counts().values()) == [width for width in vector["cfg"] if width != "M"]
    with torch.no_grad():
        for network, key in ((model, "logits_before"), (pruned.model.eval(), "logits_pruned")):
            assert float((network(x) - vector[key]).abs().max() / vector[key].abs().max()) <= 1e-4
    assert (count_params(pruned.model), count_macs(pruned.model, x[:1])) == (1_811_309, 37_931_918)
    exact = METHODS["slimming"].prune(model, Request(groups, Selection(ratio=0.7), SlimmingOptions(), seed=0))
    assert sum(len(kept) for kept in exact.keep.values()) == 5504 - 3852
    more = {name: set(kept) - set(pruned.plan.keep[name]) for name, kept in exact.keep.items()}
    assert sorted(len(channels) for channels in more.values() if channels) == [1]
