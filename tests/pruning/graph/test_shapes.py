"""Networks without values: shapes stay, memory is not taken, zeros can be written to."""

import torch
from torch import nn

from pruning.graph.shapes import fill_with_zeros, parameters_without_values, without_values


def shared():
    model = nn.Sequential(nn.Conv2d(3, 300, 3), nn.BatchNorm2d(300), nn.Conv2d(300, 300, 3), nn.Conv2d(300, 300, 3))
    model[3].weight = model[2].weight
    model[0].bias.requires_grad_(False)
    return model


def described(model):
    state = model.state_dict()
    return {name: (tuple(t.shape), t.dtype) for name, t in state.items()}, [p.requires_grad for p in model.parameters()]


def test_zeros_come_where_there_are_no_values_and_what_is_shared_stays_shared():
    model = shared()
    blank = without_values(model)
    assert all(p.is_meta for p in blank.parameters()) and not any(p.is_meta for p in model.parameters())
    blank[0].bias = kept = nn.Parameter(torch.ones(300), requires_grad=False)
    fill_with_zeros(blank)
    assert described(blank) == described(model)
    assert blank[3].weight is blank[2].weight
    assert blank[0].bias is kept
    assert not any(bool(t.any()) for name, t in blank.state_dict().items() if name != "0.bias")
    with torch.no_grad():
        blank[2].weight.fill_(1.0)
        blank[2].weight[0, 0] = 2.0
    assert float(blank[3].weight.sum()) == 300 * 300 * 9 + 9
    assert blank.eval()(torch.zeros(1, 3, 9, 9)).shape == (1, 300, 3, 3)


def test_only_parameters_made_meanwhile_have_no_values_and_nothing_is_drawn():
    before = torch.get_rng_state()
    with parameters_without_values():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.is_meta for p in model.parameters())
    assert model[1].running_var.tolist() == [1.0] * 4
    assert not nn.Linear(2, 2).weight.is_meta
