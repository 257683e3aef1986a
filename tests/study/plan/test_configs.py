"""The study's configs: each loads, expands and is planned without its data, with the published shapes and epochs."""

from functools import cache
from pathlib import Path

import pytest

from pruning.targets import TARGETS
from study.config.load import load_config, read_yaml
from study.config.schema import ClassifyConfig, StudyConfig
from study.config.sections import Machine
from study.plan.estimate import Budget
from study.plan.pipelines import expand

CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = sorted((CONFIGS / "classify").glob("*.yaml"))
STUDIES = [path for path in sorted((CONFIGS / "pipelines").glob("*.yaml")) if "detector" not in read_yaml(path)]
PLANNED = [path for path in STUDIES if read_yaml(path)["classifier"]["dataset"]["name"] != "folder"]  # a folder is read
# params, MACs and Scratch-B epochs of the released code, run on current PyTorch
SHAPES = {
    "vgg16-A": (5_397_034, 206_279_680, 243),
    "resnet56-A": (773_336, 112_435_840, 178),
    "resnet56-B": (735_712, 90_907_264, 220),
    "resnet110-A": (1_688_522, 212_779_648, 190),
    "resnet110-B": (1_168_424, 155_124_352, 260),
    "resnet34-A": (20_151_764, 3_100_184_576, 106),
    "resnet34-B": (19_469_372, 2_782_269_440, 118),
    "thinet-vgg16-conv": (131_452_552, 4_791_205_888, 180),
    "thinet-vgg16-gap": (8_322_696, 4_668_084_224, 180),
    "thinet-vgg16-tiny": (1_325_368, 1_004_578_816, 180),
    "thinet-resnet50-30": (8_669_158, 1_166_283_835, 180),
    "thinet-resnet50-50": (12_385_704, 1_822_031_872, 180),
    "thinet-resnet50-70": (16_949_086, 2_601_392_356, 141),
    "vgg16-5x": (130_879_294, 3_515_283_520, 180),
    "resnet50-2x": (19_697_424, 2_730_129_076, 134),
    "sss-resnet41": (25_351_080, 3_472_621_568, 117),
    "sss-resnet32": (14_261_928, 2_817_523_712, 145),
    "sss-resnet26": (14_915_496, 2_278_031_360, 179),
}
# params of the unpruned networks by architecture and data set
DENSE = {
    ("vgg16_l1", "cifar10"): 14_987_722,
    ("resnet56", "cifar10"): 853_018,
    ("resnet110", "cifar10"): 1_727_962,
    ("resnet20", "cifar10"): 269_722,
    ("resnet32", "cifar10"): 464_154,
    ("vgg19_slim", "cifar10"): 20_035_018,
    ("vgg16_slim", "cifar10"): 14_724_042,
    ("preresnet164", "cifar10"): 1_703_258,
    ("preresnet110", "cifar10"): 1_146_842,
    ("densenet40", "cifar10"): 1_059_298,
    ("densenet_bc100", "cifar10"): 769_162,
    ("resnet56", "cifar100"): 858_868,
    ("vgg19_slim", "cifar100"): 20_081_188,
    ("preresnet164", "cifar100"): 1_726_388,
    ("densenet40", "cifar100"): 1_100_428,
    ("resnet34", "imagenet"): 21_797_672,
    ("vgg16_bn", "imagenet"): 138_365_992,
    ("vgg11_slim_imagenet", "imagenet"): 132_885_224,
    ("lenet_300_100", "mnist"): 266_610,
    ("lenet5", "mnist"): 431_080,
}
DENSE_WITH_CONV_BIAS = {"vgg19_slim": 20_040_522, "vgg16_slim": 14_728_266}  # on CIFAR-10, as pruned by magnitude


# large or many networks, at seconds each; or as another file, for CIFAR-100
SLOW = ("imagenet", "cifar100", "cifar10_aggressive", "cifar10_soft_filter", "cifar10_tickets_conv")


def with_marks(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem.startswith(SLOW) else [])


@pytest.fixture(scope="module")
def budget(tmp_path_factory):
    """One for all files, which share networks; there is no data where it would look for it."""
    runs = tmp_path_factory.mktemp("runs")
    return Budget(runs, Machine(data_root=runs / "absent"))


@cache
def stages_of(path):
    """The stages of a study with one seed."""
    config = load_config(StudyConfig, path, ["seeds=[0]"])
    return list({s.id: s for route in expand(config, source=str(path)) for s in route.stages}.values())


@pytest.mark.parametrize("path", [with_marks(path) for path in PLANNED])
def test_a_study_is_planned_without_its_data_and_meets_the_published_numbers(path, budget):
    stages = stages_of(path)
    assert stages
    for stage in stages:
        estimate = budget.estimate(stage)
        assert (estimate.train_macs > 0) == (stage.kind == "train_classifier")
        target = stage.settings.get("target") or (stage.parents and stage.parents[0].settings.get("target"))
        if target:
            params, macs, epochs = SHAPES[target]
            assert (estimate.params, estimate.macs) == (params, macs), target
            if stage.settings.get("regime") == "scratch_b" and stage.settings["train"]["epochs"] in (90, 100, 160):
                assert estimate.length == f"{epochs} epochs", target
        elif stage.settings.get("regime") == "base":
            arch, options = stage.settings["arch"], stage.settings["arch_options"]
            data = stage.settings["dataset"]["name"]
            if options == {"conv_bias": True} and data == "cifar10":
                assert estimate.params == DENSE_WITH_CONV_BIAS[arch]
            elif not options and (arch, data) in DENSE:
                assert estimate.params == DENSE[arch, data]


def test_every_published_shape_has_a_study():
    found = {stage.settings.get("target") for path in PLANNED for stage in stages_of(path) if stage.kind == "prune"}
    assert found - {None} == set(TARGETS) == set(SHAPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    assert load_config(ClassifyConfig, path).classifier.train.epochs > 0


@pytest.mark.parametrize("path", [*RECIPES, *STUDIES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_says_where_it_comes_from_and_how_it_is_run(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    heading = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    for word in ("# Source ", "# Data ", "# Command "):
        assert word in heading
    assert f"configs/{path.parent.name}/{path.name}" in heading
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


def test_soft_filter_pruning_keeps_what_the_released_rate_keeps(budget):
    """12, 23 and 45 of 16, 32 and 64 filters, in the trunk as well."""
    stages = stages_of(CONFIGS / "pipelines" / "cifar10_soft_filter.yaml")
    stage = next(s for s in stages if s.kind == "prune" and s.settings.get("arch") == "resnet20")
    plan = budget.network(stage).plan
    assert {len(kept) for kept in (*plan.keep.values(), *plan.scatter.values())} == {12, 23, 45}
    assert len(plan.keep) + len(plan.scatter) == 19  # every convolution of a ResNet-20
