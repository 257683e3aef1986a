"""Budgets, the uniform control, patterns and the designs made from them."""

import pytest
import torch
from support.small_networks import Plain, residual_network
from torch import nn

from classify.models import arch, build
from pruning.cost import count_macs, count_params, map_areas
from pruning.cut import prune
from pruning.design.budget import Budget, fit, read_budget
from pruning.design.pattern import Pattern, average, pattern_from_masks, pattern_from_plan, stages_of
from pruning.graph.groups import find_groups
from pruning.masks import Masks
from pruning.methods import Request, get_method
from pruning.methods.guided import GuidedOptions
from pruning.methods.uniform import UniformOptions
from pruning.plan import PruningPlan
from pruning.select import Selection

IMAGE = torch.zeros(1, 3, 16, 16)
EVEN = (0.5,) * 9


def staircase(scale):
    return {"a": max(1, int(10 * scale))}


@pytest.mark.parametrize(("target", "width"), [(40, 4), (44, 4), (45, 4), (46, 5), (100, 10), (10, 1)])
def test_bisection_takes_the_nearest_step_and_the_cheaper_of_two(target, width):
    assert fit(staircase, lambda widths: 10 * widths["a"], target, 0, 1) == {"a": width}


def test_a_budget_out_of_reach_is_refused():
    with pytest.raises(ValueError, match="a budget of 9 cannot be met: between 10 and 100 is possible"):
        fit(staircase, lambda widths: 10 * widths["a"], 9, 0, 1)
    with pytest.raises(ValueError, match="a budget of 1,001 macs is more than the dense network's 1,000"):
        Budget("macs", 1001).target(1000)


def test_a_budget_is_a_share_or_a_number():
    assert Budget("macs", 0.25).target(1000) == 250
    assert Budget("params", 300).target(1000) == 300


@pytest.mark.parametrize("budget", [{}, {"flops": 0.5}, {"macs": 0.5, "params": 0.5}, {"macs": 0}])
def test_odd_budgets_are_refused(budget):
    with pytest.raises(ValueError, match=r"uniform: (a )?budget"):
        UniformOptions(budget)
    with pytest.raises(ValueError, match=r"x: (a )?budget"):
        read_budget(budget, owner="x")


def pruned(model, groups, method, selection=None, options=None):
    batch = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    selection = selection or Selection()
    return prune(model, arch("cifar_resnet"), groups, method, selection, batch=batch, seed=0, options=options)


@pytest.fixture(scope="module")
def resnet8():
    model = build("cifar_resnet", 10, {"depth": 8}).eval()
    return model, find_groups(model, IMAGE, stages=("layer1", "layer2", "layer3"))


def test_uniform_takes_the_same_share_of_every_layer(resnet8):
    plan = pruned(*resnet8, "uniform", Selection(0.25)).plan
    assert plan.kept_counts() == {f"layer{s}.0.conv1": 12 * 2 ** (s - 1) for s in (1, 2, 3)}


@pytest.mark.parametrize(("quantity", "count"), [("macs", lambda m: count_macs(m, IMAGE)), ("params", count_params)])
def test_uniform_meets_a_budget_within_one_channel_of_the_widest_layer(resnet8, quantity, count):
    model, groups = resnet8
    dense, target = count(model), round(0.6 * count(model))
    small = pruned(model, groups, "uniform", options=UniformOptions({quantity: 0.6}))
    # layers step one after the other; a channel of the first costs most MACs, one of the last most params
    one_less = [Selection(0.0, layers={f"layer{s}.0.conv1": 0.01}) for s in (1, 2, 3)]
    one_step = max(count(model) - count(pruned(model, groups, "l1_filter", less).model) for less in one_less)
    assert abs(count(small.model) - target) <= one_step / 2
    assert dense * 0.58 < count(small.model) < dense * 0.62
    absolute = pruned(model, groups, "uniform", options=UniformOptions({quantity: target}))
    assert absolute.plan == small.plan


def test_uniform_says_what_it_does_not_take(resnet8):
    for selection in (Selection((0.1, 0.2, 0.3)), Selection(0.5, "global"), Selection(layers={"layer1.0.conv1": 0.1})):
        with pytest.raises(ValueError, match="uniform: one ratio for every layer"):
            pruned(*resnet8, "uniform", selection)
    with pytest.raises(ValueError, match="choices: l1, random"):
        UniformOptions(criterion="l2")
    request = Request(resnet8[1], Selection(), UniformOptions({"macs": 0.5}), 0)
    with pytest.raises(ValueError, match="a budget of MACs needs an example input"):
        get_method("uniform").prune(resnet8[0], request)


def test_uniform_may_choose_at_random(resnet8):
    by_l1 = pruned(*resnet8, "uniform").plan
    at_random = pruned(*resnet8, "uniform", options=UniformOptions(criterion="random")).plan
    assert by_l1.kept_counts() == at_random.kept_counts()
    assert by_l1.keep != at_random.keep


