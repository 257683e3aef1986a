"""What a report says of its own tables in a sentence: made-up times."""

from dataclasses import replace

from support.fabricated_study import a_row, a_step

from study.report.differences import Differences
from study.report.remarks import distilled, slower
from study.report.routes import group_routes
from study.report.rows import StageResult
from study.report.tables import Cell, main_table
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
