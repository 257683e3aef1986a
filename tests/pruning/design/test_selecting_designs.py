"""Patterns and designs of networks whose trunk keeps its width: layers behind it select their inputs."""

from itertools import product

import pytest
import torch
from support.small_networks import Plain, randomise
from torch import nn

from classify.models import build
from pruning.cost import count_macs, count_params
from pruning.cut import Arch, prune
from pruning.design.pattern import Pattern
from pruning.design.widths_and_masks import Dense, free_places, pattern_of, selected_counts, share_out
from pruning.graph.groups import find_groups
from pruning.methods.guided import GuidedOptions
from pruning.methods.uniform import UniformOptions
from pruning.plan import PruningPlan
from pruning.select import Selection

IMAGE = torch.zeros(1, 3, 16, 16)
# cifar_densenet of depth 10: two layers of 12 new channels in each of three blocks; BatchNorms by block
DENSE_WIDTHS = ((24, 36, 48), (48, 60, 72), (72, 84, 96))


def make(name, **options):
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = randomise(build(name, 10, options), x)
    return Dense(model, find_groups(model, IMAGE), x[:1])


@pytest.fixture(scope="module")
def densenet():
    return make("cifar_densenet", depth=10)


@pytest.fixture(scope="module")
def preresnet():
    return make("cifar_preresnet", depth=11)


@pytest.fixture(scope="module")
def vgg():
    return make("vgg11_slim")


def pruned(dense, method, selection=None, options=None):
    batch = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    selection = selection or Selection(0.0)
    return prune(dense.model, Arch("net", {}), dense.groups, method, selection, batch=batch, seed=0, options=options)


def guided(dense, folder, pattern, ratio=0.0, scope="inner", **options):
    (folder / "pattern.json").write_text(pattern.to_json())
    options = GuidedOptions((str(folder / "pattern.json"),), **options)
    return pruned(dense, "guided", Selection(ratio, scope=scope), options)


