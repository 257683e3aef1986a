"""The report warns where stages of one data set saw different contents."""

from support.fabricated_study import a_comparison

from study.report.provenance import warnings
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
