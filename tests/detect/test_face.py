"""The lines by which a user puts a pruned network into a Detectron2 project, as the package's docstring shows them."""

import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.modeling import GeneralizedRCNN
from support.detector_step import loss_step
from support.docstring_code import shown_code

import detect
from detect.backbone import ClassifierBackbone

ROOT = Path(__file__).resolve().parents[2]
BASE = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "Base-RCNN-FPN.yaml"
SMALLER = {
    "resnet50": "resnet18",
    'weights="DEFAULT"': "",
    "224": "64",
    '"Base-RCNN-FPN.yaml"': f"r{str(BASE)!r}",
    "detector = build_model": 'cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = "cpu", 16\ndetector = build_model',
}


def test_shown_lines_build_a_detector_that_trains():
    torch.manual_seed(0)
    names: dict = {}
    code, _, last = shown_code(detect, SMALLER).partition("detector, cfg = ")
    exec(compile(code, "docstring of detect", "exec"), names)
    detector = names["detector"]
    assert type(detector) is GeneralizedRCNN and type(detector.backbone.bottom_up) is ClassifierBackbone
    body = detector.backbone.bottom_up.body
    narrowed = body.get_submodule("layer1.0.conv1")
    assert narrowed.out_channels == 32
    assert torch.equal(narrowed.weight, names["small"].layer1[0].conv1.weight)
    loss = loss_step(detector)
    assert torch.isfinite(loss)
    trained = body.get_submodule("layer2.0.conv1")
    assert trained.weight.grad is not None and narrowed.weight.grad is None  # freeze_at=2: stem and first stage
    exec(compile(f"detector, cfg = {last}", "docstring of detect", "exec"), names)
    assert torch.isfinite(loss_step(names["detector"]))


def test_detectron2_is_imported_with_the_first_name_that_needs_it():
    code = "import sys, detect; print('detectron2' in sys.modules); detect.Backbone; print('detectron2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "True"]


def test_a_training_of_a_whole_network_loads_no_tracer_of_groups_and_no_report():
    """31 MB of a process are Torch-Pruning and timm, which that loads."""
    code = "import sys, detect.train, classify.models, detect.build, study.stages.contents; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert {"detect.train", "detectron2", "classify.models"} <= loaded
    assert {"torch_pruning", "timm", "matplotlib", "pandas", "scipy", "sklearn", "study.report"} & loaded == set()


def test_all_names_are_there_and_no_others():
    assert all(hasattr(detect, name) for name in detect.__all__)
    with pytest.raises(AttributeError, match="module 'detect' has no attribute 'Bakbone'"):
        detect.Bakbone  # noqa: B018
