"""How much of the training data a method looks at, and what the result and the report say of it."""

import csv

import pytest
import torch
from support.tiny_classification import run, tiny

from classify.data.images import at_most_of_each
from study.config.pruning import CalibrationData


def test_as_many_of_each_class_as_there_are():
    labels = torch.tensor([0, 0, 0, 1, 3, 3])
    assert at_most_of_each(labels, 2) == 5 and at_most_of_each(labels, 9) == 6
    assert CalibrationData(per_class=2).n_images(labels) == 5 and CalibrationData(images=4).n_images(labels) == 4


def test_two_numbers_of_images_are_refused():
    with pytest.raises(ValueError, match=r"prune\.calibration: per_class 2 and images 20 both say how many images"):
        tiny({"prune": {"method": "thinet", "calibration": {"images": 20, "per_class": 2}}})


def test_what_choosing_took_is_in_the_result_and_in_the_report(tmp_path):
    variants = {
        "blind": {"prune": {"method": "l1_filter", "ratio": 0.5}},
        "seeing": {"prune": {"method": "thinet", "ratio": 0.5, "calibration": {"per_class": 1}}},
    }
    changes = {"pipelines": ["unpruned", "fine_tune"], "variants": variants, "classifier.train.epochs": 1}
    routes = run(tmp_path / "runs", changes)
    found = {
        route.point["variant"]: route.evaluation.parents[0].run(tmp_path / "runs").read_result()
        for (pipeline, *_), route in routes.items()
        if pipeline == "fine_tune"
    }
    assert found["seeing"]["calibration_images"] == 10 and "calibration_images" not in found["blind"]
    assert found["seeing"]["prune_seconds"] > 0
    (file,) = (tmp_path / "runs").rglob("comparison.csv")
    with file.open() as lines:
        told = {row["variant"]: row["prune_seconds"] for row in csv.DictReader(lines)}
    assert told[""] == "" and float(told["seeing"]) == found["seeing"]["prune_seconds"]
    assert "choosing what to prune" in file.with_name("report.html").read_text()
