"""The lines by which a user prunes a network of their own, as the package's docstring shows them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from support.docstring_code import shown_code
from torch import nn

import pruning
from pruning.cut import Arch

ROOT = Path(__file__).resolve().parents[2]


def test_shown_lines_prune_save_and_rebuild_a_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code = shown_code(pruning, {"resnet50": "resnet18", 'weights="DEFAULT"': "", "224": "64"})
    names = {"batches": [(torch.randn(4, 3, 64, 64), torch.arange(4))]}
    exec(compile(code, "docstring of pruning", "exec"), names)
    dense_macs, macs = map(int, capsys.readouterr().out.split())
    assert 0.4 * dense_macs < macs < 0.7 * dense_macs
    assert json.loads((tmp_path / "plan.json").read_text())["arch"] == "ResNet"
    assert names["small"].layer1[0].conv1.out_channels == 32
    saved = torch.load("weights.pt", weights_only=True)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in names["small"].state_dict().items())
    assert names["pruned"].plan.kept_counts()["layer4.1.conv1"] == 256  # by ThiNet


def test_plan_records_the_architecture_that_it_is_given():
    model, image = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.ones(1, 3, 2, 2)
    groups, half = pruning.find_groups(model, image), pruning.Selection(0.5)
    given = pruning.prune(model, groups, "l1_filter", half, batch=image, arch=Arch("mine", {"depth": 2}))
    assert (given.plan.arch, given.plan.options) == ("mine", {"depth": 2})
    assert pruning.prune(model, groups, "l1_filter", half, batch=image).plan.arch == "Sequential"


def test_seed_decides_what_the_random_method_keeps():
    model, image = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1)), torch.ones(1, 3, 2, 2)
    groups = pruning.find_groups(model, image)
    kept = [
        pruning.prune(model, groups, "random", pruning.Selection(0.5), batch=image, seed=s).plan.keep for s in (0, 0, 1)
    ]
    assert kept[0] == kept[1] != kept[2]


def test_all_names_are_there():
    assert all(hasattr(pruning, name) for name in pruning.__all__)
    assert not hasattr(pruning, "prunes")


def test_using_it_loads_what_it_needs_and_no_more(tmp_path):
    """Not even where a file of the user's hides another package of ours."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    code = "import sys, pruning; early = 'torch' in sys.modules; pruning.prune; print(*sys.modules, early)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    ).stdout.split()
    assert {"torch", "pruning.cut"} <= set(loaded) and loaded[-1] == "False"
    heavy = {"training", "classify", "detect", "study", "detectron2", "sklearn", "matplotlib", "pandas", "tensorboard"}
    assert heavy & set(loaded) == set()
