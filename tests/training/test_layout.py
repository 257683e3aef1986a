"""In channels-last the same is computed, and afterwards nothing is left of it."""

import copy
from pathlib import Path

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.optim import Adam

from classify.optimizers import fused_sgd
from training import layout, products
from training.layout import channels_last
from training.state import TrainingState

# few positions and many weights; one with each of what a convolution may have
LAYERS = {
    "3 x 3": lambda: nn.Conv2d(96, 160, 3, padding=1),
    "stride, no bias": lambda: nn.Conv2d(96, 160, 3, stride=2, padding=1, bias=False),
    "not square": lambda: nn.Conv2d(96, 160, (1, 3), stride=(1, 2), padding=(0, 1)),
    "no padding": lambda: nn.Conv2d(96, 160, (5, 4), stride=(2, 3)),
    "1 x 1": lambda: nn.Conv2d(96, 160, 1),
    "1 x 1, stride": lambda: nn.Conv2d(96, 160, 1, stride=2),
    "1 x 1, padded": lambda: nn.Conv2d(96, 160, 1, padding=1),
    "of Detectron2": lambda: Conv2d(96, 160, 3, padding=1),
}
OTHERS = {
    "dilated": lambda: nn.Conv2d(96, 160, 3, dilation=2),
    "grouped": lambda: nn.Conv2d(96, 160, 3, groups=2),
    "reflecting": lambda: nn.Conv2d(96, 160, 3, padding=1, padding_mode="reflect"),
    "padded by a word": lambda: nn.Conv2d(96, 160, 3, padding="same"),
    "with a norm of its own": lambda: Conv2d(96, 160, 3, norm=nn.BatchNorm2d(160)),
    "with an activation of its own": lambda: Conv2d(96, 160, 3, activation=nn.functional.relu),
}


@pytest.fixture
def by_products(monkeypatch):
    """As on a processor with AVX512; returns the shapes that were given to `linear`."""
    given = []

    def linear(x, *rest):
        given.append(tuple(x.shape))
        return products.linear(x, *rest)

    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    monkeypatch.setattr(layout, "_WEIGHTS_A_POSITION", 1)
    monkeypatch.setattr(layout, "_LEAST_MACS", 0)
    monkeypatch.setattr(layout, "linear", linear)
    return given


def computed(layer, x):
    """The output, and the gradients of the input and the weights."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y, x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_convolution_of_patches_has_pytorchs_values_and_gradients(by_products, kind):
    torch.manual_seed(0)
    theirs, x = LAYERS[kind](), torch.randn(2, 96, 7, 6)
    ours = copy.deepcopy(theirs)
    with channels_last(ours, dtype=None):
        found = computed(ours, x)
        assert ours.weight.grad.stride() == ours.weight.stride()
    expected = computed(theirs, x)
    positions = expected[0].numel() // 160
    assert by_products == [(positions, theirs.weight[0].numel())]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    assert expected[1].abs().sum() > 1


@pytest.mark.parametrize("kind", OTHERS)
def test_other_convolutions_stay_as_they_are(by_products, kind):
    torch.manual_seed(0)
    theirs, x = OTHERS[kind](), torch.randn(2, 96, 7, 6)
    ours = copy.deepcopy(theirs)
    with channels_last(ours, dtype=None):
        found = computed(ours, x)
    assert not by_products
    for a, b in zip(found, computed(theirs, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("threads", "kernel", "rows"), [(1, 1, [450]), (2, 1, []), (1, 3, [])])
def test_many_positions_are_left_to_pytorch_but_for_one_by_one_with_one_thread(
    by_products, monkeypatch, threads, kernel, rows
):
    monkeypatch.setattr(layout, "_WEIGHTS_A_POSITION", 4_500)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer = nn.Conv2d(8, 4, kernel, padding=kernel // 2)
    with channels_last(layer, dtype=None):
        layer(torch.randn(2, 8, 15, 15))
    assert [n for n, _ in by_products] == rows


def test_nothing_is_changed_where_weights_are_cast(by_products):
    layer = LAYERS["3 x 3"]()
    with channels_last(layer, dtype=torch.bfloat16), torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.randn(2, 96, 7, 6))
        assert "forward" not in vars(layer)
    assert not by_products


def test_the_network_is_as_before_afterwards():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), channels_last(model, dtype=None):
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
        raise RuntimeError("stop")
    assert all("forward" not in vars(layer) for layer in model)
    assert all(value.equal(before[name]) and value.is_contiguous() for name, value in model.state_dict().items())


class Memory(list):
    """In the place of the checkpoint's writer and its clock: what is saved stays here."""

    path = Path("checkpoint.pt")
    save = list.append

    def restart(self):
        pass


def training(kind, memory_format, saved):
    torch.manual_seed(0)
    model = nn.Conv2d(6, 8, 3).to(memory_format=memory_format)
    groups = list(model.parameters())
    optimizer = fused_sgd(groups, 0.1, 0.9) if kind == "sgd" else Adam(groups, 0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(model, optimizer, scaler, [], saved, {}, {}, "float32", saved)


def step(state, seed):
    torch.manual_seed(seed)
    for p in state.model.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape))
    state.optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_training_goes_on_in_another_layout_than_it_was_saved_in(kind):
    """Its momenta lie as the weights did then."""
    saved = Memory()
    before, after = (training(kind, layout, saved) for layout in (torch.contiguous_format, torch.channels_last))
    step(before, 1)
    before.save(1)
    assert after.restore(copy.deepcopy(saved[0])) == 1
    for state in (before, after):
        step(state, 2)
    assert after.model.weight.equal(before.model.weight) and after.model.bias.equal(before.model.bias)


def test_a_copy_within_the_block_computes_with_its_own_weights(by_products):
    """As a teacher or an average of the weights is made."""
    layer, x = LAYERS["3 x 3"](), torch.randn(2, 96, 7, 6)
    with channels_last(layer, dtype=None):
        other = copy.deepcopy(layer)
        with torch.no_grad():
            other.weight.zero_()
            assert other(x).equal(other.bias.view(1, -1, 1, 1).expand(2, -1, 7, 6)) and layer(x).abs().sum() > 1
