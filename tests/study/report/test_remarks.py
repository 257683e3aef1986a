"""What a report says of its own tables in a sentence: made-up times."""

from dataclasses import replace

import pytest
from support.fabricated_study import a_comparison, a_row, a_step

from detect.heads import HEADS
from study.report.differences import Differences
from study.report.remarks import counted_on_regions, distilled, slower
from study.report.routes import group_routes
from study.report.rows import StageResult
from study.report.tables import Cell, comparison_csv, main_table
from study.report.topic import DETECTION


def timed(pipeline, seed, times=None):
    """A row with the first quartile, the median and the third quartile of its times."""
    chain = [a_step("train_classifier", "a")] + [a_step("prune", "b")] * (pipeline != "unpruned")
    first, median, third = times or (None, 3.0, None)
    spread = {"latency_first_quartile_ms": first, "latency_third_quartile_ms": third, "latency_rounds": 20}
    return replace(a_row(pipeline, seed, chain, AP=1.0, **(spread if times else {})), latency_ms=median)


def remarks(small, dense=((1.9, 2.0, 2.1), (2.0, 2.1, 2.2))):
    rows = [timed("scratch_e", seed, times) for seed, times in enumerate(small)]
    rows += [timed("unpruned", seed, times) for seed, times in enumerate(dense)]
    return list(slower(group_routes(rows)))


def test_a_pruned_network_that_is_slower_is_named():
    assert remarks([(2.3, 2.5, 2.6), (2.4, 2.7, 2.8)]) == [
        "scratch_e is slower than unpruned, though pruned: 2.6 ms against 2.0 ms for one image on the same machine."
    ]


def test_nothing_is_said_where_the_times_overlap_or_their_spread_is_not_known():
    assert remarks([(2.1, 2.5, 2.6), (2.4, 2.6, 2.7)]) == []  # one seed reaches into the unpruned network's
    assert remarks([(1.0, 1.1, 1.2)]) == []
    assert remarks([None, (2.4, 2.6, 2.7)]) == []  # a report of an earlier version


def test_the_table_has_the_spread_over_seeds_and_no_column_of_what_is_not_known():
    routes = group_routes([timed("scratch_e", 0, (2.2, 2.5, 2.6)), timed("scratch_e", 1, (2.3, 2.7, 2.8))])
    table = main_table(routes, (), DETECTION, Differences(routes, "AP"))
    cells = dict(zip(table.columns, table.lines[0].cells, strict=True))
    assert cells["latency"] == Cell("2.6 ms", ("2.2 to 2.8 (n = 40)",))
    assert not [name for name in table.columns if "activations" in name]


def test_masks_have_a_column_where_they_were_measured():
    boxes, masks = a_row("unpruned", 0, [], AP=40.0), a_row("scratch_e", 0, [], AP=39.0, mask_AP=31.25)
    made = [group_routes(rows) for rows in ([boxes], [boxes, masks])]
    plain, also = (main_table(routes, (), DETECTION, Differences(routes, "AP")) for routes in made)
    assert plain.scores == ("AP", "AP50", "AP75") and also.scores == ("AP", "AP50", "AP75", "mask AP")
    cells = [dict(zip(also.columns, line.cells, strict=True))["mask AP"] for line in also.lines]
    assert [cell.text for cell in cells] == ["–", "31.2"]
    assert comparison_csv(a_comparison([boxes, masks])).splitlines()[0].endswith(",mask_AP")
    assert "mask_AP" not in comparison_csv(a_comparison([boxes]))


def said_of_teachers(*variants):
    """Of one route in two variants with a fine-tuning of 1000 MACs, 100 of them a teacher's in the variants named."""
    rows, stages = [], {}
    for variant in ("plain", "taught"):
        step = replace(a_step("train_classifier", variant), step="fine_tune", train_macs=1000)
        rows.append(a_row("prune_then_transfer", 0, [step], point={"variant": variant}, AP=1.0))
        result = {"teacher_macs": 100} if variant in variants else {}
        stages[step.run] = StageResult("train_classifier", "fine_tune", result)
    return list(distilled(group_routes(rows), stages))


def test_who_had_a_teacher_is_said_with_its_share_of_the_cost():
    assert said_of_teachers() == []
    (some,), (all_of_them,) = said_of_teachers("taught"), said_of_teachers("plain", "taught")
    begins = "Distilled from the unpruned network of the same seed: fine_tune of prune_then_transfer"
    assert some.startswith(f"{begins} (variant = taught). The teacher's forward passes are 10.0 % of these routes'")
    assert all_of_them.startswith(f"{begins}. The teacher's forward passes are 10.0 % of these routes'")


def counted(*heads):
    """What is said of detectors with these heads; None: one that does not name its own."""
    models = [{} if head is None else {"head": head} for head in heads]
    stages = {
        f"train_detector-{k}/seed0": StageResult("train_detector", "detect", {"settings": {"model": model}})
        for k, model in enumerate(models)
    }
    return counted_on_regions(stages | {"prune-a/seed0": StageResult("prune", "prune", {"settings": {}})})


@pytest.mark.parametrize("head", HEADS)
def test_costs_are_said_to_count_what_the_head_has(head):
    said = counted(head, head)
    assert ("proposal" in said) == (HEADS[head].roi_heads is not None)
    assert ("mask head" in said) == HEADS[head].masks
    assert said == counted(head)


def test_detectors_of_one_stage_are_told_from_those_with_regions():
    assert counted(None) == "Their MACs and activations count the box head on every proposal."
    assert counted("retinanet") == ""
    both = "count the box head on every proposal (head: fpn); nothing on regions (head: retinanet)."
    assert counted(None, "retinanet").endswith(both)
