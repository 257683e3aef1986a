"""Pruning to a share of the cost: the ratio is searched, what is left is counted, what cannot be met is refused."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.small_networks import Plain, randomise

from classify.models import build
from pruning.by_target import CostLeft, at_target, search
from pruning.cost import LayerCosts, count_macs, count_params, masked_costs
from pruning.cut import Arch, make_plan, prune
from pruning.design.pattern import Pattern
from pruning.errors import Refusal
from pruning.graph.groups import find_groups
from pruning.masks import Masks
from pruning.methods import METHODS, Request
from pruning.methods.guided import GuidedOptions
from pruning.methods.reconstruction import Options as ReconstructionOptions
from pruning.methods.structure_selection import StructureOptions
from pruning.methods.synflow import SynflowOptions
from pruning.methods.uniform import UniformOptions
from pruning.select import Selection
from pruning.surgery import apply

ARCH = Arch("wide", {})


@pytest.fixture(scope="module")
def network():
    """ResNet-8 with 64, 128 and 256 channels, whose single channels are less than 1 % of it, its groups and images."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 16, 16)
    model = randomise(build("cifar_resnet", 5, {"depth": 8, "width": 4.0}), x)
    return model, find_groups(model, x[:1]), x


class Calibration:
    """Two batches, and how often they ran."""

    def __init__(self, x):
        self.x, self.runs = x, 0

    def __call__(self, model):
        self.runs += 1
        for batch in self.x.chunk(2):
            yield F.cross_entropy(model(batch), torch.arange(len(batch)) % 5)


def pruned(network, method, options=None, *, partial=False, **selection):
    model, groups, x = network
    calibration = Calibration(x)
    found = prune(
        model,
        ARCH,
        groups,
        method,
        Selection(**selection),
        batch=x[:2],
        options=options,
        calibration=calibration,
        allow_partial=partial,
    )
    return found, calibration.runs


def costs(network, found):
    """Params and MACs of what is left over those of all, counted on the network itself."""
    model, _, x = network
    params, macs = masked_costs(found.model, Masks(found.masks), x[:1])
    return params / count_params(model), macs / count_macs(model, x[:1])


def options_of(method, folder):
    if method == "structure_selection":  # three blocks are coarse
        return StructureOptions(structures="channels")
    if method == "synflow":
        return SynflowOptions(rounds=3)  # each ratio that is tried takes them all
    if method != "guided":
        return None
    (folder / "pattern.json").write_text(Pattern(widths=(0.5, 0.25)).to_json())
    return GuidedOptions(patterns=(str(folder / "pattern.json"),))


QUICK = ("l1_filter", "uniform", "soft_filter", "magnitude")  # one of a kind; params are searched as multiply-adds are
IN_PARAMS = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in METHODS]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_a_target_within_one_percent(network, method, tmp_path):
    found, _ = pruned(network, method, options_of(method, tmp_path), target_macs=0.6)
    left = costs(network, found)[1]
    assert left == pytest.approx(0.6, abs=0.01)
    assert found.achieved.reached.left == pytest.approx(left, abs=1e-9)


@pytest.mark.parametrize("method", IN_PARAMS)
def test_every_method_meets_a_target_in_params_within_one_percent(network, method, tmp_path):
    found, _ = pruned(network, method, options_of(method, tmp_path), target_params=0.7)
    left = costs(network, found)[0]
    assert left == pytest.approx(0.7, abs=0.01)
    assert found.achieved.reached.left == pytest.approx(left, abs=1e-9)


@pytest.mark.parametrize("method", ["l1_filter", "taylor", "fpgm"])
def test_global_rankings_and_scope_all_meet_it_too(method):
    torch.manual_seed(0)
    x = torch.randn(8, 3, 32, 32)
    model = build("resnet10", 5, {"width": 0.5})
    network = randomise(model, x), find_groups(model, x[:1]), x
    found, _ = pruned(network, method, target_macs=0.5, level="global", scope="all")
    assert costs(network, found)[1] == pytest.approx(0.5, abs=0.01)


