"""What a stage is named after: the settings that differ from their defaults, and nothing that says where things are."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import create_model

import classify.settings
import detect.settings
from detect.data.sets.digits import Scenes
from detect.settings import DetectorSettings
from pruning.select import Selection
from study.config.pruning import CalibrationData
from study.config.sections import ClassifierData
from study.plan.load import load_study
from study.plan.pipelines import all_stages
from study.stages import stage as module
from study.stages.stage import KINDS, Stage, defaults, what_differs
from training.files import content_hash

DIGITS = Path(__file__).parents[3] / "configs" / "pipelines" / "digits.yaml"
# the demo's stages; the same for every seed
DEMO = {
    "db8c9ad1a1d9": "train_classifier",
    "8b0cbf889b81": "train_detector",
    "71e86ca67c46": "evaluate",
    "52791e900830": "prune",
    "4d0bbb0f511e": "train_classifier",
    "238db0fa1cd4": "train_detector",
    "ad1e51b6b51e": "evaluate",
    "1247778d903c": "train_detector",
    "cb1112736ab7": "prune_detector",
    "54e3025c5354": "train_detector",
    "70cd60d6f587": "evaluate",
    "0f725469f02e": "prune",
    "12330932ae21": "train_classifier",
    "55835d5a7b0c": "train_detector",
    "c56cdf833aeb": "evaluate",
    "4040f026d5b7": "train_classifier",
    "a8b08da9766e": "train_detector",
    "b5671354561e": "evaluate",
    "d6260662ac7c": "train_detector",
    "1a4a061fe2df": "evaluate",
}
SECTIONS = {
    classify.settings.TrainSettings: "9e2501d6b30c",
    ClassifierData: "7b0e8e34dd65",
    detect.settings.TrainSettings: "993be8986376",
    DetectorSettings: "c5b286ea1425",
    Scenes: "d1e33c1f43e7",
    Selection: "2ca736234c02",
    CalibrationData: "f04695c37f6a",
}


@pytest.fixture(scope="module")
def stages():
    return all_stages(load_study(DIGITS)[1])


def test_the_demos_hashes_are_pinned(stages):
    """A changed hash makes every finished run of users worthless: change it on purpose, with the version of a kind."""
    assert {stage.hash: stage.kind for stage in stages} == DEMO


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_defaults_are_pinned(section):
    """Hashes do not hold them: who changes a default has to raise the version of every kind of stage that reads it."""
    assert content_hash(defaults(section)) == SECTIONS[section]


@pytest.mark.parametrize(("name", "section"), [("train", detect.settings.TrainSettings), ("model", DetectorSettings)])
def test_a_new_key_that_is_off_changes_no_hash(stages, monkeypatch, name, section):
    class More(section):
        new_key: float | None = None
        another: bool = False

    kind = KINDS["train_detector"]
    more = create_model("TrainDetector", __base__=kind.settings, **{name: (More, ...)})
    monkeypatch.setitem(KINDS, "train_detector", replace(kind, settings=more))
    monkeypatch.setitem(module._SECTIONS, "model", More if name == "model" else DetectorSettings)
    before = next(stage for stage in stages if stage.kind == "train_detector")
    settings = {**before.settings, name: {**before.settings[name], "new_key": None, "another": False}}
    assert Stage(before.kind, settings, before.parents, 0).hash == before.hash
    settings[name]["new_key"] = 0.5
    assert Stage(before.kind, settings, before.parents, 0).hash != before.hash


def test_what_differs_from_a_default_is_named_and_what_is_off_is_not():
    settings = {"train": {"epochs": 3, "batch_size": 8, "lr": 0.1, "momentum": 0.9, "gamma": 0.5}, "cap": None, "n": 0}
    found = what_differs(settings, {"train": classify.settings.TrainSettings})
    assert found == {"train": {"epochs": 3, "batch_size": 8, "lr": 0.1, "gamma": 0.5}, "n": 0}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"method": "thinet", "options": {"rescale": False}}, {"rescale": False}),
        ({"method": "thinet", "options": {"rescale": True}}, {"rescale": True}),
        ({"method": "snip", "options": {"shuffle": False}}, None),  # as by default: runs of before keep their names
        ({"method": "slimming", "options": {"exact": False, "linear_norms": False}}, {"exact": False}),
        ({"arch": "vgg16_bn", "arch_options": {"norm": False}}, {"norm": False}),
        ({"arch": "vgg16_l1", "arch_options": {"hidden": None, "conv_bias": False}}, {"hidden": None}),
        ({"arch": "vgg16_slim", "arch_options": {"hidden": None}}, None),
        ({"arch": "inception_v3", "arch_options": {"transform_input": False}}, {"transform_input": False}),
    ],
)
def test_an_option_that_is_off_counts_unless_it_is_off_by_default(settings, found):
    of, name = settings
    expected = {of: settings[of], **({} if found is None else {name: found})}
    assert what_differs(settings, {}) == expected


def named(method="l1_filter", options=None, arch="resnet20", arch_options=None):
    settings = {"method": method, "options": options or {}, "arch": arch, "arch_options": arch_options or {}}
    return Stage("prune", settings, (), 0).hash


@pytest.mark.parametrize(
    ("method", "on", "off"),
    [
        ("slimming", "exact", False),
        ("thinet", "rescale", False),
        ("soft_filter", "zero_norm", False),
        ("snip", "linear", False),
    ],
)
def test_an_option_that_is_off_counts_where_it_is_on_by_default(method, on, off):
    """A run that left it on stood for the one that was asked for."""
    assert named(method, {on: off}) != named(method)
    asked = {"selection": {"ratio": [0.5]}, "method": method, "options": {on: off}}
    training = Stage("train_classifier", {"effect": asked}, (), 0)
    assert training.hash != Stage("train_classifier", {"effect": {**asked, "options": {}}}, (), 0).hash


def test_an_option_that_is_off_by_default_counts_for_nothing():
    assert named("magnitude", {"linear": False}) == named("magnitude")
    assert named("reconstruction", {"select_inputs": {}}) == named("reconstruction")
    assert named("uniform", {"budget": None}) == named("uniform")
    assert named("thinet", {"positions_per_image": 10}) != named("thinet")  # as ever


def test_an_architectures_option_that_is_off_counts_likewise():
    bottleneck = {"bottleneck": False}
    assert named(arch="densenet_bc100", arch_options=bottleneck) != named(arch="densenet_bc100")
    assert named(arch="densenet40", arch_options=bottleneck) == named(arch="densenet40")
    assert named(arch="vgg16_l1", arch_options={"hidden": None}) != named(arch="vgg16_l1")


def test_a_kind_names_its_version_and_a_function_that_is_there():
    known = {"train_classifier", "take_weights", "prune", "train_detector", "prune_detector", "evaluate", "latency"}
    assert KINDS.keys() == known
    assert all(module.resolve_name(kind.place) for kind in KINDS.values())


def pruned(kind, *overrides):
    """The hashes of the stages of a kind of the demo, pruned by a method that looks at data."""
    found = all_stages(load_study(DIGITS, ["prune.method=thinet", *overrides])[1])
    mine = [stage for stage in found if stage.kind == kind]
    if not overrides:  # runs of before there was the key keep their names
        without = ({k: v for k, v in stage.settings.items() if k != "calibration"} for stage in mine)
        assert [Stage(kind, s, stage.parents, 0).hash for s, stage in zip(without, mine, strict=True)] == [
            stage.hash for stage in mine
        ]
    return [stage.hash for stage in mine]


def test_how_much_a_method_sees_counts_where_it_differs_from_the_default_and_is_seen(stages):
    fewer, default = "prune.calibration.images=100", ["prune.calibration.images=512", "prune.calibration.batches=16"]
    assert pruned("prune") == pruned("prune", *default) == pruned("prune", "prune.calibration.batches=4")
    assert pruned("prune_detector") == pruned("prune_detector", *default) == pruned("prune_detector", fewer)
    assert not set(pruned("prune")) & set(pruned("prune", fewer))
    of_each = "prune.calibration.per_class=10"
    assert not {*pruned("prune"), *pruned("prune", fewer)} & set(pruned("prune", of_each))
    assert pruned("prune_detector") == pruned("prune_detector", of_each)
    assert pruned("prune_detector") != pruned("prune_detector", "prune.calibration.batches=4")
    for number in (fewer, of_each):
        blind = all_stages(load_study(DIGITS, [number, "prune.calibration.batches=4"])[1])
        assert {stage.hash for stage in blind} == {stage.hash for stage in stages}
