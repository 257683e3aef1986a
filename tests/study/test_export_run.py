"""What is exported from run directories, what the JSON says, and what is refused."""

import json
import runpy
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml

from detect.data import class_names
from detect.data.open import detection_data, open_detection
from detect.data.sets.digits import Scenes
from detect.settings import DetectorData, DetectorSettings
from pruning.plan import PruningPlan
from study.export import export_run
from study.stages.detector import build
from study.stages.network import Network, load_model, read_weights, save_weights
from study.stages.stage import Stage
from training.files import write_text

ROOT = Path(__file__).parents[2]
PLAN = PruningPlan("resnet10", {"width": 0.125}, {"layer1.0.conv1": (0, 5)}, {"layer1.0.conv1": 8})
NETWORK = Network(PLAN, 10, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
DIGITS = {"name": "digits", "options": {"image_size": 32, "n_train": 48, "n_val": 20, "n_test": 20}, "seed": 0}
CLASSIFIER = Stage("train_classifier", {"dataset": DIGITS}, (), 0)
MODEL = DetectorSettings(
    image_size=64,
    max_image_size=96,
    fpn_channels=16,
    box_head_dim=32,
    pre_nms_topk=50,
    test_proposals=20,
    overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0},
)
SCENES = Scenes(image_size=64, train=2, val=1, test=1, digits_per_scene=(1, 2), digit_size=(24, 32))
DETECTOR = Stage(
    "train_detector",
    {
        "model": MODEL.model_dump(mode="json"),
        "data": detection_data(DetectorData(digits=SCENES)),
        "train": {"iterations": 1, "batch_size": 2, "lr": 0.01},
        "init": "inherited",
    },
    (CLASSIFIER,),
    0,
)
PRUNED = Stage("prune_detector", {"method": "l1_filter"}, (DETECTOR,), 0)


def write_run(stage, runs, model):
    """A finished run directory as the executor leaves it, without the training."""
    run = stage.run(runs)
    config = {
        "kind": stage.kind,
        "settings": dict(stage.settings),
        "parents": [parent.id for parent in stage.parents],
        "seed": stage.seed,
    }
    write_text(run.config, yaml.safe_dump(config))
    NETWORK.save(run)
    save_weights(run.weights, model)
    run.write_result({"network": NETWORK.as_result()})
    return run.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    write_run(CLASSIFIER, runs, NETWORK.build())
    detector, _ = build(DETECTOR, NETWORK, NETWORK.build(), 10, device="cpu")
    write_run(DETECTOR, runs, detector)
    write_run(PRUNED, runs, detector)
    return runs


def test_a_classifier_and_the_json_that_tells_how_to_use_it(runs, tmp_path):
    out = tmp_path / "new" / "net.onnx"
    export_run(CLASSIFIER.run(runs).path, "onnx", out=out)
    about = json.loads((tmp_path / "new" / "net.onnx.json").read_text())
    assert about["file"] == "net.onnx" and about["source"]["run"] == CLASSIFIER.id
    assert about["input"]["shape"] == ["batch", 3, 32, 32]
    assert about["input"]["channel_order"] == "RGB"
    normalisation = about["input"]["normalisation"]
    assert normalisation["mean"] == [0.1, 0.2, 0.3] and normalisation["std"] == [0.4, 0.5, 0.6]
    assert normalisation["unit"] == "of pixel values in 0..1"
    assert about["classes"] == list("0123456789") and about["num_classes"] == 10
    assert {k: about["costs"][k] for k in ("params", "macs")} == NETWORK.costs()
    assert {shape[0] for shape in about["compared_with_pytorch"]["inputs"]} == {1, 2, 3, 5}  # images in a batch
    images = torch.rand(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = load_model(CLASSIFIER.run(runs)).eval()(images)
    logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0].copy())
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [DETECTOR, pytest.param(PRUNED, marks=pytest.mark.slow)], ids=lambda s: s.kind)
def test_a_detector_finds_the_boxes_of_its_run(runs, tmp_path, stage):
    about = export_run(stage.run(runs).path, "torchscript", out=tmp_path / "net.pt")
    assert about["task"] == "detector" and about["num_classes"] == 10
    dataset = open_detection(DETECTOR.settings["data"], "train", runs / "data")
    assert about["classes"] == list(class_names(dataset))
    assert about["input"]["dtype"] == "uint8" and "shorter side 64" in about["input"]["resize"]
    compared = about["compared_with_pytorch"]
    assert compared["detections"] > 20
    noise, training_images = [[64, 64], [86, 32], [32, 69], [16, 24], [64, 64]], [[64, 64], [64, 64]]
    assert [shape[1:] for shape in compared["inputs"]] == noise + training_images
    detector, _ = build(DETECTOR, NETWORK, NETWORK.build(), 10, device="cpu")
    detector.load_state_dict(read_weights(stage.run(runs).weights))
    image = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    with torch.no_grad():
        found = detector.eval()([{"image": image}])[0]["instances"]
    boxes, _, classes = torch.jit.load(tmp_path / "net.pt")(image)
    torch.testing.assert_close(boxes, found.pred_boxes.tensor, rtol=0, atol=1e-3)
    assert len(boxes) > 0 and torch.equal(classes, found.pred_classes)


