"""A network whose channels nobody can follow loses single weights all the same, in the tool and in a study."""

import pytest
import torch_pruning as tp
from support.kinds_of_methods import MASKING
from support.pruning_alone import SMALL, alone
from support.tiny_classification import run

from pruning.masks import Masks
from study.prune_one.prune import MASKS


@pytest.fixture(autouse=True)
def untraceable(monkeypatch):
    def refuse(*_args, **_options):
        raise RuntimeError("its graph is not what it seems")

    monkeypatch.setattr(tp.DependencyGraph, "build_dependency", refuse)


@pytest.mark.parametrize("method", MASKING)
def test_single_weights_need_no_groups(tmp_path, method):
    images = {"dataset": {"name": "digits", "options": {"image_size": 32}}}
    prune = {"method": method, "ratio": 0.5, "calibration": {"images": 20}}
    found = alone(tmp_path / "out", prune, {**SMALL, **images})
    assert found["density"] == pytest.approx(0.5, abs=0.01)
    assert Masks.load(tmp_path / "out" / MASKS).density() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("method", "options"), [("l1_filter", {}), ("lottery", {"unit": "filters"})])
def test_channels_need_them(tmp_path, method, options):
    with pytest.raises(
        ValueError, match=r"ResNet cannot be traced with an input of .*: its graph is not what it seems"
    ):
        alone(tmp_path / "out", {"method": method, "options": options, "ratio": 0.5}, SMALL)
    assert not (tmp_path / "out").exists()


def test_a_study_of_single_weights_plans_and_runs(tmp_path):
    routes = run(tmp_path, {"pipelines": ["unpruned", "fine_tune"], "classifier.train.epochs": 1})
    assert len(routes) == 2


def test_a_layer_that_does_not_exist_is_refused_before_training(tmp_path):
    with pytest.raises((ValueError, AssertionError), match=r"no convolution matches 'layer9\.\*'"):
        run(tmp_path, {"pipelines": ["fine_tune"], "prune.skip": ["layer9.*"]})
