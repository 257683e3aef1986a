"""The study's configs: each loads, expands and is planned without its data, with the published shapes and epochs."""

import re
from functools import cache
from pathlib import Path

import pytest
from support import published

from classify.regimes import RETRAINING
from pruning.methods import METHODS
from pruning.targets import TARGETS
from study.config.load import load_config, read_yaml
from study.config.schema import ClassifyConfig, StudyConfig
from study.config.sections import Machine
from study.plan.estimate import Estimator
from study.plan.pipelines import expand
from training.options import read_method_options

CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = sorted((CONFIGS / "classify").glob("*.yaml"))
STUDIES = [path for path in sorted((CONFIGS / "pipelines").glob("*.yaml")) if "detector" not in read_yaml(path)]
PLANNED = [path for path in STUDIES if read_yaml(path)["classifier"]["dataset"]["name"] != "folder"]  # a folder is read
# params of the unpruned networks by architecture and data set
DENSE = {
    **{(name, "cifar10"): params for name, (params, _) in published.CIFAR10.items()},
    **{(name, "cifar100"): params for name, params in published.CIFAR100_PARAMS.items()},
    **{(name, "imagenet"): params for name, (params, _) in published.IMAGENET.items()},
    **{(name, "mnist"): params for name, params in published.MNIST_PARAMS.items()},
}


# large or many networks, at seconds each; or as another file, for CIFAR-100
SLOW = (
    *("imagenet", "cifar100", "cifar10_aggressive", "cifar10_methods", "cifar10_soft_filter", "cifar10_tickets_conv"),
    *("claims_cifar10", "cifar10_guided_weights", "cifar10_magnitude", "cifar10_tickets_adam", "cifar10_tickets_l1"),
)


def with_marks(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem.startswith(SLOW) else [])


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    """One for all files, which share networks; there is no data where it would look for it."""
    runs = tmp_path_factory.mktemp("runs")
    return Estimator(runs, Machine(data_root=runs / "absent"))


@cache
def stages_of(path):
    """The stages of a study with one seed."""
    config = load_config(StudyConfig, path, ["seeds=[0]"])
    return list({s.id: s for route in expand(config, source=str(path)) for s in route.stages}.values())


@pytest.mark.parametrize("path", [with_marks(path) for path in PLANNED])
def test_a_study_is_planned_without_its_data_and_meets_the_published_numbers(path, estimator):
    stages = stages_of(path)
    assert stages
    for stage in stages:
        estimate = estimator.estimate(stage)
        between_layers = stage.settings.get("between_layers") is not None
        assert (estimate.train_macs > 0) == (stage.kind == "train_classifier" or between_layers)
        target = stage.settings.get("target") or (stage.parents and stage.parents[0].settings.get("target"))
        if target:
            params, macs, epochs = published.TARGETS[target]
            assert (estimate.params, estimate.macs) == (params, macs), target
            if stage.settings.get("regime") == "scratch_b" and stage.settings["train"]["epochs"] in (90, 100, 160):
                assert estimate.length == f"{epochs} epochs", target
        elif stage.settings.get("regime") == "base":
            arch, options = stage.settings["arch"], stage.settings["arch_options"]
            data = stage.settings["dataset"]["name"]
            if options == {"conv_bias": True} and data == "cifar10":
                assert estimate.params == published.CONV_BIAS_PARAMS[arch]
            elif not options and (arch, data) in DENSE:
                assert estimate.params == DENSE[arch, data]


def test_every_published_shape_has_a_study():
    found = {stage.settings.get("target") for path in PLANNED for stage in stages_of(path) if stage.kind == "prune"}
    assert found - {None} == set(TARGETS) == set(published.TARGETS)


@pytest.mark.parametrize("path", [path for path in PLANNED if "expect" in read_yaml(path)], ids=lambda path: path.stem)
def test_every_published_number_is_of_a_route_at_a_point_of_its_grid(path):
    config = load_config(StudyConfig, path, ["seeds=[0]"])
    routes = expand(config, source=str(path))
    for expected in config.expect:
        assert [r for r in routes if r.pipeline == expected.route and r.point == expected.where], expected


