"""Selection: counts, ties, skips, stages, and the refusals."""

import pytest
import torch

from pruning.graph.members import Group, Member
from pruning.select import Selection, check_stages, count_left, count_to_keep, counts, eligible, keep_indices, select


def group(name, width, *, producers=1, stage=-1, fixed=None):
    names = (name, *(f"{name}.more{i}" for i in range(1, producers)))
    positions = tuple((c,) for c in range(width))
    return Group(name, width, names, (Member(name, "out", positions),), stage, fixed)


def names(groups):
    return [g.name for g in groups]


@pytest.mark.parametrize(
    ("scores", "n_keep", "kept"),
    [
        ([3, 1, 2], 2, (0, 2)),
        ([1, 2, 3], 1, (2,)),
        ([5, 5, 5, 5], 2, (0, 1)),
        ([1, 5, 5, 5], 2, (1, 2)),
        ([-1, -3, -2], 3, (0, 1, 2)),
        ([0.0], 1, (0,)),
    ],
)
def test_highest_scores_stay_and_ties_keep_the_lower_index(scores, n_keep, kept):
    assert keep_indices(torch.tensor(scores), n_keep) == kept


def test_many_ties_keep_the_lower_indices():
    """An unstable sort leaves short rows in order and shuffles long ones."""
    assert keep_indices(torch.ones(5000), 1700) == tuple(range(1700))


@pytest.mark.parametrize("n_keep", [0, 4, -1])
def test_count_out_of_range_is_refused(n_keep):
    with pytest.raises(ValueError, match=rf"n_keep={n_keep} is outside 1..3"):
        keep_indices(torch.zeros(3), n_keep)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_score_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        keep_indices(torch.tensor([1.0, bad]), 1)


@pytest.mark.parametrize(
    ("width", "ratio", "kept"),
    [
        (10, 0.9, 1),  # 10 * (1 - 0.9) is 0.9999999999999998
        (10, 0.8, 2),
        (10, 0.7, 3),
        (100, 0.99, 1),
        (64, 0.1, 57),
        (64, 0.3, 44),
        (64, 0.5, 32),
        (256, 0.7, 76),
        (512, 0.65, 179),
        (3, 1 / 3, 2),
        (3, 2 / 3, 1),
        (49, 48 / 49, 1),
        (1, 0.0, 1),
        (16, 0.0, 16),
        (16, 0.95, 0),
    ],
)
def test_count_truncates_without_losing_one_to_rounding(width, ratio, kept):
    assert count_to_keep(width, ratio) == kept


@pytest.mark.parametrize("width", range(1, 130))
def test_count_is_exact_for_every_removable_fraction(width):
    assert [count_to_keep(width, k / width) for k in range(width)] == [width - k for k in range(width)]


@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "kept"),
    [(64, 0.1, 8, 56), (64, 0.3, 8, 48), (64, 0.99, 8, 8), (60, 0.0, 8, 60), (4, 0.5, 8, 4), (64, 0.3, 1, 44)],
)
def test_counts_round_to_a_multiple_within_the_layer(width, ratio, round_to, kept):
    assert count_to_keep(width, ratio, round_to) == kept


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan")])
def test_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="outside 0 <= ratio < 1"):
        Selection(ratio=ratio)
    with pytest.raises(ValueError, match="outside 0 <= ratio < 1"):
        Selection(ratio=(0.1, ratio))
    with pytest.raises(ValueError, match="outside 0 <= ratio < 1"):
        Selection(layers={"conv1": ratio})


@pytest.mark.parametrize("extra", [{"layers": {"a": 0.1}}, {"round_to": 8}, {"ratio": (0.1, 0.2)}])
def test_global_level_takes_one_ratio(extra):
    with pytest.raises(ValueError, match="level 'global' takes one ratio"):
        Selection(**{"ratio": 0.5, "level": "global", **extra})


def test_round_to_below_one_is_refused():
    with pytest.raises(ValueError, match="round_to=0"):
        Selection(round_to=0)


