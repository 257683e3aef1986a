"""Who reads whose channels."""

import pytest
import torch
from support.small_networks import residual_network
from torch import nn

from pruning.graph.dataflow import trace_flow


class Flattened(nn.Module):
    """A convolution, BatchNorm and PReLU; the map is flattened with `view` and its own batch size."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.act(self.norm(self.conv(x))))
        return self.fc(x.view(x.size(0), x.shape[1] * 4))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def test_activations_pooling_and_reshapes_are_looked_through():
    flow = trace_flow(Flattened())
    assert flow.readers == {"conv": {"norm"}, "norm": {"fc"}, "fc": {None}}
    assert flow.sources == {"conv": {None}, "norm": {"conv"}, "fc": {"norm"}}
    assert flow.outputs == {"fc"}
    assert [flow.only_reader(name) for name in ("conv", "norm", "fc", "act")] == ["norm", "fc", None, None]


def test_sums_are_something_else():
    flow = trace_flow(residual_network())
    assert flow.readers["bn1"] == {"layer1.0.conv1", None}  # the first block and its shortcut
    assert flow.only_reader("layer1.0.bn1") == "layer1.0.conv2"
    assert flow.readers["layer1.0.bn2"] == {None}
    assert flow.sources["fc"] == {None}


def test_a_layer_with_two_sources_is_no_only_reader():
    conv, norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    flow = trace_flow(nn.Sequential(conv, norm, conv, nn.ReLU()))
    assert flow.sources["0"] == {None, "1"}
    assert flow.only_reader("1") is None


def test_a_forward_pass_that_looks_at_values_is_refused():
    with pytest.raises(ValueError, match=r"layers of Branching cannot be followed by torch\.fx"):
        trace_flow(Branching())
