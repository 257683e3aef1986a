"""Single weights: exact counts, ties, the released rule, the random control, and tickets."""

import pytest
import torch
from support.small_networks import Plain, ThreeConvs, residual_network
from torch import nn

from classify.models import build
from pruning.graph.groups import find_groups
from pruning.masks import Masks
from pruning.methods import Request, get_method
from pruning.methods.lottery import LotteryOptions, rewind
from pruning.methods.magnitude import MagnitudeOptions
from pruning.methods.uniform_weights import UniformWeightsOptions
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.select_weights import keep_above, keep_largest
from pruning.surgery import apply


def masks_by(method, model, selection, options=None, seed=0):
    entry = get_method(method)
    return entry.prune(model, Request([], selection, options or entry.options(), seed)).masks


def flat(masks):
    return {name: mask.int().flatten().tolist() for name, mask in masks.items()}


def test_one_threshold_goes_over_all_convolutions():
    """|w| is (1, 3, 2), (1, 2, 3, .5, .5, 1), (1, 10): of 11 weights int(11 * .55) = 6 go."""
    assert flat(masks_by("magnitude", ThreeConvs(), Selection(0.55))) == {
        "conv1.weight": [0, 1, 1],
        "conv2.weight": [0, 1, 1, 0, 0, 0],
        "conv3.weight": [0, 1],
    }


def test_each_layer_may_have_its_own_threshold():
    options = MagnitudeOptions(level="layer")
    assert flat(masks_by("magnitude", ThreeConvs(), Selection(0.5), options)) == {
        "conv1.weight": [0, 1, 0],
        "conv2.weight": [1, 1, 1, 0, 0, 0],  # ties keep the lower index
        "conv3.weight": [0, 1],
    }
    selection = Selection(0.5, layers={"conv1": 0.0}, skip=("conv3",))
    assert flat(masks_by("magnitude", ThreeConvs(), selection, options)) == {
        "conv1.weight": [1, 1, 1],
        "conv2.weight": [1, 1, 1, 0, 0, 0],
    }


def test_linear_layers_stay_dense_and_the_model_unchanged():
    model = Plain()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    masks = masks_by("magnitude", model, Selection(0.3))
    assert set(masks) == {"0.weight", "4.weight"}
    assert masks.kept() == 756  # int(1080 * .7) of 8 * 3 * 9 + 12 * 8 * 9 weights
    assert all(t.equal(before[name]) for name, t in model.state_dict().items())


def test_asked_count_is_kept_when_all_weights_are_equal():
    scores = {"a": torch.ones(6), "b": torch.ones(4)}
    assert flat(keep_largest(scores, 4)) == {"a": [1, 1, 1, 0, 0, 0], "b": [1, 0, 0, 0]}
    assert keep_largest(scores, 10).kept() == 10


def test_each_layer_keeps_its_largest_weight():
    scores = {"small": torch.tensor([0.1, 0.2]), "large": torch.tensor([5.0, 4.0, 3.0])}
    assert flat(keep_largest(scores, 3)) == {"small": [0, 1], "large": [1, 1, 0]}
    with pytest.raises(ValueError, match="1 weights cannot be kept: there are 5 in 2 layers"):
        keep_largest(scores, 1)


def test_released_rule_removes_one_more_and_ties_with_it():
    scores = {"a": torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])}
    assert keep_above(scores, int(10 * 0.3)).kept() == 6
    assert keep_largest(scores, 7).kept() == 7
    assert keep_above({"a": torch.tensor([1.0, 2, 2, 2, 3])}, 1).kept() == 1


def test_released_rule_is_an_option_of_magnitude():
    model = ThreeConvs()
    # sorted |w|: .5 .5 1 1 1 1 2 2 3 3 10; the element int(11 * .54) = 5 is 1, five are above
    assert masks_by("magnitude", model, Selection(0.54), MagnitudeOptions(exact=False)).kept() == 5
    # the element int(11 * .3) = 3 is a 1 as well: all ties at the cut go, where 8 are asked for
    assert masks_by("magnitude", model, Selection(0.3), MagnitudeOptions(exact=False)).kept() == 5
    assert masks_by("magnitude", model, Selection(0.3)).kept() == 8