def shares_by_block(dense, plan):
    """Kept channels behind the BatchNorms of each block and its transition, over what there is."""
    counts = list(selected_counts(plan, dense.model, dense.groups).values())
    assert [width for _, width in counts] == [width for block in DENSE_WIDTHS for width in block]
    return [sum(kept for kept, _ in counts[i : i + 3]) / sum(DENSE_WIDTHS[i // 3]) for i in (0, 3, 6)]


def test_places_of_a_dense_network_are_its_batch_norms(densenet):
    places = free_places(densenet.model, densenet.groups, Selection())
    assert [place.unit.width for place in places] == [width for block in DENSE_WIDTHS for width in block]
    assert all(place.readers for place in places)
    skipped = free_places(densenet.model, densenet.groups, Selection(skip=(places[0].unit.name,)))
    assert skipped == places[1:]
    narrowed = free_places(densenet.model, densenet.groups, Selection(scope="all"))
    assert not any(place.readers for place in narrowed)


def test_places_of_a_plain_network_are_its_groups():
    model = Plain().eval()
    groups = find_groups(model, torch.zeros(1, 3, 8, 8))
    assert [place.unit for place in free_places(model, groups, Selection())] == groups


def test_pattern_counts_selected_inputs_where_their_channels_are(densenet):
    """Half of the first BatchNorm of block 1, a third of the last one, which the linear layer reads."""
    first, *_, last = free_places(densenet.model, densenet.groups, Selection())
    plan = PruningPlan("net", select={first.readers[0]: tuple(range(12)), last.readers[0]: tuple(range(32))})
    pattern = pattern_of(plan, densenet)
    assert pattern == Pattern(widths=((12 + 36 + 48) / 108, 1.0, (72 + 84 + 32) / 252))


def test_pattern_mixes_narrowed_and_selected_channels(preresnet):
    """Stage 1 of PreResNet-11: a BatchNorm of 16 on the trunk, then 16 and 16 inside; stages 2 and 3 are whole."""
    plan = PruningPlan(
        "net", {}, {"layer1.0.conv1": tuple(range(4))}, {"layer1.0.conv1": 16}, {"layer1.0.conv1": tuple(range(8))}
    )
    # stage 2 holds the trunk of 128 that layer3 reads, at the size that layer2 leaves; stage 1 that of 64, too
    assert pattern_of(plan, preresnet) == Pattern(widths=((4 + 8 + 64) / (16 + 16 + 64), 1.0, 1.0))


def test_a_layer_that_selects_elsewhere_counts_as_itself():
    """As the regression method leaves the first convolution of a residual block: 4 of 16 inputs."""
    dense = make("cifar_resnet", depth=8)
    plan = PruningPlan("net", select={"layer1.0.conv1": (0, 1, 2, 3)})
    assert pattern_of(plan, dense) == Pattern(widths=(0.25,))


def test_channel_is_there_as_long_as_one_layer_reads_it():
    dense = Dense(branches().eval(), find_groups(branches(), IMAGE), IMAGE)
    plan = PruningPlan("net", select={"left": (0, 1), "right": (1, 2)})
    assert selected_counts(plan, dense.model, dense.groups) == {"norm": (3, 4)}
    assert selected_counts(PruningPlan("net", select={"left": (0,)}), dense.model, dense.groups) == {"norm": (4, 4)}


def branches():
    class Branches(nn.Module):
        """A BatchNorm that two convolutions read, behind a sum."""

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.inner = nn.Conv2d(4, 4, 1)
            self.norm = nn.BatchNorm2d(4)
            self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            x = self.norm(x + self.inner(x))
            return (self.left(x) + self.right(x)).mean((2, 3))

    return Branches()


def test_guided_dense_network_selects_as_the_pattern_says(densenet, tmp_path):
    """Shares 1, 1/2, 1/4 at the scale 1: 108 + 90 + 63 of 540 channels."""
    small = guided(densenet, tmp_path, Pattern(widths=(1.0, 0.5, 0.25)), 1 - 261 / 540)
    assert shares_by_block(densenet, small.plan) == [1.0, 0.5, 0.25]
    assert not small.plan.keep
    assert small.difference < 1e-4


@pytest.mark.parametrize("quantity", ["macs", "params"])
@pytest.mark.parametrize("network", ["densenet", "preresnet"])
def test_guided_meets_a_budget_with_selected_inputs(network, quantity, request, tmp_path):
    dense = request.getfixturevalue(network)
    cost = count_params if quantity == "params" else lambda model: count_macs(model, IMAGE)
    small = guided(dense, tmp_path, Pattern(widths=(1.0, 0.6, 0.4)), budget={quantity: 0.5})
    assert cost(small.model) == pytest.approx(0.5 * cost(dense.model), rel=0.02)
    assert small.plan.select


def designs():
    """Budgets are slow to meet; of networks that are narrowed and select nothing one is quick."""
    for network, scope in product(["densenet", "preresnet", "vgg"], ["inner", "all"]):
        quick = network == "densenet" or (network, scope) == ("preresnet", "inner")
        yield pytest.param(network, scope, {"ratio": 0.35})
        for budget in ({"macs": 0.4}, {"params": 0.6}):
            yield pytest.param(network, scope, {"budget": budget}, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("network", "scope", "goal"), designs())
def test_a_flat_pattern_is_the_uniform_network(network, scope, goal, request, tmp_path):
    """Widths, selections and what is kept, whatever the level and the number of stages of the flat pattern."""
    dense = request.getfixturevalue(network)
    budget, ratio = goal.get("budget"), goal.get("ratio", 0.0)
    control = pruned(dense, "uniform", Selection(ratio, scope=scope), UniformOptions(budget)).plan
    for shares in ((0.3,), (0.5, 0.5, 0.5)):
        assert guided(dense, tmp_path, Pattern(widths=shares), ratio, scope, budget=budget).plan == control
    assert bool(control.select) == (network != "vgg" and scope == "inner")


def test_plan_of_slimming_guides_the_same_network_to_its_own_shares(densenet, tmp_path):
    source = pruned(densenet, "slimming", Selection(0.4)).plan
    (tmp_path / "plan.json").write_text(source.to_json())
    small = pruned(densenet, "guided", Selection(0.4), GuidedOptions((str(tmp_path / "plan.json"),)))
    assert shares_by_block(densenet, small.plan) == pytest.approx(shares_by_block(densenet, source), abs=0.02)
    assert small.plan.select != source.select


def test_pattern_of_a_dense_network_designs_a_plain_one_and_back(densenet, tmp_path):
    """Stages correspond by relative depth, whether channels are selected or narrowed."""
    pattern = pattern_of(guided(densenet, tmp_path, Pattern(widths=(1.0, 0.5, 0.25)), 1 - 261 / 540).plan, densenet)
    assert pattern.widths == (1.0, 0.5, 0.25)
    vgg = make("vgg16_slim")
    plan = guided(vgg, tmp_path, pattern, 0.6).plan
    assert not plan.select
    # five stages: the first and second are as deep as the pattern's first, the middle one as its second
    first, second, middle, fourth, last = pattern_of(plan, vgg).widths
    assert first == second > middle > fourth == last
    back = guided(densenet, tmp_path, pattern_of(plan, vgg), 0.5).plan
    first, middle, last = shares_by_block(densenet, back)
    assert first > middle > last


def test_inputs_with_the_smallest_kernels_are_not_read(densenet, tmp_path):
    small = guided(densenet, tmp_path, Pattern(widths=(0.5,)), 0.5).plan
    place = free_places(densenet.model, densenet.groups, Selection())[0]
    norms = densenet.model.get_parameter(f"{place.readers[0]}.weight").detach().abs().sum((0, 2, 3))
    assert small.select[place.readers[0]] == tuple(sorted(norms.argsort(descending=True)[:12].tolist()))


def test_totals_are_shared_out_by_largest_remainders():
    """3.5, 3.5 and 3 of 10; 1, 3, 6 of 10 with limits; a layer keeps at least one."""
    limits = {"a": 8, "b": 8, "c": 8}
    assert share_out(10, {"a": 7.0, "b": 7.0, "c": 6.0}, limits) == {"a": 4, "b": 3, "c": 3}
    assert share_out(12, {"a": 0.1, "b": 1.0, "c": 8.0}, limits) == {"a": 1, "b": 3, "c": 8}
    assert share_out(24, {"a": 0.1, "b": 1.0, "c": 8.0}, limits) == limits
    assert share_out(3, {"a": 0.1, "b": 1.0, "c": 8.0}, limits) == dict.fromkeys("abc", 1)
    with pytest.raises(ValueError, match="2 channels cannot be left: 3 to 24 are possible"):
        share_out(2, {"a": 1.0, "b": 1.0, "c": 1.0}, limits)
