"""Squeeze-excitation gates follow the channels that they scale; the last BatchNorm before a reader ranks them."""

import pytest
import torch
import torch.nn.functional as F
from support.small_networks import randomise
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.googlenet import Inception
from torchvision.ops import SqueezeExcitation

from classify.models import build
from pruning.cut import Arch, prune
from pruning.graph.dataflow import trace_flow
from pruning.graph.groups import find_groups
from pruning.graph.norm_channels import norm_channels
from pruning.methods import l1_filter
from pruning.methods.slimming import SlimmingOptions
from pruning.methods.structure_selection import StructureEffect, StructureOptions
from pruning.select import Selection


class Inverted(nn.Module):
    """An inverted residual with a gate; input (N, 4, 6, 6)."""

    def __init__(self, width=8, gate=True, residual=True):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(4, width, 1, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.gate = SqueezeExcitation(width, 2) if gate else nn.Identity()
        self.project, self.norm3 = nn.Conv2d(width, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.residual = residual

    def forward(self, x):
        y = F.relu6(self.norm1(self.expand(x)))
        y = self.gate(F.relu6(self.norm2(self.depthwise(y))))
        return x + self.norm3(self.project(y)) if self.residual else self.norm3(self.project(y))


def network(**options):
    stem, head = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)], [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(*stem, Inverted(**options), *head)


def groups_of(model):
    return {g.name: g for g in find_groups(model, torch.zeros(1, 3, 6, 6))}


def test_the_gate_of_an_expansion_is_no_producer():
    group = groups_of(network())["2.expand"]
    assert group.producers == ("2.expand",) and group.inner and group.fixed is None
    out = {m.layer for m in group.members if m.side == "out"}
    assert out == {"2.expand", "2.norm1", "2.depthwise", "2.norm2", "2.gate.fc2"}
    assert sorted(m.layer for m in group.members if m.side == "in") == ["2.gate.fc1", "2.project"]


def test_a_gate_does_not_weigh_in_the_score():
    model = network()
    with torch.no_grad():
        model[2].expand.weight.copy_(torch.arange(8.0).view(8, 1, 1, 1).expand(8, 4, 1, 1))
        model[2].gate.fc2.weight.fill_(0).view(8, 2)[0] = 1000
    assert l1_filter.score(model, groups_of(model)["2.expand"]).tolist() == [4.0 * c for c in range(8)]


@pytest.mark.parametrize(
    ("forward", "producers"),
    [
        (lambda m, x: m.a(x) * m.b(x).sigmoid(), ("a",)),
        (lambda m, x: m.b(x).sigmoid() * m.a(x), ("a",)),
        (lambda m, x: m.a(x) * (1 + m.b(x).mean((2, 3), keepdim=True).tanh()), ("a", "b")),
        (lambda m, x: m.a(x) + m.b(x).sigmoid(), ("a", "b")),
        (lambda m, x: m.a(x) * m.b(x), ("a", "b")),
        (lambda m, x: m.a(x) * m.b(x).sigmoid() + m.b(x), ("a", "b")),
        (lambda m, x: (y := m.a(x)) * m.c(y), ("a",)),
        (lambda m, x: (y := m.a(x)) + y * m.c(y).sigmoid(), ("a",)),
        (lambda m, x: (y := m.a(x)) + m.c(y).sigmoid(), ("a", "c")),
    ],
)
def test_only_factors_are_gates(forward, producers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(forward(self, x))

    assert groups_of(Net())["a"].producers == producers


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_gated_expansions_are_prunable_by_default(name):
    torch.manual_seed(0)
    model, x = build(name, 5).double(), torch.randn(2, 3, 32, 32).double()
    randomise(model, x)
    groups = find_groups(model, x[:1])
    assert sum(g.width for g in groups if g.inner and not g.fixed) > 0.9 * sum(g.width for g in groups)
    for method in ("l1_filter", "slimming"):
        pruned = prune(model, Arch(name, {}), groups, method, Selection(ratio=0.5), batch=x, seed=0)
        assert pruned.difference < 1e-9
        assert sum(pruned.plan.widths.values()) > 0.6 * sum(g.width for g in groups)


def test_the_flow_looks_through_a_gate():
    flow = trace_flow(network())
    assert flow.readers["2.norm2"] == {"2.gate.fc1", "2.project"}
    assert flow.sources["2.project"] == {"2.norm2"}
    assert flow.readers["2.norm1"] == {"2.depthwise"}


@pytest.mark.parametrize("gate", [True, False])
def test_the_scale_behind_the_depthwise_convolution_decides(gate):
    """By hand: the first scales say keep 4 to 7, the last ones 0 to 3."""
    model, x = network(gate=gate), torch.randn(2, 3, 6, 6)
    model[2].norm1.weight.data = torch.tensor([0.1, 0.2, 0.3, 0.4, 5, 6, 7, 8])
    model[2].norm2.weight.data = torch.tensor([8, 7, 6, 5.0, 0.4, 0.3, 0.2, 0.1])
    groups = find_groups(model, x[:1])
    (found,) = [item for item in norm_channels(model, groups) if item.unit.name == "2.expand"]
    assert found.norms == ("2.norm2",)
    plan = prune(model, Arch("t", {}), groups, "slimming", Selection(0.5, skip=("0",)), batch=x, seed=0).plan
    assert plan.keep == {"2.expand": (0, 1, 2, 3)}


def test_the_last_scale_tells_the_damage():
    """Rank correlation of scale and true damage to what the block computes, channel by channel."""
    torch.manual_seed(0)
    block, x = Inverted(width=32, gate=False, residual=False), torch.randn(16, 4, 6, 6)
    with torch.no_grad():
        block.project.weight.copy_(block.project.weight.sign())  # all channels are read alike
        for norm in (block.norm1, block.norm2):
            norm.weight.uniform_(0.05, 1)
            norm.momentum = 1.0
        block.train()(x)
        expected, damage = block.eval()(x), []
        for channel in range(32):
            scale = block.norm2.weight[channel].item()
            block.norm2.weight[channel] = 0
            damage.append(float((block(x) - expected).square().mean()))
            block.norm2.weight[channel] = scale

    def correlation(scale):
        ranks = [torch.as_tensor(values).argsort().argsort().double() for values in (scale.detach(), damage)]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    model = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = norm_channels(model, find_groups(model, x[:1]))[0]
    assert found.norms == ("0.norm2",)
    assert correlation(found.scales(model)) > 0.9
    assert abs(correlation(block.norm1.weight)) < 0.4


def test_a_batch_norm_before_a_concatenation_slims():
    torch.manual_seed(0)
    inception = Inception(3, 4, 4, 6, 2, 4, 4)
    model = nn.Sequential(inception, nn.Conv2d(18, 2, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    randomise(model, x)
    groups = find_groups(model, x[:1])
    assert {item.unit.name for item in norm_channels(model, groups)} == {g.name for g in groups}
    pruned = prune(model, Arch("t", {}), groups, "slimming", Selection(0.5), batch=x, seed=0)
    assert sum(map(len, pruned.plan.keep.values())) == 12  # of 24, two of them before 3x3 convolutions


def test_every_batch_norm_of_googlenet_slims():
    model = build("googlenet", 5)
    groups = find_groups(model, torch.zeros(1, 3, 64, 64))
    assert sum(item.unit.width for item in norm_channels(model, groups)) == sum(g.width for g in groups)


def test_scopes_and_scales_of_mobilenet_agree():
    model = mobilenet_v2(num_classes=5)
    groups = find_groups(model, torch.zeros(1, 3, 32, 32))
    found = {item.unit.name: item.norms for item in norm_channels(model, groups)}
    assert found["features.2.conv.0.0"] == ("features.2.conv.1.1",)
    assert found["features.0.0"] == ("features.1.conv.0.1",)


def test_structure_selection_scales_what_it_ranks():
    model = network()
    effect = StructureEffect(model, StructureOptions(structures="channels"))
    effect.at_start()
    assert {"2.norm1", "2.norm2"} <= set(effect.scales())


def test_shortcuts_around_unknown_blocks_are_not_quietly_channels():
    model, x = network(), torch.randn(2, 3, 6, 6)
    with pytest.raises(ValueError, match=r"Sequential has shortcuts, but no residual block.*say structures 'channels'"):
        StructureEffect(model, StructureOptions())
    with pytest.raises(ValueError, match="say structures 'channels'"):
        prune(model, Arch("t", {}), find_groups(model, x[:1]), "structure_selection", Selection(0.5), batch=x, seed=0)
    assert StructureEffect(network(residual=False), StructureOptions()).per_channel
    assert SlimmingOptions().level == "global"
