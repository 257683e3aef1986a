"""Scores against values by hand and against independent formulas: FPGM, LAMP, group norms."""

import copy

import pytest
import torch
from support.small_networks import Plain, dense_network, randomise, residual_network
from torch import nn

from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.methods import fpgm, group_norm, lamp, taylor
from pruning.methods.group_norm import GroupNormEffect, GroupNormOptions, pressure
from pruning.methods.method import Request
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.surgery import mask

NETWORKS = {"plain": (Plain, 8), "residual": (residual_network, 16), "dense": (dense_network, 32)}


def case(network):
    build, side = NETWORKS[network]
    torch.manual_seed(0)
    x = torch.randn(4, 3, side, side)
    model = randomise(build(), x)
    return model, find_groups(model, x[:1]), x


def test_a_filter_near_the_others_scores_lowest():
    """Three points in the plane: a right triangle with sides 3, 4, 5."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]).view(3, 2, 1, 1))
    (group,) = find_groups(model, torch.zeros(1, 2, 4, 4))
    assert fpgm.score(model, group).tolist() == pytest.approx([7, 8, 9])
    pruned = prune(model, Arch("t", {}), [group], "fpgm", Selection(0.3), batch=torch.randn(2, 2, 4, 4), seed=0)
    assert pruned.plan.keep == {"0": (1, 2)}


def test_equal_filters_have_equal_scores():
    """Also where there are so many that the distances would be computed by products."""
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 1, 1))
    with torch.no_grad():
        model[0].weight[32:] = model[0].weight[:32]
    (group,) = find_groups(model, torch.zeros(1, 3, 8, 8))
    scores = fpgm.score(model, group)
    assert torch.equal(scores[:32], scores[32:])


def test_a_weights_score_is_its_share_of_what_is_not_smaller():
    weight = torch.tensor([[1.0, -3.0], [2.0, 0.0]])
    expected = [[1 / (1 + 9 + 4), 1.0], [4 / (4 + 9), 0.0]]
    assert torch.allclose(lamp.score(weight), torch.tensor(expected, dtype=torch.float64))


def test_the_layers_shares_follow_from_their_weights():
    """By the definition, weight by weight, over the whole network; a layer of larger weights keeps no more for it."""
    model, groups, x = case("plain")
    with torch.no_grad():
        model[4].weight.mul_(100)
    weights = {f"{name}.weight": m.weight.detach() for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    by_definition = []
    for name, weight in weights.items():
        flat = weight.double().flatten()
        for i, w in enumerate(flat):
            by_definition.append((float(w**2 / flat[flat.abs() >= w.abs()].square().sum()), name, i))
    kept = sorted(by_definition, reverse=True)[: len(by_definition) - int(0.7 * len(by_definition))]
    pruned = prune(model, Arch("t", {}), groups, "lamp", Selection(0.7), batch=x, seed=0)
    for name, found in pruned.masks.items():
        assert set(found.flatten().nonzero().flatten().tolist()) == {i for _, layer, i in kept if layer == name}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_channels_importance_is_what_its_weights_add_to_the_sum_of_squares(network):
    """By surgery: the squares of all weights less those that remain where the channel is zeroed."""
    model, groups, _ = case(network)

    def squares(net):
        named = net.named_parameters()
        return sum(float(p.detach().double().square().sum()) for name, p in named if not name.endswith("bias"))

    for group in [g for g in groups if not g.fixed]:
        found = []
        for c in range(group.width):
            keep = tuple(i for i in range(group.width) if i != c)
            found.append(
                squares(model)
                - squares(
                    mask(model, PruningPlan("t", {}, keep={group.name: keep}, widths={group.name: group.width}), groups)
                )
            )
        expected = torch.tensor(found, dtype=torch.float64)
        torch.testing.assert_close(group_norm.score(model, group), expected / expected.mean(), rtol=1e-9, atol=1e-12)


def test_small_channels_are_pressed_sixteen_times_as_hard():
    found = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    assert pressure(found, 4.0).tolist() == [16, 1, 4]
    assert pressure(torch.ones(3, dtype=torch.float64), 4.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_effect_adds_the_gradient_of_the_weighted_squares(network):
    """By autograd, with the factors held: half of strength * sum gamma_k I_k over the groups."""
    model, groups, x = case(network)
    chosen = [g for g in groups if g.inner and not g.fixed]
    options = GroupNormOptions(strength=0.1, alpha=3.0)
    effect = group_norm.training_effect(model, Request(groups, Selection(), options, 0))
    model.train()(x).square().mean().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    effect.after_backward()
    added = {name: p.grad - before[name] for name, p in model.named_parameters()}

    wanted = copy.deepcopy(model).double()
    wanted.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for group in chosen:
        parts = []
        for member in group.members:
            weight = wanted.get_submodule(member.layer).weight
            rows = weight.transpose(0, 1) if member.side == "in" else weight
            parts.append(torch.stack([rows[list(places)].square().sum() for places in member.positions]))
        each = torch.stack(parts).sum(0)
        low, high = each.detach().min(), each.detach().max()
        total = total + (2 ** (options.alpha * (high - each.detach()) / (high - low)) * each).sum()
    (options.strength * total / 2).backward()
    for name, parameter in wanted.named_parameters():
        expected = torch.zeros_like(added[name]) if parameter.grad is None else parameter.grad.float()
        torch.testing.assert_close(added[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_sparse_training_makes_the_removed_half_small():
    torch.manual_seed(0)
    model, groups, x = case("residual")
    (group,) = [g for g in groups if g.name == "layer2.0.conv1"]
    effect = GroupNormEffect(model, [group], GroupNormOptions(strength=0.2))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    kept_before = group_norm.score(model, group).sort().values[: group.width // 2].sum()
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
        effect.after_backward()
        optimiser.step()
    assert group_norm.score(model, group).sort().values[: group.width // 2].sum() < 0.1 * kept_before


class Smooth(nn.Module):
    """Two convolutions, the first with a BatchNorm, and a mean; nothing has a kink."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.norm(self.first(x)))).mean((2, 3))


