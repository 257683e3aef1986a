"""What prunings could not remove is said in the report, with its reason."""

from support.fabricated_study import a_comparison

from study.report.provenance import warnings
from study.report.rows import StageResult


def stage(removed, asked, beyond, method="l1_filter"):
    achieved = {"unit": "channels", "asked": asked, "removed": removed, "beyond": beyond}
    return StageResult("prune", "prune", {"settings": {"method": method}, "achieved": achieved})


def out_of_reach(why, channels, *layers):
    return {"why": why, "channels": channels, "layers": list(layers)}


GROUPED = out_of_reach("one of its layers is a grouped convolution", 12160, "a", "b", "c", "d")


def test_each_pruning_says_once_what_it_could_not_remove_and_why():
    both = [GROUPED, out_of_reach("its channels are sliced apart", 8, "e")]
    stages = {
        "seed0": stage(16, 6096, both),
        "seed1": stage(16, 6096, both),
        "budget": stage(4, None, [GROUPED], "uniform"),
        "whole": stage(8, 8, []),
        "train": StageResult("train_classifier", "classify", {}),
    }
    assert warnings(a_comparison(stages=stages)) == [
        "l1_filter removed 16 of 6,096 asked channels; out of its reach: 12,160 channels of 4 layers (a, b, c, ...):"
        " one of its layers is a grouped convolution; 8 channels of 1 layer (e): its channels are sliced apart.",
        "uniform removed 4 channels; out of its reach: 12,160 channels of 4 layers (a, b, c, ...): one of its layers is"
        " a grouped convolution.",
    ]


def test_a_cost_that_whole_channels_cannot_meet_is_told_beside_the_one_that_was_asked_for():
    def pruned(asked, left, quantity="macs"):
        reached = {"quantity": quantity, "asked": asked, "left": left, "ratio": 0.5}
        achieved = {"unit": "channels", "asked": None, "removed": 4, "beyond": [], "reached": reached}
        return StageResult("prune", "prune", {"settings": {"method": "l1_filter"}, "achieved": achieved})

    stages = {"near": pruned(0.5, 0.509), "off": pruned(0.5, 0.4751), "again": pruned(0.5, 0.4751)}
    assert warnings(a_comparison(stages={**stages, "params": pruned(0.3, 0.34, "params")})) == [
        "l1_filter was to leave 50.0 % of the multiply-adds and leaves 47.5 %.",
        "l1_filter was to leave 30.0 % of the parameters and leaves 34.0 %.",
    ]


def test_further_reasons_are_counted():
    many = [out_of_reach(f"reason {i}", 1, "a") for i in range(5)]
    (note,) = warnings(a_comparison(stages={"s": stage(1, 9, many)}))
    assert "reason 2" in note and "reason 3" not in note and note.endswith("2 more reasons are in the result.")