def test_boxes_are_compared_also_where_none_passes_the_threshold(runs, monkeypatch, tmp_path):
    """Without data and with a threshold of 0.9: the file finds nothing, and yet its boxes were compared."""

    def absent(*_):
        raise ValueError("data/x: there is no such folder")

    monkeypatch.setattr("study.export.open_detection", absent)
    model = MODEL.model_copy(update={"overrides": {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.9}})
    strict = Stage("train_detector", {**DETECTOR.settings, "model": model.model_dump(mode="json")}, (CLASSIFIER,), 0)
    torch.manual_seed(0)
    write_run(strict, runs, build(strict, NETWORK, NETWORK.build(), 10, device="cpu")[0])
    about = export_run(strict.run(runs).path, "torchscript", out=tmp_path / "net.pt")
    assert about["score_threshold"] == 0.9 and about["classes"] is None
    assert about["compared_with_pytorch"]["detections"] > 20
    boxes, scores, _ = torch.jit.load(tmp_path / "net.pt")(torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_class_names_are_left_out_where_the_data_are_not(runs, monkeypatch, tmp_path):
    def absent(*_):
        raise ValueError("data/x: there is no such folder")

    monkeypatch.setattr("study.export.open_classification", absent)
    about = export_run(CLASSIFIER.run(runs).path, "torchscript", out=tmp_path / "net.pt")
    assert about["classes"] is None and about["num_classes"] == 10
    assert about["classes_missing_because"] == "data/x: there is no such folder"


def test_what_cannot_be_exported_is_said_and_nothing_is_written(runs, tmp_path):
    run = CLASSIFIER.run(runs).path
    evaluate = Stage("evaluate", {}, (DETECTOR,), 0)
    write_text(
        evaluate.run(runs).config,
        yaml.safe_dump({"kind": "evaluate", "settings": {}, "parents": [DETECTOR.id], "seed": 0}),
    )
    evaluate.run(runs).write_result({})
    for arguments, message in (
        ((run, "tflite"), "--format tflite: unknown; choose from torchscript, onnx"),
        ((tmp_path, "onnx"), r"not a run directory \(it has no config.yaml\)"),
        ((evaluate.run(runs).path, "onnx"), "a run of kind 'evaluate' holds no network; choose one of kind train_cl"),
    ):
        with pytest.raises(ValueError, match=message):
            export_run(*arguments, out=tmp_path / "net")
    with pytest.raises(ValueError, match="--image-size 0 8: height and width must be at least 1"):
        export_run(run, "onnx", out=tmp_path / "net", image_size=(0, 8))
    with pytest.raises(ValueError, match=r"--out .*: name the network's file"):
        export_run(run, "onnx", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_launcher_prints_the_json_or_one_sentence(runs, monkeypatch, capsys, tmp_path):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
        with pytest.raises(SystemExit) as exit_code:
            runpy.run_path(str(ROOT / "tools" / "export.py"), run_name="__main__")
        return exit_code.value.code

    out = tmp_path / "net.pt"
    assert call(CLASSIFIER.run(runs).path, "--format", "torchscript", "--out", out, "--image-size", 48, 40) == 0
    about = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert about["input"]["shape"] == ["batch", 3, 48, 40]
    assert out.is_file()
    assert call(tmp_path, "--format", "onnx") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: not a run directory")
