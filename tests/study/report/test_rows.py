"""comparison.json from the typed rows, and back: its keys, their order and its values are what they have been."""

import json
import re
import sys

import pytest
from support.fabricated_study import fabricate

import study
from pruning.errors import Failure, Refusal
from study.report.claims.claim import Claim
from study.report.closing import closing
from study.report.rows import Basis, Comparison, Measured, Missing, Row, StageResult, Step, load_comparison

DETECT = Step("detect", "train_detector", "train_detector-b/seed0", 700, 2.26, False)
CHAIN = (
    Step("classify", "train_classifier", "train_classifier-a/seed0", 300, 1.5, True),
    Step("prune", "prune", "prune-a/seed0", 0, 0.25, True),
    DETECT,
)
DETECTOR = Measured({"AP": 41.5, "APs": None}, {"detector_macs": 9}, {"cat": 40.0, "dog": None})
CLASSIFIER = Measured({"top1": 93.0}, {"params": 5, "epochs": 160}, None, {"pruned_top1": 10.0})
# Written out as the report wrote it before there were dataclasses: the text of comparison.json, order included.
DETECTOR_ROW = """{"pipeline": "scratch_e", "point": {"prune.ratio": 0.5}, "seed": 0, "AP": 41.5, "APs": null,
 "per_class": {"cat": 40.0, "dog": null}, "detector_macs": 9, "latency_ms": 3.5, "train_macs": 1000,
 "precision": "float32", "train_macs_by_kind": {"train_classifier": 300, "train_detector": 700}, "seconds": 4.0,
 "chain": [{"step": "classify", "kind": "train_classifier", "run": "train_classifier-a/seed0", "train_macs": 300,
 "seconds": 1.5, "shared": true}, {"step": "prune", "kind": "prune", "run": "prune-a/seed0", "train_macs": 0,
 "seconds": 0.25, "shared": true}, {"step": "detect", "kind": "train_detector", "run": "train_detector-b/seed0",
 "train_macs": 700, "seconds": 2.26, "shared": false}]}"""
CLASSIFIER_ROW = """{"pipeline": "pruned", "point": {}, "seed": 1, "top1": 93.0, "params": 5, "epochs": 160,
 "pruned_top1": 10.0, "latency_ms": null, "train_macs": 0, "precision": "", "train_macs_by_kind": {}, "seconds": 0,
 "chain": []}"""
COMPARISON = """{"study": "s", "task": "detection", "title": "T", "config_file": "c.yaml", "config": {"seeds": [0]},
 "config_yaml": "seeds: [0]", "seeds": [0], "evaluation": {"dataset": "digits"}, "grid": {"prune.ratio": [0.5]},
 "rows": [ROW], "missing": [{"pipeline": "p", "seed": 1, "point": {}, "why": "w"}], "gaps": ["g"],
 "stages": {"train_detector-b/seed0": {"kind": "train_detector", "step": "detect", "result": {"seconds": 1}}},
 "claims": [{"statement": "a > b", "place": "", "verdict": "undecided", "estimate": 1.5, "low": null, "high": null,
 "confidence": null, "n": 1, "df": null, "p": null, "detectable": null, "power": null, "method": "", "scope": "",
 "source": "w"}]}"""
CLAIM = Claim("a > b", "", "undecided", 1.5, None, None, None, 1, None, None, None, None, "", "", "w")


def comparison():
    return Comparison(
        study="s",
        task="detection",
        title="T",
        config_file="c.yaml",
        config={"seeds": [0]},
        config_yaml="seeds: [0]",
        seeds=(0,),
        evaluation=Basis("digits"),
        grid={"prune.ratio": [0.5]},
        rows=(Row("scratch_e", {"prune.ratio": 0.5}, 0, DETECTOR, 3.5, "float32", CHAIN),),
        missing=(Missing("p", 1, {}, "w"),),
        gaps=("g",),
        stages={DETECT.run: StageResult("train_detector", "detect", {"seconds": 1})},
        claims=(CLAIM,),
    )


def line(text):
    return text.replace("\n", "")


@pytest.mark.parametrize(
    "row, wanted",
    [
        (comparison().rows[0], DETECTOR_ROW),
        (Row("pruned", {}, 1, CLASSIFIER, None, "", ()), CLASSIFIER_ROW),
    ],
)
def test_row_is_the_row_of_comparison_json(row, wanted):
    assert json.dumps(row.to_json()) == line(wanted)


def test_comparison_is_comparison_json_and_is_read_again(tmp_path):
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps(comparison().to_json()))
    assert file.read_text() == line(COMPARISON).replace("ROW", line(DETECTOR_ROW))
    again = load_comparison(file)
    assert again.to_json() == comparison().to_json()
    assert again.rows[0].chain == CHAIN and again.stages == comparison().stages and again.missing[0].why == "w"


def test_file_of_an_earlier_version_has_no_precision():
    content = comparison().to_json()
    del content["rows"][0]["precision"]
    assert Comparison.from_json(content).rows[0].precision == ""


def test_file_of_an_earlier_version_has_no_claims():
    content = comparison().to_json()
    del content["claims"]
    assert Comparison.from_json(content).claims == ()


def test_the_end_of_a_study_has_a_line_a_route_and_the_answer(tmp_path):
    first, *answer = closing(comparison(), tmp_path)
    assert first == "scratch_e (prune.ratio = 0.5): AP 41.5 (n = 1)"
    assert " ".join(answer) == "scratch_e is the only one of the pruned routes with a result: 41.5 AP, n = 1 seed."


def test_the_end_says_where_no_seed_has_a_score(tmp_path):
    content = comparison().to_json()
    content["rows"][0]["AP"] = None
    first, *_ = closing(Comparison.from_json(content), tmp_path)
    assert first == "scratch_e (prune.ratio = 0.5): no AP"


def test_the_end_has_intervals_and_fits_a_terminal(tmp_path):
    content = fabricate(tmp_path, seeds=(0, 1, 2))
    lines = closing(Comparison.from_json(content), tmp_path)
    (line,) = (line for line in lines if line.startswith("scratch_b"))
    assert re.fullmatch(r"scratch_b: AP 60\.1 ± 0\.5 \(n = 3\), −2\.9 \[−4\.0, −1\.\d\] to unpruned", line)
    assert max(map(len, lines)) < 80
    assert "No route is shown to be best among the pruned routes; the highest mean is" in " ".join(lines)


def test_the_face_of_the_study_takes_a_directory_or_a_file(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(comparison().to_json()))
    assert study.load_comparison(str(tmp_path)) == study.load_comparison(tmp_path / "comparison.json") == comparison()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("absent", None, "absent: there is no such file or directory"),
        (".", None, "not the directory of a study with a report"),
        ("a.json", "{", "not readable as JSON"),
        ("a.json", '{"rows": []}', "not the comparison of a study .KeyError: 'seeds'"),
        ("a.json", "[]", "not the comparison of a study .TypeError"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path, name, text, why):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(Refusal, match=why):
        study.load_comparison(tmp_path / name)


def test_frame_has_a_line_a_row_and_no_nested_value():
    pytest.importorskip("pandas")
    (line,) = comparison().frame().to_dict("records")
    assert list(line)[:4] == ["pipeline", "prune.ratio", "seed", "AP"] and line["prune.ratio"] == 0.5
    assert line["AP"] == 41.5 and line["train_macs"] == 1000 and "chain" not in line and "per_class" not in line


def test_frame_without_pandas_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Failure, match="a frame needs pandas, which is not installed: pip install pandas"):
        comparison().frame()
