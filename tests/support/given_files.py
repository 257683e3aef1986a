"""Files of weights as a user gives them, and what a study says of them before it trains."""

from pathlib import Path

import pytest
import torch

from classify.models import build
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from support.tiny_classification import tiny
from training.strict_yaml import ConfigError

WIDTH = {"width": 0.125}
CLASSIFIER = {"classifier.options": WIDTH, "machine.precision": "float32", "machine.device": "cpu"}
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NOWHERE = Path("nowhere")


def given(path, arch="resnet10", classes=10, options=WIDTH, seed=7):
    """A file of the weights of a network drawn by another seed than any study's here."""
    torch.manual_seed(seed)
    model = build(arch, classes, options)
    torch.save(model.state_dict(), path)
    return model.state_dict()


def settings_of(changes):
    """The settings of every stage of a study that have a data set."""
    return [s.settings for r in tiny(changes)[1] for s in r.stages if "dataset" in s.settings]


def refused(changes):
    """The sentence with which a study is refused before anything is trained."""
    with pytest.raises(ConfigError) as error:
        config, routes = tiny(changes)
        stages = [stage for route in routes for stage in route.stages]
        foresee(stages, Estimator(NOWHERE, config.machine), NOWHERE / "a.yaml")
    return str(error.value)