def test_ratio_that_empties_a_layer_names_it_and_the_highest_ratio():
    with pytest.raises(ValueError, match=r"ratio 0\.9 leaves no channel of 4 in layer1\.0\.conv1; .* is 0\.75"):
        counts([group("layer1.0.conv1", 4)], Selection(ratio=0.9))


def test_ratios_by_stage():
    groups = [group("a", 10, stage=0), group("b", 10, stage=1), group("c", 10, stage=1)]
    assert counts(groups, Selection(ratio=(0.1, 0.6))) == {"a": 9, "b": 4, "c": 4}


@pytest.mark.parametrize("stage", [-1, 2])
def test_group_without_a_ratio_for_its_stage_is_refused(stage):
    with pytest.raises(ValueError, match=rf"2 ratios by stage, but stem is in stage {stage + 1}"):
        counts([group("stem", 10, stage=stage)], Selection(ratio=(0.1, 0.6)))


def test_layer_ratios_come_before_the_general_one():
    groups = [group("layer1.conv1", 10), group("layer1.conv2", 10), group("layer2.conv1", 10)]
    selection = Selection(ratio=0.5, layers={"layer1.conv2": 0.9, "layer1.*": 0.2})
    assert counts(groups, selection) == {"layer1.conv1": 8, "layer1.conv2": 1, "layer2.conv1": 5}


def test_the_order_of_layer_ratios_does_not_matter():
    """A stage's hash does not know it: the same run would stand for two results."""
    groups = [group("layer1.conv1", 10), group("layer1.conv2", 10)]
    turned = Selection(ratio=0.5, layers={"layer1.*": 0.2, "layer1.conv2": 0.9})
    assert counts(groups, turned) == {"layer1.conv1": 8, "layer1.conv2": 1}
    message = r"layers: 'layer1\.\*' and '\*\.conv2' fit layer1\.conv2 and give it different ratios; name it in full"
    with pytest.raises(ValueError, match=message):
        counts(groups, Selection(layers={"layer1.*": 0.2, "*.conv2": 0.9}))
    assert counts(groups, Selection(layers={"layer1.*": 0.2, "*.conv2": 0.2})) == {"layer1.conv1": 8, "layer1.conv2": 8}


@pytest.mark.parametrize(("name", "more"), [("trunk", {}), ("fixed", {}), ("inner", {"skip": ("inner",)})])
def test_a_ratio_for_a_layer_that_is_left_whole_is_refused(name, more):
    groups = [group("trunk", 4, producers=3), group("fixed", 4, fixed="it is grouped"), group("inner", 4)]
    groups.append(group("other", 4))
    selection = Selection(layers={name: 0.25}, **more)
    with pytest.raises(ValueError, match=f"layers: '{name}' asks 0.25 of layers that are not narrowed here: .* other"):
        counts(eligible(groups, selection), selection)


def test_ratios_of_more_stages_than_there_are_are_refused():
    check_stages(Selection(ratio=(0.1, 0.2, 0.3)), 3)
    check_stages(Selection(ratio=0.5), 0)
    with pytest.raises(ValueError, match=r"ratio: \[0\.1, 0\.2, 0\.3\] are ratios of 3 stages, and the network has 2"):
        check_stages(Selection(ratio=(0.1, 0.2, 0.3)), 2)


def test_skip_takes_names_and_patterns():
    groups = [group("conv1", 4), group("layer1.0.conv1", 4), group("layer1.1.conv1", 4), group("layer2.0.conv1", 4)]
    assert names(eligible(groups, Selection(skip=("layer1.*",)))) == ["conv1", "layer2.0.conv1"]
    assert names(eligible(groups, Selection(skip=("conv1", "*.1.conv1")))) == ["layer1.0.conv1", "layer2.0.conv1"]


@pytest.mark.parametrize("skip", ["trunk", "trunk.more2", "*.more2"])
def test_a_group_is_skipped_with_any_layer_that_computes_its_channels(skip):
    """To narrow the group is to narrow that layer, which was to be left whole."""
    groups = [group("trunk", 4, producers=3), group("inner", 4)]
    assert names(eligible(groups, Selection(scope="all", skip=(skip,)))) == ["inner"]


