"""A design guided inside a study is that of the one-command tool: selected inputs have their part in the pattern."""

import pytest
import torch
from support.tiny_classification import run

from classify.models import build, channel_groups
from pruning.design.pattern import Pattern
from pruning.design.widths_and_masks import Dense, pattern_of
from pruning.plan import PruningPlan
from study.stages.network import Network


@pytest.mark.parametrize(("arch", "depth"), [("cifar_preresnet", 11), ("cifar_densenet", 10)])
def test_a_guide_that_selects_inputs_gives_its_own_pattern(arch, depth, tmp_path):
    changes = {
        "classifier.arch": arch,
        "classifier.options": {"depth": depth},
        "classifier.dataset.options.n_train": 32,
        "classifier.train.epochs": 1,
        "prune": {"method": "guided", "ratio": 0.4},
        "guide": {"prune": {"method": "slimming", "ratio": 0.4}},
        "pipelines": ["scratch_e"],
        "machine.precision": "float32",
    }
    (route,) = run(tmp_path, changes).values()
    stage = next(s for s in route.stages if s.settings.get("method") == "guided")
    found = Pattern.from_json(stage.run(tmp_path).pattern.read_text())
    guide = Network.load(stage.parents[0].run(tmp_path))
    assert guide.plan.select
    model = build(arch, 10, {"depth": depth})
    example = torch.zeros(1, 3, 32, 32)
    expected = pattern_of(guide.plan, Dense(model, channel_groups(arch, model, example), example))
    assert found.widths == pytest.approx(expected.widths)
    assert PruningPlan.load(stage.run(tmp_path).plan).select
