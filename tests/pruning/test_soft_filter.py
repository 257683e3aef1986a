"""Soft filter pruning: what is zeroed and when, filters that come back, a small network that equals the zeroed one."""

import copy

import pytest
import torch
import torchvision
from support.digits_training import accuracy, small_vgg, train_on_digits
from support.reference import fixed_input, input_state, load_state, load_vector
from support.small_networks import Plain, dense_network, randomise, residual_network
from torch import nn

from classify.models import build
from pruning.cost import count_macs
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.methods import Request, get_method
from pruning.methods.soft_filter import (
    SoftFilterEffect,
    SoftFilterOptions,
    filters_to_keep,
    find_filters,
    training_effect,
)
from pruning.select import Selection

# of MobileNetV2: expansion, channels, blocks, stride
SHORT = [[1, 16, 1, 1], [6, 24, 2, 2]]


def soften(model, x, ratio, *, selection=None, stages=(), **options):
    groups = find_groups(model, x[:1], stages=stages)
    selection = selection or Selection(ratio=ratio)
    options = SoftFilterOptions(**options)
    return prune(model, Arch("test", {}), groups, "soft_filter", selection, batch=x, seed=0, options=options)


def effect_on(model, ratio, *, skip=(), **options):
    """The effect that zeroes this share of every convolution but those skipped."""
    widths = {name: len(model.get_parameter(f"{name}.weight")) for name in find_filters(model) if name not in skip}
    return SoftFilterEffect(model, {n: filters_to_keep(width, ratio) for n, width in widths.items()}, **options)


def zeroed(model, **options):
    """A copy of `model` after the zeroing of a training effect."""
    copied = copy.deepcopy(model)
    effect_on(copied, **options).at_start()
    return copied


def zero_filters_of(model):
    convs = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return {name: (m.weight.flatten(1).norm(dim=1) == 0).nonzero().flatten().tolist() for name, m in convs.items()}


def four_filters():
    """Filters with norms 5, 1, 4, 2 (1x1 kernels over two channels), a BatchNorm, a reader, the output."""
    first = nn.Conv2d(2, 4, 1, bias=False)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    model[0].weight.data = torch.tensor([[3.0, -4.0], [0.6, 0.8], [0.0, 4.0], [2.0, 0.0]]).view(4, 2, 1, 1)
    model[1].weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    model[1].bias.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    return model


@pytest.mark.parametrize(
    ("width", "ratio", "kept"),
    [(16, 0.3, 12), (32, 0.3, 23), (64, 0.3, 45), (16, 0.1, 15), (10, 0.1, 9), (100, 0.29, 71), (3, 0.9, 1)],
)
def test_what_is_zeroed_is_rounded_down(width, ratio, kept):
    assert filters_to_keep(width, ratio) == kept


def test_zeroing_by_hand():
    model = four_filters()
    effect = effect_on(model, 0.5)
    effect.at_start()
    assert model[0].weight.flatten(1).tolist() == [[3, -4], [0, 0], [0, 4], [0, 0]]
    assert model[1].weight.tolist() == [1, 0, 3, 0]
    assert model[1].bias.tolist() == pytest.approx([0.1, 0, 0.3, 0])
    assert int((model[3].weight.flatten(1).norm(dim=1) == 0).sum()) == 1  # one of three; its bias with it
    assert int((model[3].bias == 0).sum()) == 1
    effect.after_backward()
    assert model[0].weight.flatten(1).tolist() == [[3, -4], [0, 0], [0, 4], [0, 0]]
    assert model[1].weight.tolist() == [1, 2, 3, 4]
    assert model[1].bias.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_released_form_leaves_the_norm_alone():
    model = four_filters()
    effect_on(model, 0.5, zero_norm=False).at_start()
    assert model[0].weight.flatten(1).tolist() == [[3, -4], [0, 0], [0, 4], [0, 0]]
    assert model[1].weight.tolist() == [1, 2, 3, 4]


def test_filters_that_compute_the_output_are_classes():
    model = torchvision.models.squeezenet1_0(num_classes=5)
    assert set(find_filters(model)) == {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)} - {
        "classifier.1"
    }


def test_skipped_convolutions_stay_whole():
    model = four_filters()
    effect_on(model, 0.5, skip=("0",)).at_start()
    assert zero_filters_of(model)["0"] == []
    assert len(zero_filters_of(model)["3"]) == 1


