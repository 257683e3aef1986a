"""Layers that read or write some channels of a trunk, by hand."""

import copy

import torch
from torch import nn, tensor

from pruning.cost import count_macs, count_params
from pruning.graph.layers import ScatterBatchNorm2d, SelectConv2d, SelectLinear, scatter_outputs, select_inputs


def conv_of(weights):
    """A 1x1 convolution with these (out, in) weights."""
    layer = nn.Conv2d(len(weights[0]), len(weights), 1, bias=False)
    layer.weight.data = tensor(weights)[:, :, None, None]
    return layer


def test_convolution_reads_the_selected_channels():
    layer = conv_of([[1.0, 10.0]])
    select_inputs(layer, [0, 2])
    assert type(layer) is SelectConv2d
    x = tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    assert layer(x).item() == 31.0  # 1 * 1 + 3 * 10
    assert list(layer.state_dict()) == ["weight", "inputs"]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_selecting_again_counts_the_channels_read_now():
    layer = conv_of([[1.0]])
    select_inputs(layer, [0, 2])
    select_inputs(layer, [1])
    assert layer.inputs.tolist() == [2]


def test_linear_layer_reads_the_selected_features():
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data = tensor([[2.0]])
    select_inputs(layer, [1])
    assert type(layer) is SelectLinear
    assert layer(tensor([[5.0, 7.0]])).item() == 14.0


def test_batchnorm_writes_into_the_trunk():
    layer = nn.BatchNorm2d(2, eps=1e-30).eval()
    layer.bias.data = tensor([10.0, 20.0])
    scatter_outputs(layer, [1, 3], 4)
    assert type(layer) is ScatterBatchNorm2d
    out = layer(tensor([1.0, 2.0]).reshape(1, 2, 1, 1))
    assert out.flatten().tolist() == [0.0, 11.0, 0.0, 22.0]


def test_any_other_norm_class_can_scatter_and_be_copied():
    layer = nn.SyncBatchNorm(1, eps=1e-30).eval()
    scatter_outputs(layer, [2], 3)
    twin = copy.deepcopy(layer)
    assert isinstance(twin, nn.SyncBatchNorm)
    assert twin(torch.ones(1, 1, 1, 1)).flatten().tolist() == [0.0, 0.0, 1.0]


def test_indices_are_no_parameters_and_cost_no_macs():
    net = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3))
    select_inputs(net[0], [0, 4])
    scatter_outputs(net[1], [0, 1, 5], 6)
    assert count_params(net) == 2 * 3 + 3 + 3
    assert count_macs(net, torch.zeros(1, 5, 4, 4)) == 4 * 4 * 2 * 3


def test_gradients_reach_only_what_is_read():
    layer = conv_of([[3.0]])
    select_inputs(layer, [1])
    x = torch.ones(1, 2, 1, 1, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 3.0]
