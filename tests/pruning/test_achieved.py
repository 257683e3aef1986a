"""Asked against achieved: counted by hand, far below is an error, published rules are as asked."""

import pytest
import torch
from support.small_networks import Plain, randomise, residual_network
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from classify.models import build
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.methods.structure_selection import StructureOptions
from pruning.methods.uniform import UniformOptions
from pruning.select import Selection


class Grouped(nn.Module):
    """A stem of 8, then 32 channels into a grouped convolution and 32 out of it: 8 of 72 can be narrowed."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.wide, self.bn1 = nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32)
        self.middle, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        x = self.bn1(self.wide(self.bn0(self.stem(x)).relu())).relu()
        return self.fc(self.bn2(self.middle(x)).relu().mean((2, 3)))


def cut(model, method, selection, options=None, side=16, **more):
    torch.manual_seed(0)
    x = torch.randn(2, 3, side, side)
    model = randomise(model, x).eval()
    groups = find_groups(model, x[:1])
    return prune(model, Arch("net", {}), groups, method, selection, batch=x, seed=0, options=options, **more)


def test_far_below_what_was_asked_is_an_error_that_says_why():
    words = (
        "l1_filter was asked to remove 36 of the 72 .* removes 4: 64 channels of 2 layers .* grouped .*allow_partial"
    )
    with pytest.raises(ValueError, match=words):
        cut(Grouped(), "l1_filter", Selection(0.5))
    found = cut(Grouped(), "l1_filter", Selection(0.5), allow_partial=True).achieved
    assert (found.asked, found.removed, found.eligible, found.named, found.total) == (36, 4, 8, 72, 72)
    assert [(b.channels, b.layers) for b in found.beyond] == [(64, ("wide", "middle"))]
    named = cut(Grouped(), "l1_filter", Selection(0.5, skip=("wide", "middle"))).achieved
    assert (named.asked, named.removed, named.named, named.total) == (4, 4, 8, 72)


@pytest.mark.parametrize("method", ["slimming", "uniform"])
def test_inputs_that_a_layer_selects_count_as_channels(method):
    """The linear layer behind the grouped convolution reads half of its 32 channels."""
    with pytest.raises(ValueError, match=f"{method} was asked to remove 36 of the 72 .* removes 20: 32 channels"):
        cut(Grouped(), method, Selection(0.5))
    found = cut(Grouped(), method, Selection(0.5), allow_partial=True).achieved
    assert (found.asked, found.removed, found.eligible, found.named, found.total) == (36, 20, 40, 72, 72)


@pytest.mark.parametrize("method", ["l1_filter", "slimming", "uniform", "soft_filter", "structure_selection"])
@pytest.mark.parametrize("arch", [("cifar_resnet", {"depth": 14}), ("cifar_preresnet", {"depth": 11})])
def test_scopes_of_the_literature_are_met_exactly(arch, method):
    found = cut(build(arch[0], 5, arch[1]), method, Selection(0.5)).achieved
    assert found.removed == found.asked and not found.beyond
    assert found.eligible == found.named <= found.total


def test_shares_that_round_to_nothing_are_an_error():
    with pytest.raises(ValueError, match="removes 0: its shares round to none"):
        cut(Plain(), "l1_filter", Selection(0.3, round_to=64), side=8)


def test_where_no_ratio_is_asked_nothing_is_compared():
    found = cut(residual_network(), "uniform", Selection(0.0), UniformOptions({"params": 0.5})).achieved
    assert found.asked is None and found.removed > 0
    none = cut(residual_network(), "structure_selection", Selection(0.0), StructureOptions(zeros_only=True)).achieved
    assert (none.asked, none.removed) == (None, 0)


def test_weights_are_counted_by_their_masks():
    found = cut(residual_network(), "magnitude", Selection(0.25)).achieved
    assert (found.unit, found.removed) == ("weights", found.asked) and found.asked == found.named // 4


def test_a_method_by_norms_is_not_asked_for_layers_that_have_none_by_design():
    """VGG's hidden linear layers, and what gates squeeze: 8 of 8 + 4; a plain convolution without a norm does count."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.squeeze, self.gate = (
                nn.Conv2d(3, 8, 1),
                nn.BatchNorm2d(8),
                nn.Conv2d(8, 4, 1),
                nn.Conv2d(4, 8, 1),
            )
            self.plain, self.hidden, self.fc = nn.Conv2d(8, 20, 1), nn.Linear(20, 30), nn.Linear(30, 5)

        def forward(self, x):
            x = self.norm(self.a(x)).relu()
            x = x * self.gate(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
            return self.fc(self.hidden(self.plain(x).relu().mean((2, 3))).relu())

    with pytest.raises(ValueError, match=r"asked to remove 14 of the 28 .* 20 channels of 1 layers [(]plain"):
        cut(Net(), "slimming", Selection(0.5))
    found = cut(Net(), "slimming", Selection(0.5, skip=("plain",))).achieved
    assert (found.asked, found.removed, found.named, found.total) == (4, 4, 8, 62)


@pytest.mark.parametrize(
    ("layer", "asked"), [(nn.ConvTranspose2d(8, 6, 2, 2), 11), (weight_norm(nn.Conv2d(8, 8, 3, padding=1)), 12)]
)
def test_a_layer_out_of_reach_counts_by_its_outputs(layer, asked):
    """Half of 8 + 6 + 8 channels, or of 3 x 8; only the last layer's 8 can go."""
    width = layer.out_channels
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        layer,
        nn.Conv2d(width, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    found = cut(model, "l1_filter", Selection(0.5), allow_partial=True).achieved
    assert (found.asked, found.removed, found.named) == (asked, 4, 16 + width)


def test_weights_that_a_method_passes_over_are_among_all():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = prune(model, Arch("net", {}), [], "magnitude", Selection(0.5), batch=torch.randn(2, 3, 8, 8)).achieved
    assert (found.named, found.total) == (24, 24 + 8 * 6 * 4)


class Added(nn.Module):
    """A trunk of 8 channels that two layers compute, and 4 behind it."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.end = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.end((x + self.branch(x.relu())).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize(("ratio", "layers", "count"), [(0.0, {"stem": 0.5}, 8), (0.5, {"stem": 0.0}, 2)])
def test_all_layers_of_a_group_are_asked_by_its_ratio(ratio, layers, count):
    found = cut(Added(), "l1_filter", Selection(ratio, scope="all", layers=layers)).achieved
    assert (found.asked, found.removed) == (count, count)


def test_a_skipped_layer_keeps_all_that_is_added_to_its_channels():
    pruned = cut(Added(), "l1_filter", Selection(0.5, scope="all", skip=("branch",)))
    assert pruned.model.branch.out_channels == pruned.model.stem.out_channels == 8
    assert (pruned.achieved.asked, pruned.achieved.removed, pruned.achieved.named) == (2, 2, 4)