def test_filters_come_back_and_the_choice_is_made_anew():
    model = four_filters()
    effect = effect_on(model, 0.5, skip=("3",))
    effect.at_start()
    assert zero_filters_of(model)["0"] == [1, 3]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(8, 2, 3, 3, generator=generator)
        loss = (model(x) * torch.randn(8, 3, 3, 3, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        effect.after_backward()
        optimizer.step()
        effect.after_step(0.1)
    assert zero_filters_of(model)["0"] == []
    model[0].weight.data[1] = 9.0
    effect.after_epoch()
    assert 1 not in zero_filters_of(model)["0"]
    assert len(zero_filters_of(model)["0"]) == 2


def test_the_norm_that_waits_for_the_next_epoch_is_part_of_the_state():
    model, resumed = four_filters(), four_filters()
    effect, again = (effect_on(m, 0.5) for m in (model, resumed))
    effect.at_start()
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(effect.state_dict())
    for e in (effect, again):
        e.after_backward()
        assert e.state_dict() == {}
    assert resumed[1].weight.tolist() == model[1].weight.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("zero_norm", [True, False])
@pytest.mark.parametrize(
    ("build_network", "side"),
    [
        (lambda: Plain(), 8),
        (residual_network, 16),
        (dense_network, 32),
        (lambda: build("cifar_preresnet", 5, {"depth": 11}), 16),
        (lambda: build("cifar_densenet", 5, {"depth": 10}), 16),
        (lambda: build("conv2", 5), 32),
        (lambda: build("imagenet_resnet", 5, {"depth": 10, "width": 0.25}), 32),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25, inverted_residual_setting=SHORT), 32),
        (lambda: torchvision.models.squeezenet1_0(num_classes=5), 64),
    ],
)
def test_the_small_network_equals_the_zeroed_one(build_network, side, zero_norm):
    torch.manual_seed(0)
    x = torch.randn(4, 3, side, side)
    model = randomise(build_network(), x)
    dense = zeroed(model, ratio=0.3, zero_norm=zero_norm)
    pruned = soften(model, x, 0.3, zero_norm=zero_norm)
    with torch.no_grad():
        expected = dense.eval()(x)
        assert torch.allclose(pruned.model.eval()(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    for name in find_filters(model):
        width, left = (len(m.get_parameter(f"{name}.weight")) for m in (model, pruned.model))
        assert left == filters_to_keep(width, 0.3)
    assert soften(model, x, 0.0, zero_norm=zero_norm).plan.changes_shape is False


def test_layers_stages_and_skip_of_the_selection():
    model = residual_network().eval()
    x = torch.randn(2, 3, 16, 16)
    selection = Selection(ratio=(0.25, 0.5, 0.0), skip=("conv1",))
    pruned = soften(model, x, 0.0, selection=selection, stages=("layer1", "layer2", "layer3"))
    assert {**pruned.plan.kept_counts(), **{n: len(c) for n, c in pruned.plan.scatter.items()}} == {
        "layer1.0.conv1": 6,
        "layer1.0.bn2": 6,
        "layer2.0.conv1": 8,
        "layer2.0.bn2": 8,
    }
    with pytest.raises(ValueError, match="each layer's share from the user"):
        soften(model, x, 0.5, selection=Selection(ratio=0.5, level="global"))
    with pytest.raises(ValueError, match="no layer matches 'layer9"):
        soften(model, x, 0.5, selection=Selection(ratio=0.5, skip=("layer9.*",)))


def test_a_trained_network_shrinks_without_a_change(tmp_path):
    model = small_vgg()
    train_on_digits(model, [effect_on(model, 0.25)], tmp_path, epochs=5)
    pruned = soften(model, torch.randn(2, 3, 8, 8), 0.25)
    assert pruned.plan.kept_counts() == {"0": 12, "4": 24}
    assert accuracy(pruned.model) == accuracy(model) > 80


def test_networks_without_filters_are_refused():
    with pytest.raises(ValueError, match="no convolution"):
        SoftFilterEffect(nn.Sequential(nn.Linear(2, 2)), {})


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_training_zeroes_exactly_what_the_same_request_cuts(scope):
    """Ratios by stage and by layer, skipped layers: of no convolution is a living filter cut or a zeroed one kept."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    model = randomise(residual_network(), x)
    groups = find_groups(model, x[:1], stages=("layer1", "layer2", "layer3"))
    ratios = {"ratio": (0.25, 0.5, 0.6), "layers": {"layer2.0.conv1": 0.75}, "skip": ("conv1", "layer3.0.conv1")}
    request = Request(groups, Selection(**ratios, scope=scope), SoftFilterOptions(), seed=0)
    training_effect(model, request).at_start()
    gone = {name: len(zeros) for name, zeros in zero_filters_of(model).items() if zeros}
    small = prune(model, Arch("test", {}), groups, "soft_filter", request.selection, batch=x, seed=0)
    cut = {
        name: len(m.weight) - len(small.model.get_parameter(f"{name}.weight"))
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d)
    }
    assert gone == {name: n for name, n in cut.items() if n}
    assert gone["layer2.0.conv1"] == 12
    with torch.no_grad():
        assert torch.allclose(small.model.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_released_masks_and_logits_are_met():
    vector = load_vector("sfp_resnet20")
    options = {"shortcut": "stride"}
    model = build("resnet20", 10, options).eval()
    ours = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    load_state(model, dict(zip(ours, input_state(vector).values(), strict=True)))  # same order, other names
    x = fixed_input(32)
    # also without the filters of the stem and of the second convolutions
    macs = {0.7: 25_164_352, 0.8: 29_713_024, 0.9: 35_588_224}
    for run in vector["runs"]:
        ratio = round(1 - run["rate"], 3)
        dense = zeroed(model, ratio=ratio, zero_norm=False)
        assert list(zero_filters_of(dense).values()) == run["zeroed"]
        assert list(zero_filters_of(zeroed(model, ratio=ratio)).values()) == run["zeroed"]
        small = soften(model, x, ratio, zero_norm=False).model.eval()
        with torch.no_grad():
            for network in (dense, small):
                difference = (network(x) - run["logits_masked"]).abs().max() / run["logits_masked"].abs().max()
                assert float(difference) <= 1e-4
        assert count_macs(soften(model, x, ratio).model, x[:1]) == macs[run["rate"]]


def test_a_ratio_for_a_layer_that_is_no_convolution_is_refused():
    """The hidden linear layer is a group of its own, which the method does not take."""
    model = Plain()
    request = Request(find_groups(model, torch.zeros(1, 3, 8, 8)), Selection(layers={"9": 0.5}), SoftFilterOptions(), 0)
    with pytest.raises(ValueError, match=r"layers: '9' asks 0\.5 of layers that are not narrowed here"):
        get_method("soft_filter").prune(model, request)
