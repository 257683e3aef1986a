"""RetinaNet and Cascade R-CNN through every kind of stage, from a config to a report and an exported file."""

import pytest
from support.tiny_study import DIGITS, tiny

from detect.heads import HEADS
from study.export import export_run
from study.run.study import run_study
from training.files import read_json


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cascade", "retinanet"])
def test_routes_are_compared(head, tmp_path):
    idle = [f"detector.model.{name}=null" for name in HEADS[head].idle]
    sizes = [] if head == "cascade" else ["detector.model.anchor_sizes=null", "detector.model.strides=[4, 8]"]
    routes_wanted = "pipelines=[unpruned, transfer_then_prune, detect_from_scratch]"
    changes = [f"detector.model.head={head}", *idle, *sizes, "machine.precision=float32", routes_wanted]
    config, routes = tiny(*changes)
    out, outcome = run_study(config, DIGITS, routes, tmp_path)
    assert outcome.complete, outcome
    rows = {row["pipeline"]: row for row in read_json(out / "comparison.json")["rows"]}
    assert rows.keys() == {"unpruned", "transfer_then_prune", "detect_from_scratch"}
    assert rows["transfer_then_prune"]["detector_macs"] < rows["unpruned"]["detector_macs"]
    trained = routes[0].evaluation.parents[0].run(tmp_path).path
    about = export_run(trained, "torchscript")
    assert about["num_classes"] == 10 and about["score_threshold"] == 0.05
