"""Params, multiply-adds and latency against closed forms."""

import time

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from pruning.cost import count_activations, count_macs, count_params, masked_costs, measure_latency
from pruning.masks import Masks


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real


@pytest.mark.parametrize(
    ("layer", "shape", "params", "macs"),
    [
        # out * in * k * k * H * W
        (nn.Conv2d(3, 8, 3, padding=1, bias=False), (1, 3, 10, 10), 8 * 3 * 9, 8 * 3 * 9 * 100),
        # unpadded: 8 x 6 outputs; the bias has parameters and no multiply-adds
        (nn.Conv2d(3, 8, 3), (1, 3, 10, 8), 8 * 3 * 9 + 8, 8 * 3 * 9 * 48),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 9, 9), 8 * 3 * 9 + 8, 8 * 3 * 9 * 25),
        (nn.Conv2d(3, 4, 3, dilation=2), (1, 3, 9, 9), 4 * 3 * 9 + 4, 4 * 3 * 9 * 25),
        # depthwise: one input channel an output
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), (1, 8, 10, 10), 8 * 9, 8 * 9 * 100),
        (nn.Conv2d(8, 12, 3, padding=1, groups=4, bias=False), (1, 8, 10, 10), 12 * 2 * 9, 12 * 2 * 9 * 100),
        (nn.Conv2d(8, 4, (1, 3)), (1, 8, 5, 7), 4 * 8 * 3 + 4, 4 * 8 * 3 * 5 * 5),
        (nn.Linear(20, 7), (1, 20), 147, 140),
        (nn.Linear(20, 7, bias=False), (1, 20), 140, 140),
        (nn.BatchNorm2d(8), (1, 8, 4, 4), 16, 0),
        (nn.GroupNorm(2, 8), (1, 8, 4, 4), 16, 0),
        (nn.AdaptiveAvgPool2d(1), (1, 8, 4, 4), 0, 0),
        (nn.ReLU(), (1, 8, 4, 4), 0, 0),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_layer_costs_its_closed_form(layer, shape, params, macs):
    assert count_params(layer) == params
    assert count_macs(layer, torch.zeros(shape)) == macs


def test_network_is_the_sum_of_its_layers_and_grows_with_the_batch():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    model = nn.Sequential(*layers)
    macs = 4 * 3 * 9 * 36 + 4 * 2
    assert count_macs(model, torch.zeros(1, 3, 8, 8)) == macs
    assert count_macs(model, torch.zeros(5, 3, 8, 8)) == 5 * macs


def test_layer_used_twice_counts_twice_and_has_its_parameters_once():
    layer = nn.Conv2d(4, 4, 1, bias=False)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert count_params(model) == 16
    assert count_macs(model, torch.zeros(1, 4, 3, 3)) == 2 * 16 * 9


class Twice(nn.Module):
    """A convolution on two maps, a linear layer on five tokens."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 3)

    def forward(self, x):
        x = self.conv(self.conv(x))[..., :5, 0]  # (N, 2, 5, 1) -> tokens (N, 5, 2)
        return self.fc(x.transpose(1, 2))


def test_removed_weight_saves_each_of_its_products():
    model = Twice()
    dense = 2 * 4 * 30 + 6 * 5
    assert count_macs(model, torch.zeros(1, 2, 6, 5)) == dense
    conv = torch.tensor([[True, False], [True, True]])[..., None, None]
    fc = torch.tensor([[True, False], [False, True], [True, True]])
    masks = Masks({"conv.weight": conv, "fc.weight": fc})
    assert masked_costs(model, masks, torch.zeros(1, 2, 6, 5)) == (4 + 9 - 3, dense - 1 * 2 * 30 - 2 * 5)


def test_unknown_operator_is_refused_by_name():
    with pytest.raises(ValueError, match=r"cannot count the multiply-adds of aten::fft_fft2.* in Sequential"):
        count_macs(nn.Sequential(nn.Conv2d(3, 3, 1), Fourier()), torch.zeros(1, 3, 4, 4))


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[2].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, torch.rand(2, 3, 4, 4))
    assert [m.training for m in model] == [True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_modes_are_restored_after_a_refusal():
    model = nn.Sequential(Fourier(), nn.Dropout()).train()
    with pytest.raises(ValueError, match="cannot count"):
        count_macs(model, torch.zeros(1, 3, 4, 4))
    assert model.training and model[1].training


def test_activations_are_the_outputs_of_products():
    """Grouped, strided and padded convolutions by the sizes of their outputs; norms and pooling are free."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8 x 8 x 8
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 4, 3, groups=4, padding="same"),  # 4 x 8 x 8
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    assert count_activations(model, torch.zeros(1, 3, 16, 16)) == 8 * 64 + 4 * 64 + 5
    assert count_activations(model, torch.zeros(2, 3, 16, 16)) == 2 * (8 * 64 + 4 * 64 + 5)
    with pytest.raises(ValueError, match="cannot count"):
        count_activations(nn.Sequential(Fourier()), torch.zeros(1, 3, 4, 4))


def test_activations_of_resnet50_are_the_published_ones():
    """11.1 M elements for an image of 224 x 224 (Radosavovic et al., CVPR 2020)."""
    assert count_activations(resnet50(), torch.zeros(1, 3, 224, 224)) / 1e6 == pytest.approx(11.1, abs=0.05)


def test_latency_is_a_positive_median_for_each_set_of_each_network():
    image = torch.zeros(1, 3, 64, 64)
    models = {"small": nn.Conv2d(3, 4, 3), "large": nn.Sequential(*(nn.Conv2d(64, 64, 3) for _ in range(4)))}
    with pytest.raises(RuntimeError, match="expected input"):
        measure_latency({name: (model, image) for name, model in models.items()}, rounds=1, warmup=0)
    models["large"].insert(0, nn.Conv2d(3, 64, 3))
    models["large"].train()
    shown = {"small": (models["small"], torch.zeros(1, 3, 32, 32)), "large": (models["large"], image)}
    times = measure_latency(shown, rounds=5, sets=2, warmup=1)
    assert list(times) == ["small", "large"]
    for small, large in zip(*times.values(), strict=True):
        assert 0 < small.median < large.median
    assert all(t.first_quartile <= t.median <= t.third_quartile and t.rounds == 5 for s in times.values() for t in s)
    assert models["large"].training


def test_networks_are_timed_in_turn_and_their_times_dealt_out_to_the_sets(monkeypatch):
    clock, called = iter(range(100)), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) ** 2)

    class Noted(nn.Module):
        def forward(self, x):
            called.append((self, float(x)))

    first, second = Noted(), Noted()
    shown = {"a": (first, torch.tensor(1.0)), "b": (second, torch.tensor(2.0))}
    times = measure_latency(shown, rounds=2, sets=2, warmup=1)
    assert called == [(first, 1.0), (second, 2.0)] * 5
    # the clock is looked at twice a pass, after once for each warm-up: (n + 1)^2 - n^2 at n = 2, 4, 6, ... in seconds
    assert [t.median for t in times["a"]] == [1000 * (5 + 21) / 2, 1000 * (13 + 29) / 2]
    assert [t.median for t in times["b"]] == [1000 * (9 + 25) / 2, 1000 * (17 + 33) / 2]
