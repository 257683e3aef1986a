"""Surgery: by hand, and the smaller network against the zeroed one on the architectures of the study."""

import copy

import pytest
import torch
from support.comparing import largest_difference
from support.reference import state_hash
from support.small_networks import Plain, ThreeConvs, randomise, residual_network
from torch import nn

from classify.models import arch, build, channel_groups, rebuild
from pruning.cost import count_macs, count_params
from pruning.cut import Arch, make_plan, prune
from pruning.graph.groups import find_groups
from pruning.methods import Choice
from pruning.plan import PruningPlan
from pruning.select import Selection, counts, eligible
from pruning.surgery import apply, check_masked_equals_small, mask

NET = arch("net")


def output(model, x):
    with torch.no_grad():
        return model.eval()(x)


def random_keep(groups, selection, seed=0):
    """The counts of `selection`, at random: a criterion would hide which indices are cut."""
    generator = torch.Generator().manual_seed(seed)
    chosen = eligible(groups, selection)
    wanted = counts(chosen, selection)
    kept = {g.name: torch.randperm(g.width, generator=generator)[: wanted[g.name]] for g in chosen}
    return {name: tuple(sorted(index.tolist())) for name, index in kept.items()}


def test_three_convolutions_by_hand():
    model = ThreeConvs()
    x = torch.full((1, 1, 1, 1), 2.0)
    # relu(1 x 2, -3 x 2 + 1, 2 x 2) = (2, 0, 4); (1, 2, 3) . = 14 and (.5, .5, 1) . = 5; 14 + 10 x 5
    assert output(model, x).item() == 64
    assert (count_params(model), count_macs(model, x)) == (14, 11)

    groups = find_groups(model, x)
    selection = Selection(layers={"conv1": 1 / 3, "conv2": 0.5})
    pruned = prune(model, NET, groups, "l1_filter", selection, batch=x, seed=0)
    # sums of |w|: conv1 1, 3, 2; conv2 6, 2
    assert pruned.plan.keep == {"conv1": (1, 2), "conv2": (0,)}
    # (0, 4); (2, 3) . = 12; 1 x 12
    assert output(pruned.model, x).item() == 12
    assert (count_params(pruned.model), count_macs(pruned.model, x)) == (7, 5)
    assert pruned.difference == 0
    assert pruned.model.conv1.bias.tolist() == [1, 0]
    assert pruned.model.conv2.weight.flatten().tolist() == [2, 3]
    assert (pruned.model.conv2.in_channels, pruned.model.conv2.out_channels) == (2, 1)