def test_the_choice_is_that_of_the_ratio_which_is_told(network):
    found, _ = pruned(network, "l1_filter", target_macs=0.6)
    told = found.achieved.as_result()["reached"]
    assert told.keys() == {"quantity", "asked", "left", "ratio"} and found.achieved.asked is None
    again, _ = pruned(network, "l1_filter", ratio=told["ratio"])
    assert again.plan == found.plan
    assert "reached" not in again.achieved.as_result()


@pytest.mark.parametrize("level", ["layer", "global"])
def test_scores_by_the_loss_are_computed_once(network, level):
    assert pruned(network, "taylor", target_macs=0.6, level=level)[1] == 1


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_calibration_runs_as_often_as_with_the_ratio_given(network, method):
    found, runs = pruned(network, method, target_macs=0.6)
    assert runs == pruned(network, method, ratio=found.achieved.reached.ratio)[1]


def test_inputs_that_layers_select_count(network):
    options = ReconstructionOptions(select_inputs={"layer2.0.conv1": 0.5})
    found, _ = pruned(network, "reconstruction", options, target_macs=0.6)
    assert len(found.plan.select["layer2.0.conv1"]) == 32
    assert costs(network, found)[1] == pytest.approx(0.6, abs=0.01)


def test_ratios_by_layer_and_skipped_layers_hold(network):
    selection = {"layers": {"layer3.0.conv1": 0.25}, "skip": ("layer1.0.conv1",)}
    found, _ = pruned(network, "l1_filter", target_macs=0.8, **selection)
    assert len(found.plan.keep["layer3.0.conv1"]) == 192 and "layer1.0.conv1" not in found.plan.keep
    assert found.plan.keep["layer2.0.conv1"] and costs(network, found)[1] == pytest.approx(0.8, abs=0.01)


def test_where_steps_are_coarse_the_nearest_is_taken_and_told(network):
    """Multiples of 64: one inner convolution stays whole, of the two others 1 or 2 and 1 to 4 parts are left."""
    found, _ = pruned(network, "l1_filter", target_macs=0.74, round_to=64)
    assert {len(kept) % 64 for kept in found.plan.keep.values()} == {0}
    left = found.achieved.reached.left
    assert 0.01 < abs(left - 0.74) < 0.05 and left == pytest.approx(costs(network, found)[1])


def test_what_is_far_from_the_target_is_refused_or_allowed(network):
    selection = {"target_macs": 0.3, "skip": ("layer[12].*",)}
    with pytest.raises(Refusal, match=r"l1_filter comes no nearer to target_macs=0.3 than 0\.\d+ of the dense"):
        pruned(network, "l1_filter", **selection)
    found, _ = pruned(network, "l1_filter", partial=True, **selection)
    assert found.achieved.reached.left > 0.6 and len(found.plan.keep["layer3.0.conv1"]) == 1


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("uniform", UniformOptions(budget={"macs": 0.5}), "uniform: its option `budget` decides"),
        ("structure_selection", StructureOptions(zeros_only=True), "what training brings to zero decides"),
    ],
)
def test_methods_that_set_their_own_amount_refuse_a_target(network, method, options, words):
    with pytest.raises(Refusal, match=words):
        pruned(network, method, options, target_macs=0.5)


def test_what_is_wrong_at_any_ratio_is_said_as_it_is(network):
    with pytest.raises(Refusal, match="no layer matches 'layer9'"):
        pruned(network, "l1_filter", target_macs=0.5, skip=("layer9",))
    with pytest.raises(Refusal, match="thinet takes each layer's share from the user"):
        pruned(network, "thinet", target_macs=0.5, level="global")


def test_a_selection_has_one_target_and_no_ratio_before_the_search():
    with pytest.raises(Refusal, match="one ratio cannot meet both"):
        Selection(target_macs=0.5, target_params=0.5)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(Refusal, match="outside 0 < target_macs < 1"):
            Selection(target_macs=share)
    aimed = Selection(target_params=0.5, skip=("a",))
    with pytest.raises(RuntimeError, match="not known before"):
        aimed.stage_ratios()
    assert aimed.at(0.25) == Selection(ratio=0.25, skip=("a",)) and aimed.cost_target == ("params", 0.5)


