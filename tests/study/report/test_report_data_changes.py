"""What the report says of where its stages come from: their data, and when they ran."""

import pytest
from support.fabricated_study import a_comparison
from support.tiny_classification import tiny

from study.report.comparison import collect
from study.report.provenance import provenance, warnings
from study.report.rows import StageResult


def stage(kind, name, fingerprint):
    result = {"settings": {"dataset": {"name": name}}, "data": {"fingerprint": fingerprint}}
    return StageResult(kind, kind, result)


def test_equal_data_is_no_warning_and_changed_data_is_one():
    stages = {
        "a": stage("train_classifier", "digits", "1" * 64),
        "b": stage("train_classifier", "digits", "1" * 64),
        "c": stage("train_classifier", "other", "2" * 64),
        "d": StageResult("prune", "prune", {}),
    }
    assert warnings(a_comparison(stages=stages)) == []
    stages["b"] = stage("train_classifier", "digits", "3" * 64)
    (message,) = warnings(a_comparison(stages=stages))
    assert message.startswith("The stages of kind train_classifier ran on 2 different contents of one data set")


def test_what_was_left_out_of_a_data_set_is_said_once():
    notes = {"data": {"notes": ["2 broken images of 100 are skipped"]}}
    noted = StageResult("train_classifier", "classify", notes)
    assert warnings(a_comparison(stages={"a": noted, "b": noted})) == ["Data: 2 broken images of 100 are skipped"]


def ran(*spans):
    """The date of a study whose stages began and ended at these times of 26 and 27 November; None: a run of before."""
    results = [
        {} if span is None else dict(zip(("started", "finished"), (f"2026-11-{t}:00+00:00" for t in span), strict=True))
        for span in spans
    ]
    stages = {str(k): StageResult("prune", "prune", result) for k, result in enumerate(results)}
    return provenance(a_comparison(stages=stages)).date


def test_the_date_is_from_the_first_start_to_the_last_end():
    assert ran(("26T17:20", "26T17:25"), ("26T17:18", "26T17:19")) == "2026-11-26 17:18 to 17:25 UTC"
    assert ran(("26T23:50", "27T00:10")) == "2026-11-26 23:50 to 2026-11-27 00:10 UTC"


def test_stages_that_do_not_say_when_they_ran_are_counted():
    assert ran(None) == ""
    assert ran(None, ("26T17:20", "26T17:25")) == (
        "2026-11-26 17:20 to 17:25 UTC, 1 of 2 stages do not say when they ran"
    )


@pytest.mark.parametrize(("sizes", "mixed"), [([32], False), ([32, 48], True)])
def test_a_grid_that_varies_the_test_images_is_said(tmp_path, sizes, mixed):
    grid = {"classifier.dataset.options.image_size": sizes}
    config, routes = tiny({"pipelines": ["unpruned"], "grid": grid})
    for route in routes:
        stage, size = route.evaluation, route.evaluation.settings["dataset"]["options"]["image_size"]
        network = {"num_classes": 10, "image_size": size, "mean": [0.5] * 3, "std": [0.5] * 3, "params": 1, "macs": 1}
        metrics = {"test_top1": 90.0, "test_top5": 99.0, "val_top1": 90.0, "test_images": 20}
        stage.run(tmp_path).path.mkdir(parents=True)
        result = {"metrics": metrics, "network": network, "data": {"fingerprint": f"at {size}"}}
        stage.run(tmp_path).write_result({**result, "train_macs": 1, "seconds": 1.0})
    gaps = collect(config, "tiny.yaml", routes, tmp_path, {}).gaps
    expected = "Routes are measured on 2 sets or sizes of test images: scores compare only where these are the"
    assert [gap.startswith(expected) for gap in gaps if "Latency" not in gap] == ([True] if mixed else [])
