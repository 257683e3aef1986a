"""Every pruning method in every regime trains two iterations an epoch, through the stages of a study."""

import json
import math

import pytest
import torch
from support.kinds_of_methods import MASKING
from support.short_schedules import CHANNELS_EACH_STEP, EACH_STEP
from support.tiny_classification import run

from pruning.design.pattern import Pattern
from pruning.masks import Masks
from pruning.methods import METHODS
from pruning.plan import PruningPlan
from study.stages.classifier import starting_model
from study.stages.network import Network, load_model

pytestmark = pytest.mark.slow  # a study of some seventy stages

REGIMES = ("fine_tune", "scratch_e", "scratch_b", "ticket")
# of ResNet-10 with 8, 16, 32 and 64 channels; the inner convolution of each of its four blocks can be narrowed
HALF = {"layer1.0.conv1": 4, "layer2.0.conv1": 8, "layer3.0.conv1": 16, "layer4.0.conv1": 32}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One study: a variant for each method, 32 images in batches of 16, one epoch."""
    folder = tmp_path_factory.mktemp("methods")
    pattern = folder / "pattern.json"
    pattern.write_text(Pattern(widths=(0.5, 0.25)).to_json())
    options = {"guided": {"patterns": [str(pattern)]}, **EACH_STEP, **CHANNELS_EACH_STEP}
    variants = {name: {"prune": {"method": name, "ratio": 0.5, "options": options.get(name, {})}} for name in METHODS}
    changes = {
        "variants": variants,
        "pipelines": list(REGIMES),
        "classifier.dataset.options.n_train": 32,
        "classifier.train.epochs": 1,
    }
    return run(folder / "runs", changes), folder / "runs"


def stage_of(done, method, regime):
    found, runs = done
    matching = [r for (pipeline, *_), r in found.items() if pipeline == regime and r.point["variant"] == method]
    assert len(matching) == 1
    return matching[0].evaluation, runs


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_the_network_that_the_method_left(done, method, regime):
    stage, runs = stage_of(done, method, regime)
    directory, pruned = stage.run(runs), stage.parents[0].run(runs)
    rows = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    assert rows[-1]["total"] >= 2
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert PruningPlan.load(directory.plan) == PruningPlan.load(pruned.plan)
    model, network = load_model(directory), Network.load(directory)
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())
    assert math.isfinite(directory.read_result()["metrics"]["test_top1"])
    assert (network.masks is not None) == (method in MASKING)
    if network.masks is not None:
        assert pruned.masks.read_bytes() == directory.masks.read_bytes()
        assert network.masks.density() == pytest.approx(0.5, abs=0.001)
        for name, mask in Masks.load(pruned.masks).items():
            weight = model.get_parameter(name).detach()
            assert not bool(weight[~mask].any())
            assert bool(weight[mask].any())


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("method", ["l1_filter", "random", "uniform", "thinet", "reconstruction"])
def test_half_of_every_layer_is_half(done, method, regime):
    stage, runs = stage_of(done, method, regime)
    model = load_model(stage.run(runs))
    assert {name: model.get_submodule(name).out_channels for name in HALF} == HALF


def test_a_control_of_a_ticket_starts_from_other_weights(done):
    """Of the same masks and seed: neither convolutions nor the linear layer are those of the dense training."""
    starts = {}
    for regime in ("ticket", "scratch_e"):
        stage, runs = stage_of(done, "magnitude", regime)
        starts[regime] = starting_model(stage, Network.load(stage.run(runs)), runs).state_dict()
    for name in ("layer1.0.conv1.weight", "fc.weight"):
        assert not torch.equal(starts["ticket"][name], starts["scratch_e"][name])
