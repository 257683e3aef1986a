"""A design guided inside a study is that of the one-command tool: selected inputs have their part in the pattern."""

import pytest
import torch
from support.tiny_classification import tiny, train

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
    (route,) = train(tmp_path, changes).values()
    stage = next(s for s in route.stages if s.settings.get("method") == "guided")
    found = Pattern.from_json(stage.run(tmp_path).pattern.read_text())
    guide = Network.load(stage.parents[0].run(tmp_path))
    assert guide.plan.select
    model = build(arch, 10, {"depth": depth})
    example = torch.zeros(1, 3, 32, 32)
    expected = pattern_of(guide.plan, Dense(model, channel_groups(arch, model, example), example))
    assert found.widths == pytest.approx(expected.widths)
    assert PruningPlan.load(stage.run(tmp_path).plan).select


@pytest.mark.parametrize("more", [{"grid": {"prune.ratio": [0.3, 0.4]}}, {"variants": {"guided": {}}}])
@pytest.mark.parametrize("guide", [{"method": "slimming", "ratio": 0.4}, {"target": "resnet56-A"}])
def test_a_guide_is_read_alike_in_a_grid(guide, more):
    """What the file does not say of it is not taken for said: slimming has a level of its own, a target all."""
    arch = {"classifier.arch": "resnet56", "classifier.options": {}} if "target" in guide else {}
    changes = {**arch, "prune": {"method": "guided", "ratio": 0.4}, "guide": {"prune": guide}, **more}
    for route in tiny({**changes, "pipelines": ["scratch_e"]})[1]:
        made = next(s for s in route.stages if s.settings.get("method") == "guided")
        alone = tiny({**arch, "prune": {"method": "guided"}, "guide": {"prune": guide}, "pipelines": ["scratch_e"]})[1]
        other = next(s for s in alone[0].stages if s.settings.get("method") == "guided")
        assert [p.id for p in made.parents] == [p.id for p in other.parents]


@pytest.mark.parametrize("pipeline", ["pruned", "fine_tune", "ticket"])
def test_trained_weights_are_not_cut_by_a_design_of_the_study(pipeline):
    guided = {"prune": {"method": "guided"}, "guide": {"prune": {"method": "l1_filter", "ratio": 0.4}}}
    with pytest.raises(ValueError, match=f"pipelines.{pipeline}: prune: .*`guide`.*scratch_e.*prune.options.patterns"):
        tiny({**guided, "pipelines": [pipeline]})


def test_designs_after_networks_of_other_seeds_are_other_designs():
    prune = {"prune": {"method": "guided", "ratio": 0.4}, "pipelines": ["scratch_e"]}
    guide = {"prune": {"method": "slimming", "ratio": 0.4}}
    made = {}
    for seeds in ([0], [1], [0, 1], None):
        chosen = guide if seeds is None else {**guide, "seeds": seeds}
        for route in tiny({**prune, "guide": chosen})[1]:
            made[str(seeds)] = next(s for s in route.stages if s.settings.get("method") == "guided")
    assert made["None"].hash == made["[0]"].hash and "guide_seeds" not in made["[0]"].identity()
    assert made["[1]"].identity()["guide_seeds"] == [1]
    assert len({stage.hash for stage in made.values()}) == 3