@pytest.mark.parametrize("extra", [{"skip": ("conv9",)}, {"layers": {"conv9": 0.5}}])
def test_unknown_layer_is_refused_with_the_known_ones(extra):
    with pytest.raises(ValueError, match=r"no layer matches 'conv9'; prunable layers: conv1, conv2"):
        eligible([group("conv1", 4), group("conv2", 4)], Selection(**extra))


def test_scope_inner_leaves_coupled_and_fixed_groups_whole():
    groups = [group("trunk", 4, producers=3), group("inner", 4), group("grouped", 4, fixed="it is grouped")]
    assert names(eligible(groups, Selection())) == ["inner"]
    assert names(eligible(groups, Selection(scope="all", skip=("grouped",)))) == ["trunk", "inner"]


def test_scope_all_refuses_a_fixed_group_with_its_reason():
    groups = [group("trunk", 4, producers=3, fixed="a shortcut pads"), group("inner", 4)]
    with pytest.raises(ValueError, match=r"trunk cannot be narrowed: a shortcut pads; add it to `skip`"):
        eligible(groups, Selection(scope="all"))


def test_nothing_left_to_prune_is_refused():
    with pytest.raises(ValueError, match="nothing to prune"):
        eligible([group("conv1", 4)], Selection(skip=("*",)))
    with pytest.raises(ValueError, match="nothing to prune"):
        eligible([], Selection())


def test_layer_level_takes_the_same_share_of_each():
    scores = {"a": torch.tensor([4.0, 3.0, 2.0, 1.0]), "b": torch.tensor([10.0, 40.0, 30.0, 20.0])}
    assert select(scores, [group("a", 4), group("b", 4)], Selection()) == {"a": (0, 1), "b": (1, 2)}


def test_global_level_takes_the_lowest_of_the_network():
    scores = {"a": torch.tensor([4.0, 3.0, 2.0, 1.0]), "b": torch.tensor([10.0, 0.5, 30.0, 20.0])}
    kept = select(scores, [group("a", 4), group("b", 4)], Selection(ratio=0.375, level="global"))
    assert kept == {"a": (0, 1), "b": (0, 2, 3)}


def test_global_level_spares_the_best_channel_of_a_layer_and_stays_exact():
    scores = {"weak": torch.tensor([1.0, 3.0, 2.0]), "strong": torch.tensor([9.0, 7.0, 8.0, 10.0, 6.0])}
    kept = select(scores, [group("weak", 3), group("strong", 5)], Selection(ratio=0.5, level="global"))
    # of 8 channels 4 go: 1 and 2, not 3 (the last of its layer), then 6 and 7
    assert kept == {"weak": (1,), "strong": (0, 2, 3)}


def test_global_level_on_ties_removes_exactly_the_count_from_the_back():
    scores = {"a": torch.ones(3), "b": torch.ones(5)}
    kept = select(scores, [group("a", 3), group("b", 5)], Selection(ratio=0.5, level="global"))
    assert kept == {"a": (0, 1, 2), "b": (0,)}


def test_global_ratio_that_would_empty_a_layer_is_refused():
    scores = {"a": torch.ones(3), "b": torch.ones(5)}
    with pytest.raises(ValueError, match=r"ratio 0\.9 would empty a layer: .* 7 of 8 .* is 0\.75"):
        select(scores, [group("a", 3), group("b", 5)], Selection(ratio=0.9, level="global"))


@pytest.mark.parametrize(("total", "ratio", "left"), [(5504, 0.7, 1652), (100, 0.29, 71), (8, 0.8, 2), (7, 0.0, 7)])
def test_one_ranking_rounds_down_what_goes(total, ratio, left):
    """5504 scales of VGG-19 at 70 %: int(3852.8) go."""
    assert count_left(total, ratio) == left


def test_ratio_zero_keeps_everything():
    groups = [group("a", 3), group("b", 5)]
    scores = {"a": torch.rand(3), "b": torch.rand(5)}
    for level in ("layer", "global"):
        kept = select(scores, groups, Selection(ratio=0.0, level=level))
        assert kept == {"a": (0, 1, 2), "b": (0, 1, 2, 3, 4)}