def test_all_tied_scores_keep_the_lower_indices_at_the_asked_count():
    model = Plain()
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    groups = find_groups(model, torch.zeros(1, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    pruned = prune(model, NET, groups, "l1_filter", Selection(ratio=0.3), batch=x, seed=0)
    assert pruned.plan.keep == {"0": tuple(range(5)), "4": tuple(range(8)), "9": tuple(range(7))}


def test_linear_layer_behind_a_map_keeps_the_pixels_of_its_channels():
    model = Plain()
    groups = find_groups(model, torch.zeros(1, 3, 8, 8))
    small = apply(model, make_plan(NET, groups, Choice({"4": (1, 11)})), groups)
    assert torch.equal(small[9].weight, model[9].weight[:, [4, 5, 6, 7, 44, 45, 46, 47]])
    assert small[9].in_features == 8
    assert small[5].num_features == 2
    assert torch.equal(small[5].running_var, model[5].running_var[[1, 11]])


INNER, ALL = "inner", "all"
# architecture, options, input side, scopes; where no shortcut couples layers both scopes are the same
NETWORKS = [
    ("resnet20", {}, 32, (INNER,)),
    ("resnet20", {"shortcut": "stride"}, 32, (INNER,)),
    ("resnet18", {}, 32, (INNER, ALL)),
    ("resnet50", {"width": 0.25}, 32, (INNER, ALL)),
    ("mobilenet_v2", {"width_mult": 0.5}, 32, (INNER, ALL)),
    ("mobilenet_v3_small", {}, 32, (INNER, ALL)),
    pytest.param("densenet121", {}, 32, (ALL,), marks=pytest.mark.slow),
    pytest.param("vgg11_bn", {}, 32, (ALL,), marks=pytest.mark.slow),  # 129 million weights in float64
    ("googlenet", {}, 64, (ALL,)),
    ("squeezenet1_0", {}, 64, (ALL,)),
    pytest.param("efficientnet_b0", {}, 32, (INNER, ALL), marks=pytest.mark.slow),
    ("regnet_y_400mf", {}, 32, (INNER, ALL)),
    ("convnext_tiny", {}, 32, (INNER,)),
]


@pytest.mark.parametrize(("name", "options", "side", "scopes"), NETWORKS)
def test_smaller_network_equals_the_zeroed_one(name, options, side, scopes):
    torch.manual_seed(0)
    x = torch.randn(4, 3, side, side).double()  # float64: rounding cannot hide a mistake, nor look like one
    model = randomise(build(name, 10, options).double(), x)
    dense = output(model, x)
    groups = channel_groups(name, model, x[:1])
    fixed = tuple(g.name for g in groups if g.fixed)
    for scope in scopes:
        selection = Selection(ratio=0.4, scope=scope, skip=fixed)
        plan = make_plan(arch(name, options), groups, Choice(random_keep(groups, selection)))
        small, zeroed = apply(model, plan, groups), mask(model, plan, groups)
        assert largest_difference(zeroed, small, x) <= 1e-10
        assert count_params(small) < count_params(model)
        # neither trivial: what was cut mattered, and the output depends on the image
        logits = output(small, x)
        assert (logits - dense).abs().max() > 0.1 * dense.abs().max()
        assert (logits[0] - logits[1]).abs().max() > 0.02 * logits.abs().max()
        assert {g.name: small.get_submodule(g.name).weight.shape[0] for g in groups if g.name in plan.keep} == (
            plan.kept_counts()
        )


def test_coupled_scope_is_refused_for_the_padded_trunk():
    model = residual_network()
    groups = find_groups(model, torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"conv1 cannot be narrowed: a shortcut pads its channels with zeros"):
        prune(model, NET, groups, "l1_filter", Selection(scope="all"), batch=torch.zeros(1, 3, 16, 16), seed=0)


@pytest.fixture
def residual():
    """A small residual network with its groups and a batch."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16)
    model = randomise(residual_network(), x)
    return model, channel_groups("cifar_resnet", model, x[:1]), x


RESNET8 = arch("cifar_resnet", {"depth": 8, "width": 0.5})


def test_surgery_leaves_its_input_alone(residual):
    model, groups, x = residual
    before, modes = state_hash(model.state_dict()), [m.training for m in model.train().modules()]
    pruned = prune(model, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0)
    mask(model, pruned.plan, groups)
    assert state_hash(model.state_dict()) == before
    assert [m.training for m in model.modules()] == modes
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in pruned.model.parameters()}


def test_plan_rebuilds_the_architecture_through_json(residual):
    model, groups, x = residual
    pruned = prune(model, RESNET8, groups, "random", Selection(), batch=x, seed=0)
    plan = PruningPlan.from_json(pruned.plan.to_json())
    fresh = rebuild(plan, 5)
    fresh.load_state_dict(pruned.model.state_dict())  # strict
    assert torch.equal(output(fresh, x), output(pruned.model, x))
    assert count_params(rebuild(PruningPlan("cifar_resnet", {"depth": 8}), 5)) == count_params(
        build("cifar_resnet", 5, {"depth": 8})
    )


def test_surgery_is_repeatable_to_the_bit(residual):
    model, groups, x = residual
    plan = prune(model, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0).plan
    assert state_hash(apply(model, plan, groups).state_dict()) == state_hash(apply(model, plan, groups).state_dict())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PruningPlan("vgg", keep={"features.0": (0,)}, widths={"features.0": 64}), "'vgg' and prunes 'features.0'"),
        (PruningPlan("wide", keep={"layer1.0.conv1": (0,)}, widths={"layer1.0.conv1": 16}), "expects 16 .* has 8"),
    ],
)
def test_plan_of_another_architecture_is_refused(residual, plan, message):
    model, groups, _ = residual
    with pytest.raises(ValueError, match=message):
        apply(model, plan, groups)


def test_two_surgeries_equal_their_composition(residual):
    model, groups, x = residual
    first = prune(model, RESNET8, groups, "random", Selection(ratio=0.4), batch=x, seed=1)
    narrow_groups = channel_groups("cifar_resnet", first.model, x[:1])
    later = prune(first.model, RESNET8, narrow_groups, "random", Selection(ratio=0.5), batch=x, seed=2)
    both = apply(model, first.plan.then(later.plan), groups)
    assert state_hash(both.state_dict()) == state_hash(later.model.state_dict())
    assert later.plan.kept_counts() == {"layer1.0.conv1": 2, "layer2.0.conv1": 4, "layer3.0.conv1": 9}


def test_wrong_surgery_is_caught(residual):
    model, groups, x = residual
    plan = prune(model, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0).plan
    small, zeroed = apply(model, plan, groups), mask(model, plan, groups)
    small.layer2[0].bn1.bias.data += 1
    with pytest.raises(RuntimeError, match="differs from the masked dense one"):
        check_masked_equals_small(zeroed, small, x)
    small.fc.bias.data[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"nan .* nothing was saved"):
        check_masked_equals_small(zeroed, small, x)


class Amplifying(nn.Module):
    """The outputs are differences of nearly equal numbers, of which float32 leaves two or three digits."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 500, 1)
        self.last, self.other = nn.Linear(500, 3), nn.Linear(500, 3)
        self.other.weight.data = self.last.weight.data + 1e-6 * torch.randn(3, 500)
        self.other.bias.data = self.last.bias.data.clone()

    def forward(self, x):
        y = self.first(x).mean((2, 3))
        return self.last(y) - self.other(y)


def test_right_surgery_is_right_where_float32_rounding_is_amplified():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    model = Amplifying().eval()
    groups = find_groups(model, x[:1])
    pruned = prune(model, Arch("net", {}), groups, "l1_filter", Selection(0.5), batch=x, seed=0)
    assert pruned.difference < 1e-6
    masked = mask(model, pruned.plan, groups)
    assert largest_difference(masked, pruned.model, x) > 1e-3  # float32 alone would call it wrong


@pytest.mark.parametrize("weight", ["last", "all"])
def test_a_check_on_constant_outputs_is_void(residual, weight):
    model, groups, x = residual
    dead = copy.deepcopy(model)
    dead.fc.weight.data.zero_()
    dead.fc.bias.data.fill_(0.25 if weight == "all" else 0.0)
    if weight == "last":
        dead.fc.bias.data[:] = torch.arange(5.0)  # the same for every image, not for every class
    assert prune(dead, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0).difference is None
    assert prune(model, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0).difference is not None


def test_outputs_that_are_not_finite_are_not_called_wrong_surgery(residual):
    model, groups, x = residual
    broken = copy.deepcopy(model)
    broken.fc.bias.data[0] = float("nan")
    with pytest.raises(RuntimeError, match="own outputs are not finite"):
        prune(broken, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0)


def test_permuted_channels_permute_the_choice_of_l1(residual):
    model, groups, x = residual
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    permuted = build("cifar_resnet", 5, RESNET8.options)
    permuted.load_state_dict(model.state_dict())
    block = permuted.layer1[0]
    block.conv1.weight.data = block.conv1.weight.data[order]
    kept, moved = (
        prune(m, RESNET8, groups, "l1_filter", Selection(), batch=x, seed=0).plan.keep for m in (model, permuted)
    )
    assert sorted(order[list(moved["layer1.0.conv1"])].tolist()) == list(kept["layer1.0.conv1"])
    assert moved["layer1.0.conv1"] != kept["layer1.0.conv1"]
    assert moved["layer2.0.conv1"] == kept["layer2.0.conv1"]
