"""What pruning asks of the training before it: by the same selection, shared where it makes no difference."""

import pytest
import torch
from support.tiny_classification import tiny, train
from torch import nn

from study.config.load import ConfigError
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pipelines import all_stages
from study.stages.network import load_model

SOFT = {"prune": {"method": "soft_filter", "ratio": 0.5}, "pipelines": ["pruned"]}


def trainings(changes):
    _, routes = tiny(changes)
    return {route.steps[0][1].id for route in routes}


def test_a_grid_shares_a_training_only_where_it_does_not_depend_on_the_field():
    assert len(trainings({**SOFT, "grid": {"prune.ratio": [0.25, 0.5]}})) == 2
    assert len(trainings({**SOFT, "grid": {"prune.skip": [[], ["conv1"]]}})) == 2
    assert len(trainings({**SOFT, "grid": {"prune.scope": ["inner", "all"]}})) == 1
    for method in ("slimming", "structure_selection", "l1_filter"):
        grid = {"prune.ratio": [0.25, 0.5]}
        assert len(trainings({"prune": {"method": method}, "pipelines": ["pruned"], "grid": grid})) == 1


@pytest.mark.parametrize("option", [{"ratio": 0.3}, {"skip": ["conv1"]}])
def test_a_selection_among_the_options_is_refused_with_the_key_to_use(option):
    (name,) = option
    with pytest.raises(ConfigError, match=f"has no option '{name}': `{name}` beside `method` says it"):
        tiny({**SOFT, "prune": {"method": "soft_filter", "ratio": 0.5, "options": option}})


GROUP_FISHER = {"method": "group_fisher", "ratio": 0.4, "level": "global", "options": {"every": 1, "by": "macs"}}


def test_channels_that_went_in_training_are_those_that_are_cut(tmp_path):
    (route,) = train(tmp_path, {"prune": GROUP_FISHER, "pipelines": ["pruned"]}).values()
    trained, pruned = (load_model(stage.run(tmp_path)) for _, stage in route.steps)
    cut = 0
    for name, layer in trained.named_modules():
        if isinstance(layer, nn.Conv2d):
            zeroed = int((layer.weight.flatten(1).norm(dim=1) == 0).sum())
            assert zeroed == len(layer.weight) - len(pruned.get_parameter(f"{name}.weight"))
            cut += zeroed
    assert cut == int(0.4 * (8 + 16 + 32 + 64))
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(pruned.eval()(x), trained.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_training_too_short_to_lose_its_channels_is_refused_before_anything_is_trained(tmp_path):
    """Six steps, with a removal after each of the last three; one channel at a time would take 48."""
    changes = {"prune": {**GROUP_FISHER, "options": {"every": 1, "at_once": 1}}, "pipelines": ["pruned"]}
    config, routes = tiny(changes)
    with pytest.raises(ConfigError, match=r"a training of 6 steps has 3 removals, .* 48 channels take 48 of them"):
        foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")


def test_soft_training_zeroes_what_the_pruning_cuts(tmp_path):
    changes = {**SOFT, "prune": {"method": "soft_filter", "ratio": 0.5, "skip": ["conv1"]}}
    (route,) = train(tmp_path, {**changes, "machine.precision": "float32"}).values()
    trained, pruned = (load_model(stage.run(tmp_path)) for _, stage in route.steps)
    for name, layer in trained.named_modules():
        if isinstance(layer, nn.Conv2d):
            zeroed = int((layer.weight.flatten(1).norm(dim=1) == 0).sum())
            cut = len(layer.weight) - len(pruned.get_parameter(f"{name}.weight"))
            assert zeroed == cut == (0 if name == "conv1" else len(layer.weight) // 2)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(pruned.eval()(x), trained.eval()(x), rtol=1e-4, atol=1e-4)
