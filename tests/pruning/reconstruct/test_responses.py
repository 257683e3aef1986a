"""Sampled patches and answers, against the layers themselves."""

import pytest
import torch
from torch import nn

from pruning.graph.layers import select_inputs
from pruning.reconstruct.kernels import Consumer, kernel_slices, rewritten, write_slices, zeros_held
from pruning.reconstruct.responses import Places, draw_places, patches, response
from pruning.seeds import random_stream


def all_places(output):
    return draw_places(output, 10**6, random_stream(0, "x"))


def test_a_patch_by_hand():
    """3x3 kernel, padding 1: the output at (0, 1) of image 0 sees rows -1..1 and columns 0..2."""
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    layer = nn.Conv2d(1, 1, 3, padding=1)
    read = patches(layer, x, Places(*torch.tensor([[0], [0], [1]])), torch.tensor([[0]]))
    assert read.tolist() == [[[0, 0, 0, 0, 1, 2, 3, 4, 5]]]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 5, 3, padding=1),
        nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(2, 3)),
        nn.Conv2d(4, 5, 3, padding="same", padding_mode="circular"),
        nn.Conv2d(4, 5, 1, stride=2),
    ],
)
def test_a_convolution_at_every_position(layer):
    x = torch.randn(2, 4, 7, 6)
    output = layer(x)
    places = all_places(output)
    assert len(places.image) == output.numel() // 5
    wanted = output.permute(0, 2, 3, 1)[places.image, places.row, places.column]
    torch.testing.assert_close(response(layer, x, places) + layer.bias, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 8)])
def test_a_linear_layer_at_every_position(shape):
    layer, x = nn.Linear(8, 5), torch.randn(*shape)
    places = all_places(layer(x))
    found = response(layer, x, places) + layer.bias
    torch.testing.assert_close(found.sum(0), layer(x).reshape(-1, 5).sum(0), rtol=1e-4, atol=1e-5)
    assert len(found) == 6


def test_a_layer_that_selects_its_inputs():
    layer = nn.Conv2d(3, 2, 3)
    x = torch.randn(1, 5, 4, 4)
    select_inputs(layer, [0, 2, 4])
    places = all_places(layer(x))
    found = response(layer, x, places) + layer.bias
    torch.testing.assert_close(found, layer(x).permute(0, 2, 3, 1)[places.image, places.row, places.column])


def test_slices_are_what_patches_are_multiplied_with():
    """Channels 3 and 1 of four; and a linear layer that reads two positions a channel, in reading order or not."""
    model = nn.ModuleDict({"conv": nn.Conv2d(4, 5, 3, bias=False), "fc": nn.Linear(6, 2, bias=False)})
    for name, x, positions in (
        ("conv", torch.randn(2, 4, 5, 5), [[3], [1]]),
        ("fc", torch.randn(2, 6), [[0, 1], [2, 3], [4, 5]]),
        ("fc", torch.randn(2, 6), [[5, 1], [2, 0]]),
    ):
        layer, consumer = model[name], Consumer(name, torch.tensor(positions))
        unread = sorted(set(range(x.shape[1])) - set(consumer.positions.flatten().tolist()))
        x[:, unread] = 0  # only the channels of interest answer
        places = all_places(layer(x))
        slices = kernel_slices(model, consumer)
        found = torch.einsum("sck,ock->so", patches(layer, x, places, consumer.positions), slices)
        torch.testing.assert_close(found, response(layer, x, places), rtol=1e-4, atol=1e-5)
        before = layer.weight.detach().clone()
        write_slices(model, consumer, 2 * slices)
        index = consumer.positions.flatten()
        torch.testing.assert_close(layer.weight[:, index], 2 * before[:, index])
        torch.testing.assert_close(layer.weight[:, unread], before[:, unread])


def test_positions_differ_and_follow_the_seed():
    output = torch.zeros(3, 2, 4, 5)
    drawn = [draw_places(output, 7, random_stream(seed, "a")) for seed in (0, 0, 1)]
    cells = set(zip(*(t.tolist() for t in (drawn[0].image, drawn[0].row, drawn[0].column)), strict=True))
    assert len(cells) == 21  # seven different ones in each of three images
    assert torch.equal(drawn[0].row, drawn[1].row) and not torch.equal(drawn[0].row, drawn[2].row)


def test_streams_differ_by_seed_and_by_name():
    """torch's CPU generator reads 32 bits of its seed: seed and name side by side in 64 would lose one of them."""
    numbers = {float(torch.rand(1, generator=random_stream(seed, name))) for seed in (0, 1) for name in ("a", "b")}
    assert len(numbers) == 4


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))


def test_training_does_not_revive_held_zeros():
    torch.manual_seed(0)
    model = small_network()
    with torch.no_grad():
        model[3].weight[:, [1, 2]] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    with zeros_held(model, {"3": torch.tensor([1, 2])}):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
    assert not model[3].weight[:, [1, 2]].any() and model[3].weight[:, [0, 3]].abs().min() > 0
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    assert model[3].weight.grad[:, [1, 2]].any()  # released afterwards


def test_rewritten_lists_what_changed():
    before, after = nn.Linear(2, 2), nn.Linear(2, 2)
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        after.bias += 1
    assert set(rewritten(before, after)) == {"bias"}
