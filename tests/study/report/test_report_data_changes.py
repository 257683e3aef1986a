"""The report warns where stages of one data set saw different contents."""

from study.report.findings import warnings


def stage(kind, name, fingerprint):
    return {"kind": kind, "result": {"settings": {"dataset": {"name": name}}, "data": {"fingerprint": fingerprint}}}


def test_equal_data_is_no_warning_and_changed_data_is_one():
    stages = {
        "a": stage("train_classifier", "digits", "1" * 64),
        "b": stage("train_classifier", "digits", "1" * 64),
        "c": stage("train_classifier", "other", "2" * 64),
        "d": {"kind": "prune", "result": {}},
    }
    assert warnings({"stages": stages}) == []
    stages["b"] = stage("train_classifier", "digits", "3" * 64)
    (message,) = warnings({"stages": stages})
    assert message.startswith("The stages of kind train_classifier ran on 2 different contents of one data set")


def test_what_was_left_out_of_a_data_set_is_said_once():
    noted = {"kind": "train_classifier", "result": {"data": {"notes": ["2 broken images of 100 are skipped"]}}}
    assert warnings({"stages": {"a": noted, "b": noted}}) == ["Data: 2 broken images of 100 are skipped"]
