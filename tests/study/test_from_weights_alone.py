"""Studies whose classifier is weights alone: no data set, no head, no training of it."""

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from support.given_files import IMAGENET, given
from support.tiny_study import tiny
from torch.nn.modules.batchnorm import _BatchNorm

import classify.published
from classify.published import SOURCES
from classify.published.preset import Preset
from detect.data import class_names
from detect.data.loader import backbone_inputs
from detect.data.open import open_detection
from detect.detector_config import make_config
from pruning.recalibrate import recalibrate
from study.plan.dry_run import print_plan
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.run.single import train_classifier_alone
from study.run.study import report_again, run_study
from study.stages.contents import check_there
from study.stages.detector import load_detector
from study.stages.network import Network, load_model, read_weights
from study.stages.settings import TrainDetector
from training.strict_yaml import ConfigError

pytestmark = pytest.mark.slow  # trainings of whole studies

ROUTES = ["unpruned", "prune_then_detect", "transfer_then_prune", "detect_from_scratch"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
NAME = "torchvision:DEFAULT"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file of weights that is published as torchvision's of resnet10, with a normalisation of its own."""
    file = tmp_path / "w.pt"
    given(file, "resnet10", 37)
    preset = Preset("torchvision:MINE", MEAN, STD, 64, 37, "ask for it")
    source = replace(SOURCES["torchvision"], preset=lambda *_: preset, cached=lambda *_: file)
    monkeypatch.setitem(SOURCES, "torchvision", source)
    return file


def alone(*overrides, weights=NAME, routes=ROUTES):
    """The tiny study of detectors on weights alone."""
    arch = f"arch: resnet10, options: {{width: 0.125}}, weights: '{weights}'"
    return tiny(f"classifier={{{arch}}}", f"pipelines=[{', '.join(routes)}]", "machine.precision=float32", *overrides)


def refused(folder, *overrides, **kinds):
    with pytest.raises(ConfigError) as error:
        config, routes = alone(*overrides, **kinds)
        foresee([s for r in routes for s in r.stages], Estimator(folder, config.machine), Path("a.yaml"))
    return str(error.value)


def test_a_study_of_weights_alone_from_its_plan_to_its_report(published, tmp_path):
    config, routes = alone()
    runs = tmp_path / "runs"
    _, outcome = run_study(config, Path("a.yaml"), routes, runs)
    assert outcome.complete
    by_name = {route.pipeline: route for route in routes}
    taken = by_name["unpruned"].stages[0]
    result = taken.run(runs).read_result()
    assert (taken.kind, result["pretraining"], result["network"]["num_classes"]) == (
        "take_weights",
        "published, not counted",
        37,
    )
    given_tensors = torch.load(published, weights_only=True)
    assert all(torch.equal(tensor, given_tensors[n]) for n, tensor in read_weights(taken.run(runs).weights).items())
    for route in routes:  # the same normalisation in every detector, that of the weights
        trained = route.evaluation.parents[0]
        _, _, cfg = load_detector(trained, runs, 10, device="cpu")
        assert pytest.approx([255 * v for v in MEAN]) == cfg.MODEL.PIXEL_MEAN
        assert pytest.approx([255 * v for v in STD]) == cfg.MODEL.PIXEL_STD
    report = (runs / "tiny" / "report.md").read_text()
    assert "published pretraining not counted" in report and "those of torchvision:MINE" in report
    table = list(csv.DictReader(StringIO((runs / "tiny" / "comparison.csv").read_text())))
    known = {row["pipeline"]: row["pretraining"] for row in table}
    assert known == dict.fromkeys(ROUTES[:3], "published, not counted") | {"detect_from_scratch": ""}


def test_a_detector_starts_from_the_pruned_weights_with_statistics_of_its_own_images(published, tmp_path):
    config, routes = alone("detector.train.iterations=1", "detector.train.lr=1.0e-12", routes=["prune_then_detect"])
    runs = tmp_path / "runs"
    _, outcome = run_study(config, Path("a.yaml"), routes, runs)
    assert outcome.complete
    trained = routes[0].evaluation.parents[0]
    pruned, network = trained.parents[0], Network.load(trained.parents[0].run(runs))
    expected = load_model(pruned.run(runs))
    before = {name: tensor.clone() for name, tensor in expected.state_dict().items()}
    settings, dataset = trained.read(TrainDetector), open_detection(trained.settings["data"], "train", runs / "data")
    cfg = make_config(settings.model, num_classes=len(class_names(dataset)), pixel_mean=MEAN, pixel_std=STD)
    images = backbone_inputs(dataset, cfg, batch_size=settings.train.batch_size, seed=0)
    recalibrate(expected, (next(images) for _ in range(100)))
    assert network.mean == MEAN and settings.recalibrate
    _, detector, _ = load_detector(trained, runs, len(class_names(dataset)), device="cpu")
    body = detector.backbone.bottom_up.body
    norms = [name for name, layer in body.named_modules() if isinstance(layer, _BatchNorm)]
    for name, layer in body.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert torch.allclose(layer.weight, before[f"{name}.weight"], atol=1e-6)
    assert norms
    for name in norms:  # one step of training has moved them by a tenth from here at most
        kept, new = body.get_submodule(name).running_var, expected.get_submodule(name).running_var
        assert not torch.allclose(before[f"{name}.running_var"], new, rtol=0.2)
        assert torch.allclose(kept, new, rtol=0.5)


def test_the_chain_is_one_that_a_user_can_write_with_a_data_set_as_well():
    _, routes = tiny("pipelines={mine: [classify, prune, detect]}")
    kinds = [stage.kind for stage in routes[0].stages]
    assert kinds == ["train_classifier", "prune", "train_detector", "evaluate"]
    assert routes[0].stages[2].settings["recalibrate"] is True


@pytest.mark.parametrize("prune", ["{method: magnitude, ratio: 0.5}", "{method: thinet, ratio: 0.5}"])
def test_with_a_data_set_any_method_goes_the_same_way(prune, tmp_path):
    """Weights that a mask removed stay zero, whatever is trained after."""
    config, routes = tiny(f"prune={prune}", "pipelines=[prune_then_detect]", "detector.train.iterations=2")
    runs = tmp_path / "runs"
    _, outcome = run_study(config, Path("a.yaml"), routes, runs)
    assert outcome.complete
    trained = routes[0].evaluation.parents[0]
    _, detector, _ = load_detector(trained, runs, 10, device="cpu")
    weights = dict(detector.backbone.bottom_up.body.named_parameters())
    for name, mask in (Network.load(trained.run(runs)).masks or {}).items():
        assert name not in weights or not weights[name][~mask].any()


def test_what_was_never_trained_is_not_transferred():
    with pytest.raises(ConfigError, match=r"pipelines.mine: detect: .*here its shape alone is known"):
        tiny("pipelines={mine: [shape, detect]}")


@pytest.mark.parametrize(
    ("overrides", "routes", "message"),
    [
        ((), ["prune_then_transfer"], "fine_tune: trains a classifier, which needs classifier.dataset and classifier"),
        ((), ["scratch_e"], "scratch_e: trains a classifier, which needs classifier.dataset"),
        (
            (),
            ["scratch_b"],
            "from weights alone go unpruned, prune_then_detect, transfer_then_prune and detect_from_sc",
        ),
        ((), ["scratch_b_fair"], "scratch_b_fair: trains a classifier, which needs classifier.dataset"),
        (
            ("pipelines={mine: [classify, detect_fair]}",),
            [],
            "mine: detect_fair: comes after train_classifier, here it comes after take_weights",
        ),
        (
            ("tune={classifier.train.lr: [0.1]}",),
            ["unpruned"],
            "tune.classifier.train.lr: nothing is trained without classifier.dataset; choose rates of `detector`",
        ),
        (
            ("prune.method=thinet",),
            ["prune_then_detect"],
            "thinet looks at activations, which needs classifier.dataset",
        ),
        (
            ("prune={method: slimming, ratio: 0.5, level: global}",),
            ["prune_then_detect"],
            "slimming acts on the training before it prunes, which needs classifier.dataset; prune inside the detector",
        ),
        (("detector.budget=same_total",), ["unpruned"], "same_total counts all stages, and what it cost to train the"),
        (("classifier.replace_head=true",), ["unpruned"], "replace_head: nothing is trained without `dataset`"),
        (("classifier.fine_tune={epochs: 2}",), ["unpruned"], "fine_tune: nothing is trained without `dataset`"),
        (("classifier.normalization=dataset",), ["unpruned"], "normalization: dataset: there is no `dataset`"),
        (
            ("classifier.normalization={mean: [0.5], std: [0.5]}",),
            ["unpruned"],
            "of classifier.normalization is of 1 channels, 'resnet10' reads 3; set classifier.normalization",
        ),
        (("detector=null",), ["unpruned"], "classifier.dataset: a study without `detector` compares classifiers"),
        (("classifier.weights=null",), ["unpruned"], "`dataset` and `train` missing: without `weights` the classifier"),
    ],
)
def test_what_needs_more_than_weights_says_so_in_one_sentence(overrides, routes, message, published, tmp_path):
    said = refused(tmp_path, *overrides, routes=routes)
    assert message in said and "\n" not in said


def test_rates_of_the_detectors_are_chosen_with_weights_alone(published, tmp_path, capsys):
    from rich.console import Console

    config, routes = alone("tune={detector.train.lr: [0.02]}", routes=["unpruned", "prune_then_detect"])
    print_plan(config, routes, tmp_path / "runs", Console(width=400))
    said = " ".join(capsys.readouterr().out.split())
    assert "choosing rates: 4 routes" in said and "pretraining of the weights that are taken: published, not" in said
    _, outcome = run_study(config, Path("a.yaml"), routes, tmp_path / "runs")
    assert outcome.complete
    report = report_again(tmp_path / "runs" / "tiny", tmp_path / "paper").with_name("report.md").read_text()
    assert (
        r"| prune\_then\_detect | detector.train.lr = 0.03 |" in report and "|  | detector.train.lr = 0.02 |" in report
    )
    means = list(csv.DictReader(StringIO((tmp_path / "paper" / "means.csv").read_text())))
    assert {row["pretraining"] for row in means} == {"published, not counted"}
    table = (tmp_path / "paper" / "results.tex").read_text()
    assert "Prune and detect" in table and "pretraining published, not counted" in table


def test_a_design_from_guides_with_a_data_set_is_of_the_weights_own_network(published, tmp_path):
    """The data that the guides are trained on are not what the network itself was made for."""
    data = "{name: digits, options: {image_size: 32, n_train: 48, n_val: 20, n_test: 20}}"
    changes = f"{{weights: null, dataset: {data}, train: {{epochs: 1, batch_size: 16, lr: 0.05}}}}"
    guide = f"guide={{prune: {{method: slimming, ratio: 0.5, level: global}}, classifier: {changes}}}"
    config, routes = alone(
        "prune={method: guided}", guide, "detector.train.iterations=1", routes=["detect_from_scratch"]
    )
    _, outcome = run_study(config, Path("a.yaml"), routes, tmp_path / "runs")
    assert outcome.complete
    design = routes[0].evaluation.parents[0].parents[0]
    assert Network.load(design.run(tmp_path / "runs")).num_classes == 37


def test_the_name_and_the_content_are_what_the_weights_are(published, tmp_path):
    """Where the file is is not; another file of the same name is another stage."""
    first = alone()[1][0].stages[0]
    assert first.settings["weights"]["name"] == "torchvision:MINE"
    moved = published.rename(tmp_path / "elsewhere.pt")
    SOURCES["torchvision"] = replace(SOURCES["torchvision"], cached=lambda *_: moved)
    assert alone()[1][0].stages[0].hash == first.hash
    given(moved, "resnet10", 37, seed=8)
    assert alone()[1][0].stages[0].hash != first.hash


def test_weights_that_are_not_here_are_planned_and_not_run(published, monkeypatch, tmp_path, capsys):
    from rich.console import Console

    monkeypatch.setitem(SOURCES, "torchvision", replace(SOURCES["torchvision"], cached=lambda *_: None))
    config, routes = alone()
    print_plan(config, routes, tmp_path, Console(width=400))
    said = " ".join(capsys.readouterr().out.split())
    assert "published, not counted" in said and "unknown" in said
    why = "classifier.weights torchvision:DEFAULT: the weights of resnet10 are not on this machine and a plan fetches"
    assert why in said
    with pytest.raises(ValueError, match=f"^{why} nothing; ask for it$"):
        check_there([stage for route in routes for stage in route.stages])


def test_a_file_alone_needs_neither_head_nor_classes(tmp_path):
    state = given(tmp_path / "w.pt", "resnet18", 21)
    arch = f"classifier={{arch: resnet18, options: {{width: 0.125}}, weights: {tmp_path / 'w.pt'}}}"
    settings = tiny(arch, "pipelines=[unpruned]")[1][0].stages[0].settings
    assert settings["made_for"] == {"image_size": 224, "num_classes": 21}
    assert (settings["normalization"]["mean"], settings["normalization"]["std"]) == IMAGENET
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("fc.")}, tmp_path / "w.pt")
    config, routes = tiny(arch, "pipelines=[unpruned]", "detector.train.iterations=1")
    assert routes[0].stages[0].settings["made_for"]["num_classes"] == 1
    _, outcome = run_study(config, Path("a.yaml"), routes, tmp_path / "runs")
    assert outcome.complete
    notes = routes[0].stages[0].run(tmp_path / "runs").read_result()["given_weights"]["notes"]
    assert "w.pt has no head (fc.weight, fc.bias): one was drawn, which a detector leaves out" in notes


def test_a_file_whose_normalisation_nobody_knows_is_refused(tmp_path):
    given(tmp_path / "w.pt")
    assert "classifier.normalization: null: what" in refused(tmp_path, weights=tmp_path / "w.pt")
    told = "classifier.normalization={mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}"
    settings = alone(told, weights=tmp_path / "w.pt")[1][0].stages[0].settings
    assert settings["normalization"]["mean"] == [0.1, 0.2, 0.3]


def test_published_weights_take_the_place_of_a_file_with_a_data_set_too(published):
    _, routes = tiny(f"classifier.weights={NAME}", "classifier.replace_head=true", "pipelines=[unpruned]")
    settings = routes[0].stages[0].settings
    assert settings["weights"]["name"] == "torchvision:MINE" and settings["normalization"]["mean"] == list(MEAN)


def test_weights_alone_are_a_run_that_a_detector_can_be_trained_on(published, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"classifier: {{arch: resnet10, options: {{width: 0.125}}, weights: '{NAME}'}}\n")
    found = train_classifier_alone(path, [], pruned=None, runs=tmp_path / "runs")
    assert found is not None and (found[0] / "weights.safetensors").is_file()
    assert classify.published.is_published(NAME)
