"""A study of classifiers as small as it can be: seconds for all of it, numbers without meaning."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from study.config.load import set_key, validate
from study.config.schema import StudyConfig
from study.plan.pipelines import expand
from study.run.study import run_study
from support.stages_alone import run_alone

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0],
    "classifier": {
        "arch": "resnet10",
        "options": {"width": 0.125},
        "dataset": {"name": "digits", "options": {"image_size": 32, "n_train": 48, "n_val": 20, "n_test": 30}},
        "train": {"epochs": 2, "batch_size": 16, "lr": 0.05},
        "fine_tune": {"epochs": 1, "lr": 0.01},
    },
    "prune": {"method": "magnitude", "ratio": 0.6, "level": "global"},
    "pipelines": ["unpruned", "pruned", "fine_tune", "scratch_e", "scratch_b", "scratch_b_fair", "ticket"],
    "evaluate": {"latency_rounds": 2},
    "machine": {"threads": 1, "checkpoint_minutes": 0, "precision": "float32"},
}


def tiny(changes: dict[str, Any] | None = None):
    """The config with changes by key path, and its routes."""
    data = deepcopy(SETTINGS)
    for key, value in (changes or {}).items():
        set_key(data, key, value)
    config = validate(StudyConfig, data, source="tiny.yaml")
    return config, expand(config, source="tiny.yaml")


def train(runs: Path, changes: dict[str, Any] | None = None):
    """Run its stages, without the checks ahead and the report; returns the routes as `run`."""
    config, routes = tiny(changes)
    run_alone(config, routes, runs)
    return {(r.pipeline, *r.point.values(), r.seed): r for r in routes}


def run(runs: Path, changes: dict[str, Any] | None = None):
    """Run the study to its report; returns the routes by (pipeline, point's values, seed)."""
    config, routes = tiny(changes)
    _, outcome = run_study(config, Path("tiny.yaml"), routes, runs)
    assert outcome.complete, outcome
    return {(r.pipeline, *r.point.values(), r.seed): r for r in routes}
