"""What a detector's normalisation keeps from being pruned is refused before anything is trained."""

from pathlib import Path

import pytest
from support.tiny_study import DIGITS, tiny

from study.config.load import ConfigError
from study.plan.estimate import Estimator
from study.run.study import run_study


def refused(tmp_path, norm, prune, pipelines="[unpruned, transfer_then_prune]"):
    config, routes = tiny(f"detector.model.norm={norm}", f"prune={prune}", f"pipelines={pipelines}")
    try:
        with pytest.raises(ConfigError) as caught:
            run_study(config, DIGITS, routes, tmp_path)
    finally:
        assert not list(tmp_path.glob("*-*"))  # no run directory of any stage
    return str(caught.value)


@pytest.mark.parametrize(
    ("norm", "method", "why"),
    [
        ("GN", "l1_filter", "GN: GroupNorm mixes the channels that l1_filter removes"),
        ("GN", "thinet", "GN: GroupNorm mixes the channels that thinet removes"),
        ("GN", "slimming", "GN: GroupNorm mixes the channels that slimming removes"),
        ("FrozenBN", "slimming", "FrozenBN: slimming needs scales of BatchNorm that training moves"),
        ("FrozenBN", "structure_selection", "FrozenBN: structure_selection needs scales of BatchNorm that training"),
    ],
)
def test_before_any_training(tmp_path, norm, method, why):
    message = refused(tmp_path, norm, f"{{method: {method}, ratio: 0.5}}")
    assert f"{DIGITS}: prune_detector: detector.model.norm: {why}" in message
    assert "set detector.model.norm to BN or SyncBN, or leave out pruning inside the detector" in message


def test_filters_of_a_lottery_are_channels(tmp_path):
    assert "that lottery removes" in refused(tmp_path, "GN", "{method: lottery, ratio: 0.5, options: {unit: filters}}")


def test_a_method_behind_another_on_the_same_network(tmp_path):
    """What is found of a network for one method says nothing of whether the next is refused."""
    variants = "variants={first: {prune: {method: l1_filter}}, then: {prune: {method: slimming}}}"
    config, routes = tiny("detector.model.norm=FrozenBN", variants, "pipelines=[transfer_then_prune]")
    with pytest.raises(ConfigError, match="slimming needs scales of BatchNorm that training moves"):
        run_study(config, DIGITS, routes, tmp_path)


@pytest.mark.parametrize(("norm", "method"), [("GN", "magnitude"), ("FrozenBN", "l1_filter"), ("BN", "slimming")])
def test_what_can_be_pruned_is(norm, method):
    """Every network is worked out, as before a study."""
    pipelines = "pipelines=[transfer_then_prune]"
    config, routes = tiny(f"detector.model.norm={norm}", f"prune={{method: {method}, ratio: 0.5}}", pipelines)
    estimator = Estimator(Path("nowhere"), config.machine)
    networks = [estimator.network(stage) for stage in routes[0].stages if stage.kind == "prune_detector"]
    assert networks and all(network is None or network.plan.keep or network.masks for network in networks)