def test_random_control_takes_the_same_share_of_every_layer():
    model = residual_network()
    masks = masks_by("uniform_weights", model, Selection(0.75))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        name: p.numel() // 4 for name, p in model.named_parameters() if p.ndim == 4
    }
    other = masks_by("uniform_weights", model, Selection(0.75), seed=1)
    assert not masks["conv1.weight"].equal(other["conv1.weight"])
    again = masks_by("uniform_weights", model, Selection(0.75, skip=("layer1.*",)))
    assert masks["conv1.weight"].equal(again["conv1.weight"])


def test_smallest_weights_are_the_other_control():
    masks = masks_by("uniform_weights", ThreeConvs(), Selection(0.5), UniformWeightsOptions("smallest"))
    assert flat(masks) == flat(masks_by("magnitude", ThreeConvs(), Selection(0.5), MagnitudeOptions("layer")))


@pytest.mark.parametrize("method", ["magnitude", "uniform_weights", "lottery", "lamp", "gradual_magnitude", "rigl"])
@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection((0.1, 0.2)), "no ratio by stage"),
        (Selection(0.5, round_to=8), "no `round_to`"),
        (Selection(0.5, skip=("fc",)), "no convolution matches 'fc'; there are: conv1, conv2, conv3"),
        (Selection(0.5, skip=("*",)), "the network has no convolution that is not skipped"),
    ],
)
def test_what_has_no_meaning_for_weights_is_refused(method, selection, message):
    with pytest.raises(ValueError, match=message):
        masks_by(method, ThreeConvs(), selection)


@pytest.mark.parametrize("method", ["magnitude", "uniform_weights", "lottery", "lamp", "rigl"])
def test_ratios_by_layer_are_refused_where_the_method_shares_out(method):
    with pytest.raises(ValueError, match=r"`layers`|ratios by layer"):
        masks_by(method, ThreeConvs(), Selection(0.5, layers={"conv1": 0.1}))


def test_a_weight_that_is_not_finite_is_named():
    model = ThreeConvs()
    model.conv2.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"conv2\.weight is not finite"):
        masks_by("magnitude", model, Selection(0.5))


def test_second_round_prunes_what_is_left():
    """320 weights, 20 % a round: 256, then 256 - int(51.2) = 205; what went first stays away."""
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1), torch.nn.Conv2d(8, 36, 1))
    first = masks_by("lottery", model, Selection(0.2))
    assert first.kept() == 256
    first.apply(model)
    second = masks_by("lottery", model, Selection(0.2), LotteryOptions(masks=first))
    assert second.kept() == 205
    assert not any((second[name] & ~first[name]).any() for name in first)
    released = masks_by("lottery", model, Selection(0.2), LotteryOptions(masks=first, exact=False))
    assert released.kept() == 204  # one more goes


def test_a_later_round_needs_the_masks_of_the_one_before():
    model = ThreeConvs()
    first = masks_by("lottery", model, Selection(0.55))
    first.apply(model)
    with pytest.raises(ValueError, match="6 weights are zero, so this is not a first round"):
        masks_by("lottery", model, Selection(0.5))
    with pytest.raises(ValueError, match=r"removed weights of conv1\.weight are not zero"):
        masks_by("lottery", ThreeConvs(), Selection(0.5), LotteryOptions(masks=first))
    with pytest.raises(ValueError, match=r"other layers than this round: conv3\.weight"):
        masks_by("lottery", model, Selection(0.5, skip=("conv3",)), LotteryOptions(masks=first))