def test_the_search_by_hand():
    """A staircase in tenths: of 0.34 the nearest step is 0.3; above 0.75 nothing is left."""

    def left_at(ratio):
        if ratio > 0.75:
            raise Refusal("no channel is left")
        return 1 - round(10 * ratio) / 10

    ratio, left = search(left_at, 0.34)
    assert left == pytest.approx(0.3) and round(10 * ratio) == 7
    assert search(left_at, 0.5)[1] == pytest.approx(0.5)
    assert search(left_at, 0.05)[1] == pytest.approx(0.2)  # 0.75 is 8 tenths
    assert search(lambda ratio: 1 - ratio, 0.625) == (0.375, 0.625)


def test_refusals_of_every_ratio_but_none_are_the_answer():
    def left_at(ratio):
        if ratio > 0:
            raise Refusal("channels are out of reach")
        return 1.0

    with pytest.raises(Refusal, match="out of reach"):
        search(left_at, 0.5)


def test_a_network_pruned_before_is_measured_by_the_one_that_nothing_was_removed_from(network):
    model, _, x = network
    half, _ = pruned(network, "l1_filter", target_macs=0.7)
    groups = find_groups(half.model, x[:1])
    whole = count_macs(model, x[:1])

    def left(choice, quantity):
        return count_macs(apply(half.model, make_plan(ARCH, groups, choice), groups), x[:1]) / whole

    request = Request(groups, Selection(target_macs=0.5), METHODS["random"].options(), 0)
    request, reached = at_target(half.model, "random", request, left)
    assert reached.left == pytest.approx(0.5, abs=0.01) and request.selection.cost_target is None


CUT = {
    "depthwise": ("mobilenet_v2", {}, "l1_filter", "inner"),
    "squeeze-excitation": ("mobilenet_v3_small", {}, "l1_filter", "inner"),
    "dense": ("densenet40", {}, "slimming", "inner"),
    "pre-activation": ("cifar_preresnet", {"depth": 20}, "slimming", "inner"),
    "scattered": ("resnet20", {}, "soft_filter", "inner"),
    "blocks": ("resnet20", {}, "structure_selection", "inner"),
    "attention": ("vit_b_32", {"image_size": 32}, "l1_filter", "inner"),
}


@pytest.mark.parametrize("case", CUT)
def test_costs_by_layer_are_those_of_the_network_itself(case):
    name, options, method, scope = CUT[case]
    model, x = build(name, 10, options).eval(), torch.randn(2, 3, 32, 32)
    groups = find_groups(model, x[:1])
    small = prune(model, Arch(name, {}), groups, method, Selection(0.4, scope=scope), batch=x).model
    assert LayerCosts(model, x[:1]).macs(small, {}) == count_macs(small, x[:1])


def test_costs_by_layer_under_masks_by_hand():
    """Plain: 27 weights a filter at 64 places; without half of the second convolution's 864 weights at 16 places."""
    model, x = Plain(), torch.zeros(1, 3, 8, 8)
    costs, mask = LayerCosts(model, x), torch.zeros(12, 8, 3, 3)
    mask[:6] = 1
    assert costs.macs(model, {}) == 8 * 27 * 64 + 864 * 16 + 480 + 50
    assert costs.macs(model, {"4.weight": mask}) == 8 * 27 * 64 + 432 * 16 + 480 + 50


def test_nothing_is_counted_without_a_target(network):
    model, groups, x = network

    def never(choice, quantity):
        raise AssertionError

    request = Request(groups, Selection(0.5), METHODS["random"].options(), 0)
    assert at_target(model, "random", request, never) == (request, None)
    assert isinstance(CostLeft(model, x[:1], never), CostLeft)
    assert replace(request).once("scores", lambda: 1) == request.once("scores", lambda: 2) == 1
