"""The README is short, and what it shows of the library is run."""

import json
import re
from pathlib import Path

import detectron2
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from support.detector_step import loss_step
from support.docstring_code import README, readme_code
from support.fabricated_study import fabricate

import prune_transfer
from study.commands.main import COMMANDS

BASE = Path(detectron2.__file__).parent / "model_zoo" / "configs" / "Base-RCNN-FPN.yaml"
SMALL = {"resnet50": "resnet18", 'weights="DEFAULT"': "", "224": "64"}


def lines_of(code):
    return sum(bool(line) for line in code.splitlines())


def run(code, names=None):
    names = names or {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_it_is_short_and_names_commands_that_there_are():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    named = set(re.findall(r"prune-transfer ([a-z][a-z-]*)", text))
    assert named and named <= COMMANDS.keys()


def test_five_lines_prune_a_network_of_torchvision(capsys):
    code = readme_code("pruning.prune", SMALL)
    assert lines_of(code) == 5
    run(code)
    dense, pruned = map(int, capsys.readouterr().out.split())
    assert 0.4 * dense < pruned < 0.7 * dense


def test_five_lines_put_a_pruned_network_into_a_detectron2_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"`prune-transfer (prune --arch [^`]*--out pruned/resnet50)`", README.read_text())
    words = command.replace("resnet50 ", "resnet18 ").replace(" --weights torchvision:DEFAULT", "").split()
    assert prune_transfer.main(*words) == 0, capsys.readouterr().err
    code = readme_code("add_pruned_config", {})
    assert lines_of(code) == 5
    cfg = get_cfg()
    cfg.merge_from_file(str(BASE))
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = "cpu", 16
    run(code, {"cfg": cfg})
    detector = build_model(cfg)
    assert detector.backbone.bottom_up.network.body.get_submodule("layer1.0.conv1").out_channels == 32
    assert torch.isfinite(loss_step(detector))


def test_two_lines_read_a_study_into_a_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = fabricate(tmp_path, files=False)
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "comparison.json").write_text(json.dumps(found))
    code = readme_code("load_comparison", {})
    assert lines_of(code) == 2
    frame = run(code)["frame"]
    assert list(frame["AP"]) == [row["AP"] for row in found["rows"]]
