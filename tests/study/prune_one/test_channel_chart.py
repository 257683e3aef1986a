"""The picture of kept channels."""

import io

import torch
from PIL import Image
from torch import nn

from pruning.plan import PruningPlan
from study.prune_one.chart import Panel, draw_channels, panels


class Net(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.a = nn.Conv2d(3, first, 1)
        self.b = nn.Conv2d(first, second, 1)
        self.fc = nn.Linear(second, 10)


def test_convolutions_show_their_channels():
    (panel,) = panels(Net(8, 6), Net(5, 6), PruningPlan("net"), {})
    assert panel == Panel("output channels", {"a": 8, "b": 6}, {"a": 5, "b": 6})


def test_layer_that_is_gone_keeps_nothing():
    small = Net(8, 6)
    small.b = nn.Identity()
    (panel,) = panels(Net(8, 6), small, PruningPlan("net"), {})
    assert panel.kept == {"a": 8, "b": 0}


def test_selected_inputs_have_a_panel_of_their_own():
    _, inputs = panels(Net(8, 6), Net(8, 6), PruningPlan("net", select={"b": (0, 2, 5)}), {})
    assert (inputs.dense, inputs.kept) == ({"b": 8}, {"b": 3})


def test_masks_show_shares_of_weights():
    mask = torch.tensor([True, False, True, True]).view(2, 2, 1, 1)
    (panel,) = panels(Net(8, 6), Net(8, 6), PruningPlan("net"), {"a.weight": mask})
    assert (panel.quantity, panel.dense, panel.kept) == ("kept weights (%)", {"a": 100.0}, {"a": 75.0})


def test_picture_grows_with_layers_and_panels():
    def size(n_layers, n_panels):
        bars = {f"layer{i}": 4.0 for i in range(n_layers)}
        image = Image.open(io.BytesIO(draw_channels("net", [Panel("channels", bars, bars)] * n_panels)))
        assert image.format == "PNG"
        return image.size

    assert size(60, 1)[0] > size(10, 1)[0]
    assert size(10, 2) == (size(10, 1)[0], 2 * size(10, 1)[1])
    assert size(400, 1) == size(300, 1)  # as wide as a picture gets