def test_stages_are_told_by_feature_maps():
    areas = map_areas(Plain(), torch.zeros(1, 3, 8, 8))
    assert areas == {"0": 64, "1": 64, "4": 16, "5": 16, "9": 1, "11": 1}
    assert stages_of(["4", "0"], areas) == {"4": 1, "0": 0}
    assert stages_of(["4", "9"], areas) == {"4": 0, "9": 1}
    with pytest.raises(ValueError, match="does not run these layers: 7"):
        stages_of(["7"], areas)


def test_pattern_of_plans_is_the_mean_share_by_stage():
    """Stage 1: (2 + 4) of 8 + 8; stage 2: 6 of 8."""
    areas = {"a": 64, "b": 64, "c": 16}
    keep = {"a": (0, 1), "b": (0, 1, 2, 3), "c": tuple(range(6))}
    pattern = pattern_from_plan(PruningPlan("net", {}, keep, dict.fromkeys(keep, 8)), areas)
    assert pattern == Pattern(widths=(0.375, 0.75))
    assert average([pattern, Pattern(widths=(0.625, 0.25))]) == Pattern(widths=(0.5, 0.5), sources=2)
    # the mean of two counts twice
    assert average([Pattern(widths=(0.5,), sources=2), Pattern(widths=(0.8,))]).widths == pytest.approx((0.6,))


def test_pattern_of_masks_is_the_density_by_kernel_position():
    kernels = torch.zeros(2, 1, 3, 3)
    kernels[0, 0, 1, 1] = kernels[1, 0, 1, 1] = kernels[1, 0, 0, 2] = 1
    masks = Masks({"a.weight": kernels, "b.weight": torch.tensor([1, 0, 0, 0]).view(1, 4, 1, 1)})
    same = pattern_from_masks(masks, {"a": 4, "b": 4})
    assert same.kernels == ((0, 0, 0.5, 0, 1, 0, 0, 0, 0),)
    assert same.others == (0.25,)
    apart = pattern_from_masks(masks, {"a": 4, "b": 1})
    assert apart.kernels == ((0, 0, 0.5, 0, 1, 0, 0, 0, 0), (0.25,) * 9)
    assert apart.others == pytest.approx((1.5 / 9, 0.25))


def test_stages_map_by_relative_depth():
    three = Pattern(widths=(0.1, 0.2, 0.3))
    assert [three.stage_at(i, 3) for i in range(3)] == [0, 1, 2]
    assert [three.stage_at(i, 4) for i in range(4)] == [0, 1, 1, 2]
    assert [three.stage_at(i, 2) for i in range(2)] == [0, 2]


@pytest.mark.parametrize(
    "pattern", [Pattern(widths=(0.5, 1.0), sources=3), Pattern(kernels=(EVEN, EVEN), others=(0.1, 0.2))]
)
def test_pattern_round_trip(pattern):
    assert Pattern.from_json(pattern.to_json()) == pattern


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pattern(), "`widths` by stage, or `kernels` and `others`"),
        (lambda: Pattern(widths=(1.5,)), r"must lie in 0\.\.1"),
        (lambda: Pattern(widths=(0.0,)), r"must lie in 0\.\.1, those of channels above 0"),
        (lambda: Pattern(kernels=((0.5,),), others=(0.5,)), "nine shares to a kernel"),
        (lambda: Pattern.from_json("[", source="p.json"), r"p\.json: not JSON"),
        (lambda: Pattern.from_json("{}", source="p.json"), r"p\.json: not a pruning pattern \(KeyError"),
        (lambda: average([]), "no pattern to average"),
        (lambda: average([Pattern(widths=(0.5,)), Pattern(widths=(0.5, 0.5))]), "number of stages: 1 and 2"),
    ],
)
def test_odd_patterns_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def write(path, text):
    path.write_text(text)
    return str(path)


def test_guided_widths_follow_the_pattern_at_the_asked_ratio(tmp_path, resnet8):
    """Shares 1, 1/2, 1/4 of widths 16, 32, 64, scaled by 2: the first stages are whole, half of the third is left."""
    file = write(tmp_path / "p.json", Pattern(widths=(1.0, 0.5, 0.25)).to_json())
    plan = pruned(*resnet8, "guided", Selection(32 / 112), GuidedOptions((file,))).plan
    assert plan.kept_counts() == {"layer1.0.conv1": 16, "layer2.0.conv1": 32, "layer3.0.conv1": 32}
    whole = pruned(*resnet8, "guided", Selection(0.0), GuidedOptions((file,))).plan
    assert whole.kept_counts() == whole.widths