@pytest.mark.parametrize("name", ["cifar10_methods", "digits_methods"])
def test_the_comparison_of_methods_has_every_method_its_controls_and_its_share(name):
    config = load_config(StudyConfig, CONFIGS / "pipelines" / f"{name}.yaml", ["seeds=[0]"])
    routes = expand(config, source=name)
    last = [s.settings for route in routes for s in route.stages if s.kind in ("prune", "prune_detector")]
    assert {settings["method"] for settings in last} == set(METHODS)
    shuffled = {settings["method"] for settings in last if settings["options"].get("shuffle")}
    assert shuffled == {"magnitude", "lamp", "snip", "synflow"}
    shares = {settings["selection"].get("target_macs") for settings in last}
    if name == "cifar10_methods":
        trained = [s.settings for route in routes for s in route.stages if s.kind == "train_classifier"]
        assert set(RETRAINING) <= {settings["regime"] for settings in trained}
        assert shares - {None} == {0.5, 0.333, 0.25}  # and the network whose pattern a design follows
    else:
        weights = [s for s in last if METHODS[s["method"]].unstructured(read_method_options(s["method"], s["options"]))]
        assert shares == {0.5, None}
        assert all((s in weights) == (s["selection"].get("target_macs") is None) for s in last)
        assert {tuple(s["selection"]["ratio"]) for s in weights} == {(0.8,)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    assert load_config(ClassifyConfig, path).classifier.train.epochs > 0


@pytest.mark.parametrize("path", [*RECIPES, *STUDIES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_says_where_it_comes_from_and_how_it_is_run(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    heading = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    for word in ("# Source ", "# Data ", "# Command "):
        assert word in heading
    command = {"pipelines": "run", "classify": "train-cls"}[path.parent.name]
    assert re.search(rf"prune-transfer {command} {path.stem}\b", heading)
    assert "@" not in heading
    if path.parent.name == "pipelines":
        assert read_yaml(path)["name"] == path.stem


def test_the_rate_falls_when_the_study_lets_it_fall():
    """Milestones are fractions of the schedule: 80 and 120 of 160 epochs, 30 and 60 of 90, 30, 60 and 90 of 100."""
    found = {}
    for name in ("cifar10_l1", "imagenet_l1", "imagenet_structure_selection", "cifar10_soft_filter"):
        train = load_config(StudyConfig, CONFIGS / "pipelines" / f"{name}.yaml").classifier.train
        found[name] = [round(train.epochs * m, 3) for m in train.milestones], train.lr, train.gamma
    assert found == {
        "cifar10_l1": ([80, 120], 0.1, 0.1),
        "imagenet_l1": ([30, 60], 0.1, 0.1),
        "imagenet_structure_selection": ([30, 60, 90], 0.1, 0.1),
        "cifar10_soft_filter": ([60, 120, 160], 0.1, 0.2),
    }


def test_soft_filter_pruning_trains_the_networks_of_its_released_code():
    """Their shortcuts take every second pixel, as in He et al., CVPR 2016."""
    firsts = [s for s in stages_of(CONFIGS / "pipelines" / "cifar10_soft_filter.yaml") if "arch" in s.settings]
    assert {s.settings["arch_options"].get("shortcut") for s in firsts} == {"stride"}


def test_soft_filter_pruning_keeps_what_the_released_rate_keeps(estimator):
    """12, 23 and 45 of 16, 32 and 64 filters, in the trunk as well."""
    stages = stages_of(CONFIGS / "pipelines" / "cifar10_soft_filter.yaml")
    stage = next(s for s in stages if s.kind == "prune" and s.settings.get("arch") == "resnet20")
    plan = estimator.network(stage).plan
    assert {len(kept) for kept in (*plan.keep.values(), *plan.scatter.values())} == {12, 23, 45}
    assert len(plan.keep) + len(plan.scatter) == 19  # every convolution of a ResNet-20
