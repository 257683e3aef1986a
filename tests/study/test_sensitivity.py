"""What layers lose when each alone is pruned: by hand, and as a study's own pruning of that layer measures it."""

import csv
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from support.small_networks import dense_network
from support.tiny_classification import run as run_tiny

from classify.models import channel_groups
from pruning.cost import count_macs, count_params
from pruning.cut import make_plan
from pruning.errors import Refusal
from pruning.methods import METHODS
from pruning.surgery import apply, mask
from study.config.load import load_config
from study.config.schema import PruneConfig
from study.config.sections import Machine
from study.sensitivity import measure
from study.sensitivity.measure import Asked, Curve, Point, open_subject
from study.sensitivity.show import sensitivity, suggested
from study.stages.data import open_classification

pytestmark = pytest.mark.slow  # trainings of whole studies

ROOT = Path(__file__).parents[2]
CPU = Machine(device="cpu")
LAYER = "layer2.0.conv1"


def study(folder, **changes):
    """Scans of digits, a small ResNet that learned them, and what a study made of it; the run directories."""
    for place, (scan, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if place == 600:
            break
        file = folder / "digits" / str(label) / f"{place:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((scan.reshape(8, 8) * 15.9).astype("uint8")).resize((32, 32)).save(file)
    data = {"path": str(folder / "digits"), "image_size": 32, "resize": 32, "val": 100, "test": 40}
    train = {"epochs": 6, "batch_size": 16, "lr": 0.05, "schedule": "cosine", "augmentation": "none"}
    (route,) = run_tiny(
        folder / "runs",
        {
            "classifier.dataset": {"name": "folder", "options": data},
            "classifier.train": train,
            **{key.replace("__", "."): value for key, value in changes.items()},
        },
    ).values()
    return [stage.run(folder / "runs").path for _, stage in route.steps]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run directories: the trained classifier, and what a study made of one layer of it by two methods."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    of_one_layer = {"prune__ratio": 0.0, "prune__level": "layer", "prune__layers": {LAYER: 0.5}}
    for method in ("l1_filter", "taylor"):
        found["dense"], found[method] = study(folder, pipelines=["pruned"], prune__method=method, **of_one_layer)
    return found


def val_top1(run):
    return json.loads((run / "result.json").read_text())["metrics"]["val_top1"]


def without_test(data, machine, runs):
    return replace(open_classification(data, machine, runs), test=None)


@pytest.mark.cpu_only  # image by image
@pytest.mark.parametrize("method", ["l1_filter", "taylor"])
def test_the_curve_is_of_the_networks_that_a_study_makes_and_begins_at_the_run_itself(runs, method, monkeypatch):
    monkeypatch.setattr(measure, "open_classification", without_test)
    subject = open_subject(runs["dense"], Asked((0.5, 0.0), method), CPU)
    assert subject.top1 == val_top1(runs["dense"]) > 50 and len(subject.images) == subject.n_validation == 100
    curves = {curve.layer: curve for curve in subject.curves()}
    for curve in curves.values():
        nothing, half = curve.points
        assert (nothing.ratio, half.ratio) == (0, 0.5) and half.kept == curve.width // 2
        assert (nothing.top1, nothing.lost, nothing.params_saved, nothing.macs_saved) == (subject.top1, 0, 0, 0)
        assert half.lost == pytest.approx(subject.top1 - half.top1)
    result = json.loads((runs[method] / "result.json").read_text())
    point = curves[LAYER].points[1]
    assert point.top1 == result["metrics"]["val_top1"]
    assert {"params": point.params_saved, "macs": point.macs_saved} == {
        key: result["achieved"][key] for key in ("params", "macs")
    }


@pytest.mark.cpu_only  # image by image
def test_a_cut_layer_is_as_accurate_as_one_whose_channels_are_zero(runs):
    subject = open_subject(runs["dense"], Asked((0.5,), scope="all"), CPU)
    groups = subject.request.groups
    assert sum(not group.inner for group in subject.layers()) == 4
    for group, curve in zip(subject.layers(), subject.curves(), strict=True):
        choice = subject._choice(group, 0.5)
        plan = make_plan(subject.network.arch, groups, choice)
        zeroed, small = mask(subject.model, plan, groups), apply(subject.model, plan, groups)
        (point,) = curve.points
        assert point.top1 == measure._percent(measure._correct(zeroed, subject.images, subject.network))
        assert point.params_saved == count_params(subject.model) - count_params(small)
        assert point.macs_saved == count_macs(subject.model, subject.example) - count_macs(small, subject.example)


def test_a_layer_whose_channels_are_half_zero_loses_nothing_until_these_are_gone(runs):
    subject = open_subject(runs["dense"], Asked((0.25, 0.5, 0.75)), CPU)
    (group,) = [group for group in subject.groups() if group.name == LAYER]
    half = make_plan(subject.network.arch, subject.request.groups, subject._choice(group, 0.5))
    model = mask(subject.model, half, subject.request.groups)
    request = replace(subject.request, _known={})  # what was found of the other weights
    changed = replace(subject, model=model, request=request)
    changed = replace(changed, correct=measure._correct(model, subject.images, subject.network))
    (curve,) = [curve for curve in changed.curves() if curve.layer == LAYER]
    assert [(point.lost, point.standard_error) for point in curve.points[:2]] == [(0, 0), (0, 0)]
    assert curve.points[2].lost != 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_a_layer_alone_or_is_refused(runs, method):
    refused = {
        **dict.fromkeys(("uniform_weights", "rigl", "gradual_magnitude"), "removes single weights"),
        **dict.fromkeys(("magnitude", "lamp", "snip", "synflow", "lottery"), "ranks at level 'global'"),
        **dict.fromkeys(("slimming", "structure_selection"), "ranks at level 'global'"),
        **{"uniform": "one ratio for every layer", "guided": "the pattern shares out one ratio"},
    }
    try:
        subject = open_subject(runs["dense"], Asked((0.5,), method, n_images=20), CPU)
        curves = list(subject.curves())
    except Refusal as error:
        assert refused[method] in str(error)
    else:
        assert method not in refused and len(curves) == 4
        assert [curve.points[0].kept for curve in curves] == [4, 8, 16, 32]


def test_slimming_by_layer_has_curves_where_norms_rank_the_channels_of_one_layer(runs):
    asked = Asked((0.5,), "slimming", {"level": "layer"}, n_images=20)
    subject = open_subject(runs["dense"], asked, CPU)
    assert [curve.points[0].kept for curve in subject.curves()] == [4, 8, 16, 32]
    model = dense_network()
    groups = channel_groups("cifar_densenet", model.eval(), subject.example)  # its norms rank what several layers made
    subject = replace(subject, model=model, request=replace(subject.request, groups=groups))
    with pytest.raises(Refusal, match=r"'slimming' does not rank the channels of features.conv0 alone; choose another"):
        list(subject.curves())


def a_point(ratio, lost):
    return Point(ratio, kept=1, top1=90 - lost, lost=lost, standard_error=0, params_saved=1, macs_saved=1)


def test_a_layer_bears_the_highest_ratio_up_to_which_it_loses_little():
    calm = Curve("calm", 10, (a_point(0.1, -1), a_point(0.5, 2), a_point(0.9, 5)))
    back = Curve("back", 10, (a_point(0.1, 0), a_point(0.5, 6), a_point(0.9, 4)))
    weak = Curve("weak", 10, (a_point(0.1, 5.5), a_point(0.5, 6), a_point(0.9, 4)))
    assert [curve.bears(5) for curve in (calm, back, weak)] == [0.9, 0.1, 0]
    assert [curve.mean_lost for curve in (calm, back)] == [2, pytest.approx(10 / 3)]
    assert suggested([calm, back, weak], 5) == (["weak"], {"calm": 0.9, "back": 0.1})
    assert suggested([calm], 1) == ([], {"calm": 0.1})


def test_the_error_is_that_of_the_difference_image_by_image(runs):
    subject = open_subject(runs["dense"], Asked((0.9,), n_images=40), CPU)
    assert len(subject.images) == 40 and subject.images.labels.bincount().tolist() == [4] * 10
    for curve in subject.curves():
        (point,) = curve.points
        n, lost = 40, point.lost / 100
        # what changed is at least what was lost: right before and wrong now, less wrong before and right now
        assert point.standard_error >= 100 * ((abs(lost) - lost**2) / (n - 1)) ** 0.5 - 1e-9
        assert (point.standard_error == 0) == (lost == 0) or lost == 0


def test_the_command_writes_table_and_page_and_prints_what_a_config_takes(runs, tmp_path, monkeypatch, capsys):
    words = [runs["dense"], "--ratios", "0.9", "0.5", "--images", "50", "--tolerance", "35", "--device", "cpu"]
    words += ["--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["sensitivity.py", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "sensitivity.py"), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    said = json.loads(printed.splitlines()[-1])
    names = [f"layer{stage}.0.conv1" for stage in (1, 2, 3, 4)]
    assert sorted([*said["skip"], *said["layers"]]) == names and said["split"] == "val" and said["images"] == 50
    rows = list(csv.DictReader((tmp_path / "out" / "sensitivity.csv").open()))
    expected = [(name, ratio) for name in names for ratio in ("0.5", "0.9") if (name, ratio) != (names[0], "0.9")]
    assert [(row["layer"], row["ratio"]) for row in rows] == expected  # 0.9 leaves none of its 8 channels
    assert "50 of 100 validation images" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "plotly.min.js",
        "sensitivity.csv",
        "sensitivity.html",
    ]
    assert names[0] in (tmp_path / "out" / "sensitivity.html").read_text()
    words = [line.split("'")[1] for line in printed.splitlines() if "'prune." in line]  # into a config as they are
    pruning = load_config(PruneConfig, None, ["classifier.arch=resnet20", "prune.method=l1_filter", *words]).prune
    assert (list(pruning.skip), dict(pruning.layers or {})) == (said["skip"], said["layers"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "magnitude", "options": {"level": "layer"}}, "'magnitude' removes single weights; the curves are"),
        ({"method": "structure_selection"}, "method 'structure_selection' ranks at level 'global'"),
        ({"method": "l1"}, "unknown pruning method 'l1'; "),
        ({"options": {"rescale": 1}}, "'l1_filter' has no option 'rescale'"),
        ({"ratios": (0.1, 1.0)}, "--ratios 1: a ratio is the fraction removed, 0 <= ratio < 1"),
        ({"ratios": (0.0,)}, "--ratios: none of them removes anything"),
        ({"ratios": (0.99,)}, "--ratios 0.99: the lowest leaves no channel in any layer"),
        ({"n_images": 1}, "--images 1: at least 2 are needed"),
        ({"tolerance": -1.0}, "--tolerance -1: the points of accuracy that a layer may lose are not negative"),
        ({"run": "l1_filter"}, "a run of kind 'prune' is no trained classifier; choose one of train_classifier"),
        ({"run": "nowhere"}, "nowhere: not a run directory"),
        ({"device": "gpu"}, "--device: 'gpu' is no device; take auto, cpu, cuda"),
    ],
)
def test_what_has_no_curves_is_one_sentence_and_nothing_is_written(runs, tmp_path, asked, message):
    asked = {"ratios": (0.5,), "run": "dense", "tolerance": 5.0, "device": "cpu", **asked}
    run = runs.get(asked["run"], tmp_path / asked["run"])
    tolerance, machine = asked["tolerance"], Machine(device=asked["device"])
    rest = {key: value for key, value in asked.items() if key not in ("run", "tolerance", "device")}
    with pytest.raises(ValueError) as error:
        sensitivity(run, Asked(**rest), machine, out=tmp_path / "out", tolerance=tolerance, console=Console(quiet=True))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_lost_single_weights_is_refused(tmp_path):
    *_, tuned = study(tmp_path, pipelines=["fine_tune"])
    with pytest.raises(ValueError, match="single weights were removed from this network"):
        open_subject(tuned, Asked((0.5,)), CPU)