def test_guided_meets_a_budget_from_a_plan_of_the_same_network(tmp_path, resnet8):
    model, groups = resnet8
    source = pruned(model, groups, "l1_filter", Selection((0.0, 0.25, 0.75))).plan
    options = GuidedOptions((write(tmp_path / "plan.json", source.to_json()),), {"macs": 0.5})
    small = pruned(model, groups, "guided", options=options)
    counts = small.plan.kept_counts()
    assert count_macs(small.model, IMAGE) == pytest.approx(0.5 * count_macs(model, IMAGE), rel=0.03)
    shares = [counts[f"layer{s}.0.conv1"] / (8 * 2**s) for s in (1, 2, 3)]
    assert shares[0] > shares[1] > shares[2]
    assert shares[1] / shares[0] == pytest.approx(0.75, abs=0.1)


def test_transferred_guided_takes_the_pattern_of_another_family(tmp_path):
    """A pattern of two stages on a network of three: the middle stage is as deep as the pattern's second."""
    model = residual_network().eval()
    groups = find_groups(model, IMAGE, stages=("layer1", "layer2", "layer3"))
    file = write(tmp_path / "p.json", Pattern(widths=(1.0, 0.5)).to_json())
    keep = pruned(model, groups, "guided", Selection(1 - 32 / 56), GuidedOptions((file,))).plan.kept_counts()
    assert keep == {"layer1.0.conv1": 8, "layer2.0.conv1": 8, "layer3.0.conv1": 16}


def two_convs():
    return nn.Sequential(nn.Conv2d(3, 10, 3, padding=1, bias=False), nn.Conv2d(10, 10, 1, bias=False)).eval()


def drawn(file, budget=None, ratio=0.5, seed=0):
    model = two_convs()
    options = GuidedOptions((file,), budget)
    request = Request([], Selection(ratio), options, seed, example=torch.zeros(1, 3, 4, 4))
    return get_method("guided").prune(model, request).masks


def test_guided_masks_have_the_patterns_densities(tmp_path):
    """30 slices of 3x3 with .2 at the borders and .4 in the middle, and 100 weights of 1x1 with .5: 60 + 50 of 370."""
    kernel = (0.2,) * 4 + (0.4,) + (0.2,) * 4
    file = write(tmp_path / "p.json", Pattern(kernels=(kernel,), others=(0.5,)).to_json())
    masks = drawn(file, ratio=1 - 110 / 370)
    assert masks["0.weight"].sum((0, 1)).flatten().tolist() == [6, 6, 6, 6, 12, 6, 6, 6, 6]
    assert masks["1.weight"].sum() == 50
    assert all(masks[name].equal(mask) for name, mask in drawn(file, ratio=1 - 110 / 370).items())
    assert not masks["1.weight"].equal(drawn(file, ratio=1 - 110 / 370, seed=1)["1.weight"])


def test_guided_masks_meet_a_budget_that_counts_what_is_left(tmp_path):
    file = write(tmp_path / "p.json", Pattern(kernels=(EVEN,), others=(0.5,)).to_json())
    assert drawn(file, {"params": 185}).kept() == 185  # 9 * 15 + 50
    assert drawn(file, {"macs": 185 * 16}).kept() == 185  # maps of 4x4 pixels


def test_guided_says_what_it_needs(tmp_path, resnet8):
    with pytest.raises(ValueError, match="`patterns` must name at least one file"):
        pruned(*resnet8, "guided")
    with pytest.raises(ValueError, match=r"there is no pattern or plan .*none\.json"):
        pruned(*resnet8, "guided", options=GuidedOptions((str(tmp_path / "none.json"),)))
    other = PruningPlan("vgg", {}, {"features.0": (0,)}, {"features.0": 64})
    with pytest.raises(ValueError, match=r"plan\.json: a plan for 'vgg', not for this network"):
        pruned(*resnet8, "guided", options=GuidedOptions((write(tmp_path / "plan.json", other.to_json()),)))
    file = write(tmp_path / "p.json", Pattern(widths=(0.5,)).to_json())
    with pytest.raises(ValueError, match="no ratio by stage"):
        pruned(*resnet8, "guided", Selection((0.1, 0.2, 0.3)), GuidedOptions((file,)))
    dropped = PruningPlan("cifar_resnet", drop=("layer1.0",))
    with pytest.raises(ValueError, match="narrows and selects no channels, so it has no pattern of widths"):
        pruned(*resnet8, "guided", options=GuidedOptions((write(tmp_path / "plan.json", dropped.to_json()),)))
    elsewhere = PruningPlan("densenet40", select={"block1.0.conv1": (0, 1)})
    with pytest.raises(ValueError, match=r"plan\.json: a plan for 'densenet40', not for this network"):
        pruned(*resnet8, "guided", options=GuidedOptions((write(tmp_path / "plan.json", elsewhere.to_json()),)))
    with pytest.raises(ValueError, match="needs an example input"):
        get_method("guided").prune(resnet8[0], Request(resnet8[1], Selection(), GuidedOptions((file,)), 0))