def smooth_case():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    model = randomise(Smooth(), x.float()).double().eval()
    (group,) = find_groups(model.float(), x[:1].float())
    labels = torch.arange(8) % 2

    def calibration(network):
        for part, label in zip(x.chunk(2), labels.chunk(2), strict=True):
            yield nn.functional.cross_entropy(network(part), label)

    return model.double(), group, calibration


def test_a_gates_influence_is_what_the_loss_falls_by_when_its_channel_is_scaled():
    """By finite differences, batch by batch: the channel's gamma and beta times 1 + h and 1 - h."""
    model, group, calibration = smooth_case()
    h, found = 1e-5, []
    for c in range(group.width):
        losses = []
        for scale in (1 + h, 1 - h):
            scaled = copy.deepcopy(model)
            with torch.no_grad():
                scaled.norm.weight[c] *= scale
                scaled.norm.bias[c] *= scale
                losses.append(torch.stack(list(calibration(scaled))))
        found.append(float(((losses[0] - losses[1]) / (2 * h)).square().mean()))
    scores = taylor.influences(model, [group], calibration)[group.name]
    torch.testing.assert_close(scores, torch.tensor(found, dtype=torch.float64), rtol=1e-5, atol=1e-14)


def test_a_small_channels_influence_is_the_loss_of_removing_it():
    """First order is all there is where the channel is small: gamma and beta of a thousandth."""
    model, group, calibration = smooth_case()
    with torch.no_grad():
        model.norm.weight.mul_(1e-3)
        model.norm.bias.mul_(1e-3)
        whole = torch.stack(list(calibration(model)))
        removed = []
        for c in range(group.width):
            without = copy.deepcopy(model)
            without.norm.weight[c] = without.norm.bias[c] = 0
            removed.append(float((torch.stack(list(calibration(without))) - whole).square().mean()))
    scores = taylor.influences(model, [group], calibration)[group.name]
    torch.testing.assert_close(scores, torch.tensor(removed, dtype=torch.float64), rtol=2e-2, atol=0)


def test_the_influence_of_weights_is_each_ones_own():
    model, group, calibration = smooth_case()
    expected = torch.zeros(group.width, dtype=torch.float64)
    for loss in calibration(model):
        (gradient,) = torch.autograd.grad(loss, model.first.weight)
        expected += (gradient * model.first.weight).square().sum((1, 2, 3)).detach() / 2
    torch.testing.assert_close(taylor.influences(model, [group], calibration, of="weights")[group.name], expected)


def test_channels_that_a_shortcut_adds_up_share_a_gate():
    """Both scaled at once, by the normalisations that end the branches."""
    model, groups, x = case("residual")
    model, x = model.double().eval(), x.double()
    (group,) = [g for g in groups if g.name == "layer2.0.conv2" or "layer2.0.conv2" in g.producers]
    norms = [norm for norm, producer in group.norms]
    assert len(group.producers) == len(norms) > 1

    def calibration(network):
        yield nn.functional.cross_entropy(network(x), torch.arange(4))

    h, losses = 1e-5, []
    for scale in (1 + h, 1 - h):
        scaled = copy.deepcopy(model)
        with torch.no_grad():
            for norm in norms:
                scaled.get_submodule(norm).weight[3] *= scale
                scaled.get_submodule(norm).bias[3] *= scale
            losses.append(float(next(calibration(scaled))))
    found = taylor.influences(model, [group], calibration)[group.name][3]
    assert float(found) == pytest.approx(((losses[0] - losses[1]) / (2 * h)) ** 2, rel=1e-5)


def test_what_taylor_cannot_do_is_refused():
    model, group, calibration = smooth_case()
    with pytest.raises(ValueError, match="the calibration ran no batch"):
        taylor.influences(model, [group], lambda network: [])
    with pytest.raises(ValueError, match="loss does not depend on first"):
        taylor.influences(model, [group], lambda network: [network.second.weight.sum().requires_grad_()])
    with pytest.raises(ValueError, match="must yield the loss of each batch"):
        taylor.influences(model, [group], lambda network: next(calibration(network)))
    with pytest.raises(ValueError, match="choices: gates, weights"):
        taylor.TaylorOptions(of="filters")
