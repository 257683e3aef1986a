"""A data set of one's own with images kept for validation: routes train on the rest, rates are chosen on them."""

import json

from support.tiny_detector import two_squares
from support.tiny_study import DIGITS, TINY

from study.plan.load import load_study
from study.run.study import run_study


def test_all_routes_train_on_the_rest_and_the_report_says_so(tmp_path):
    coco = json.loads(two_squares(tmp_path).annotations.read_text())
    for name, numbers in (("train", range(6)), ("test", (6, 7))):
        part = {key: [one for one in coco[key] if one.get("image_id", one["id"]) in numbers] for key in coco}
        (tmp_path / f"{name}.json").write_text(json.dumps({**part, "categories": coco["categories"]}))
    sides = ", ".join(f"{s}: {{annotations: {tmp_path}/{s}.json, images: {tmp_path}}}" for s in ("train", "test"))
    data = f"detector.dataset={{coco: {{{sides}}}, validation: 0.3}}"
    words = [*(word for word in TINY if ".digits" not in word), data, "pipelines=[detect_from_scratch]"]
    config, routes = load_study(DIGITS, [*words, "tune={detector.train.lr: [0.01]}"])
    out, outcome = run_study(config, DIGITS, routes, tmp_path / "runs")
    assert outcome.complete, outcome
    comparison = json.loads((out / "comparison.json").read_text())
    (tuned,) = comparison["tuning"]
    assert len(tuned["tried"]) == 2 and all(0 <= score <= 100 for one in tuned["tried"] for score in one["scores"])
    assert comparison["evaluation"]["split"] == "test" and comparison["evaluation"]["images"] == 2
    trained = routes[0].evaluation.parents[0].run(tmp_path / "runs").read_result()
    assert trained["data"]["images"] == 4
    note = "2 of 6 training images are kept for validation (detector.dataset.validation 0.3, seed 0)"
    assert note in trained["data"]["notes"][-1] and note in (out / "report.html").read_text()