def test_chance_zeros_are_weights_like_others():
    """Exact zeros among normal draws: few go unnoticed, and empty masks say outright that nothing was removed."""
    model = torch.nn.Sequential(torch.nn.Conv2d(20, 50, 3, padding=1), torch.nn.Conv2d(50, 4, 1))
    model[0].weight.data[0, 0, 0, :2] = 0
    total = 50 * 20 * 9 + 200
    assert masks_by("lottery", model, Selection(0.2)).kept() == total - total // 5
    model[0].weight.data[:25] = 0
    with pytest.raises(ValueError, match="4500 weights are zero"):
        masks_by("lottery", model, Selection(0.2))
    explicit = masks_by("lottery", model, Selection(0.2), LotteryOptions(masks=Masks({})))
    assert explicit.kept() == total - total // 5


def test_rewinding_puts_back_batchnorm_and_keeps_the_mask():
    model = Plain()
    original = {name: t.clone() for name, t in model.state_dict().items()}
    masks = Masks({"0.weight": torch.arange(8 * 3 * 9).view(8, 3, 3, 3) % 2})
    model.train()(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    rewind(model, original, masks)
    for name, tensor in model.state_dict().items():
        expected = original[name] * masks[name] if name in masks else original[name]
        assert tensor.equal(expected), name
    with pytest.raises(RuntimeError, match="Missing key"):
        rewind(model, {k: v for k, v in original.items() if "running" not in k}, masks)


def test_ticket_of_filters_has_the_original_weights():
    dense = Plain()
    groups = find_groups(dense, torch.zeros(1, 3, 8, 8))
    original = {name: t.clone() for name, t in dense.state_dict().items()}
    round_ = get_method("lottery").prune(dense, Request(groups, Selection(0.5), LotteryOptions("filters"), 0))
    l1 = get_method("l1_filter").prune(dense, Request(groups, Selection(0.5), None, 0))
    assert round_.keep == l1.keep
    plan = PruningPlan("plain", {}, {"0": (1, 2)}, {"0": 8})
    again = Plain()
    again.load_state_dict(original)
    ticket = apply(again, plan, groups)
    assert ticket[0].weight.equal(original["0.weight"][[1, 2]])
    assert ticket[1].running_var.equal(original["1.running_var"][[1, 2]])


def test_wrong_options_are_refused():
    for options in (
        lambda: MagnitudeOptions(level="stage"),
        lambda: MagnitudeOptions(level="layer", exact=False),
        lambda: UniformWeightsOptions("largest"),
        lambda: LotteryOptions("neurons"),
        lambda: LotteryOptions("filters", exact=False),
    ):
        with pytest.raises(ValueError, match=r"choices|released rule"):
            options()


def test_ratio_zero_keeps_every_weight():
    model = build("resnet20", 10)
    for method in ("magnitude", "uniform_weights", "lottery"):
        assert masks_by(method, model, Selection(0.0)).density() == 1.0


def test_a_network_of_linear_layers_has_tickets_too():
    model = build("lenet_300_100", 10, {})
    masks = masks_by("lottery", model, Selection(0.2), LotteryOptions(linear=True))
    assert set(masks) == {"1.weight", "3.weight", "5.weight"}
    assert sum(int(mask.sum()) for mask in masks.values()) == int((784 * 300 + 300 * 100 + 100 * 10) * 0.8)
    with pytest.raises(ValueError, match="no convolution that is not skipped"):
        masks_by("lottery", model, Selection(0.2))


@pytest.mark.parametrize("method", ["magnitude", "uniform_weights", "lamp", "rigl"])
def test_a_weight_that_two_layers_share_is_refused(method):
    """Each would lose its share of it: with one half drawn for each, three quarters."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    model[2].weight = model[1].weight
    with pytest.raises(ValueError, match="1 and 2 share one weight, which cannot lose a share for each; `skip` them"):
        masks_by(method, model, Selection(0.5))
    assert set(masks_by(method, model, Selection(0.5, skip=("1", "2")))) == {"0.weight"}


def test_a_ratio_for_a_skipped_layer_is_refused():
    selection = Selection(0.5, layers={"conv1": 0.1}, skip=("conv1",))
    with pytest.raises(ValueError, match="layers: 'conv1' asks a ratio of layers that `skip` leaves whole"):
        masks_by("magnitude", ThreeConvs(), selection, MagnitudeOptions(level="layer"))
