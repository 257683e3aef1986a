"""When a detector is pruned: the share of its training before, and what follows after."""

import pytest
from support.stages_alone import run_alone
from support.tiny_study import tiny

PIPELINE = "pipelines=[unpruned, transfer_then_prune]"


def lengths(*overrides):
    """Iterations before and after pruning of the planned `transfer_then_prune`, of 4 in all."""
    _, routes = tiny("pipelines=[transfer_then_prune]", *overrides)
    trained = [s for s in routes[0].stages if s.kind == "train_detector"]
    return [stage.settings["train"]["iterations"] for stage in trained]


@pytest.mark.parametrize(
    ("at", "after", "expected"),
    [(0.5, "rest", [2, 2]), (0, "rest", [0, 4]), (0.5, "full", [2, 4]), (1, "full", [4, 4]), (0, "full", [0, 4])],
)
def test_the_iterations_are_split_where_the_config_says(at, after, expected):
    assert lengths(f"detector.prune_at={at}", f"detector.after_pruning={after}") == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["detector.prune_at=1"], "prune_at: 1 leaves no iteration after pruning; set after_pruning: full"),
        (["detector.prune_at=0.05"], "train.iterations=4 cannot be split at prune_at: 0.05"),
        (["detector.prune_at=1.5"], r"detector.prune_at: 1.5 .*at most 1"),
        (["detector.fine_tune_share=0.3"], "fine_tune_share has become prune_at, its complement"),
        (["detector.prune_at=0", "prune={method: slimming, ratio: 0.3}"], "leaves no training for slimming to act on"),
        (
            ["detector.train.validate_every=2", "detector.train.keep=best", "prune={method: slimming, ratio: 0.3}"],
            "slimming acts on the training to its last step, so keep: best and patience do not go with it",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(overrides, words):
    with pytest.raises(ValueError, match=words):
        lengths(*overrides)


def test_the_axis_is_a_grid_of_one_study_whose_other_routes_run_once(tmp_path):
    config, routes = tiny(PIPELINE, "grid={detector.prune_at: [0, 0.5]}")
    assert [route.point for route in routes] == [{}, {"detector.prune_at": 0}, {"detector.prune_at": 0.5}]
    run_alone(config, routes, tmp_path)
    early, late = ([s.run(tmp_path).read_result() for s in route.stages] for route in routes[1:])
    trained = [[r for r in results if r["kind"] == "train_detector"] for results in (early, late)]
    assert [[r["iterations"] for r in results] for results in trained] == [[0, 4], [2, 2]]
    assert trained[0][0]["train_macs"] == trained[0][0]["images_seen"] == 0
    assert trained[0][0]["metrics"] == {"final_loss": None}  # nothing was trained, so there is no loss
    # the pruned network is the smaller one, so the earlier it is pruned, the less the same iterations cost
    assert sum(r["train_macs"] for r in early) < sum(r["train_macs"] for r in late)
