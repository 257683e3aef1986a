"""Chains of a user's own that prune twice, by every method: they run, or are refused before anything is trained."""

import pytest
from support.kinds_of_methods import AT_ONCE, IN_TRAINING
from support.short_schedules import CHANNELS_EACH_STEP
from support.tiny_classification import run, tiny

from pruning.design.pattern import Pattern
from pruning.methods import METHODS
from study.config.load import ConfigError
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pipelines import all_stages
from study.plan.rehearsal import Rehearsal
from study.stages.network import load_model

CHAINS = {
    "fine_tuned": ["classify_for_pruning", "prune", "fine_tune", "prune", "fine_tune"],
    "tickets": ["classify_for_pruning", "prune", "ticket", "prune", "ticket"],
    "mixed": ["classify_for_pruning", "prune", "fine_tune", "prune", "ticket"],
    "scratch": ["shape", "scratch_e", "prune", "fine_tune"],
}


def changes_for(method, folder, chain, **prune):
    pattern = folder / "pattern.json"
    pattern.write_text(Pattern(widths=(0.5, 0.25)).to_json())
    options = {"guided": {"patterns": [str(pattern)]}, **CHANNELS_EACH_STEP}.get(method, {})
    return {
        "prune": {"method": method, "ratio": 0.25, "options": options, **prune},
        "pipelines": {chain: CHAINS[chain]},
        "classifier.dataset.options.n_train": 32,
        "classifier.train.epochs": 1,
        "machine.precision": "float32",
    }


def refusal(changes, folder):
    config, routes = tiny(changes)
    with pytest.raises(ConfigError) as refused:
        foresee(all_stages(routes), Estimator(folder, config.machine), folder / "tiny.yaml")
    return str(refused.value)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("method", AT_ONCE)
def test_methods_that_go_on_from_no_masks_are_refused_before_training(method, chain, tmp_path):
    assert f"{method} cannot prune a network that single weights were removed from; lottery can" in refusal(
        changes_for(method, tmp_path, chain), tmp_path
    )


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("method", IN_TRAINING)
def test_methods_that_remove_while_training_prune_only_what_they_trained(method, chain, tmp_path):
    with pytest.raises(ValueError, match=rf"{method} removes weights while the network trains, so it prunes once"):
        tiny(changes_for(method, tmp_path, chain))


@pytest.mark.parametrize(
    ("begun", "retrain"),
    [
        (["shape", "scratch_e"], {}),
        (["shape", "scratch_b"], {}),
        (["shape", "scratch_e", "prune", "fine_tune"], {}),
        (["prune_at_init", "from_init"], {}),
        (["shape", "scratch_e"], {"classifier.retrain": "weight_rewind", "classifier.fine_tune.epochs": 1}),
    ],
)
@pytest.mark.parametrize("method", ["l1_filter", "taylor"])  # whose shape needs no training, and needs one
def test_weights_that_a_network_did_not_begin_with_are_not_gone_back_to(method, begun, retrain, tmp_path):
    step = "fine_tune" if retrain else "ticket"
    changes = {**changes_for(method, tmp_path, "scratch"), **retrain, "pipelines": {"mine": [*begun, "prune", step]}}
    with pytest.raises(
        ValueError, match=f"mine: {step}: goes back to weights of the dense training, and {begun[1]} beg"
    ):
        tiny(changes)


@pytest.mark.parametrize(
    ("method", "prune", "words"),
    [
        ("uniform", {"layers": {"layer1.*": 0.5}}, "uniform: one ratio for every layer"),
        ("soft_filter", {"level": "global"}, "soft_filter takes each layer's share from the user"),
        ("thinet", {"level": "global"}, "thinet takes each layer's share from the user"),
        ("lottery", {"layers": {"layer1.*": 0.5}}, "lottery: one threshold over the network"),
        ("slimming", {"skip": ["layer9"]}, "no layer matches 'layer9'"),
    ],
)
def test_what_a_method_does_not_take_is_refused_before_training(method, prune, words, tmp_path):
    assert words in refusal(changes_for(method, tmp_path, "fine_tuned", **prune), tmp_path)


@pytest.mark.parametrize("method", ["taylor", "group_fisher"])
def test_influences_rank_the_network_as_a_whole(method, tmp_path):
    config, routes = tiny(changes_for(method, tmp_path, "fine_tuned", level="global", ratio=0.5))
    estimator = Estimator(tmp_path, config.machine)
    foresee(all_stages(routes), estimator, tmp_path / "tiny.yaml")
    plan = Rehearsal(estimator).network(next(s for s in all_stages(routes) if s.kind == "prune")).plan
    assert sum(plan.kept_counts().values()) == pytest.approx(sum(plan.widths.values()) / 2, abs=1)


def test_shares_out_of_reach_are_refused_before_training(tmp_path):
    changes = changes_for("slimming", tmp_path, "fine_tuned", ratio=0.5)
    changes |= {"classifier.arch": "regnet_y_400mf", "classifier.options": {}}
    assert "slimming was asked to remove" in refusal(changes, tmp_path)
    config, routes = tiny({**changes, "prune.allow_partial": True, "pipelines": ["pruned"]})
    foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("method", [name for name in METHODS if name not in (*AT_ONCE, *IN_TRAINING)])
def test_two_prunings_in_a_chain_run(method, chain, tmp_path):
    (route,) = run(tmp_path / "runs", changes_for(method, tmp_path, chain)).values()
    sizes = []
    for _, stage in route.steps:
        result = stage.run(tmp_path / "runs").read_result()
        sizes.append(result["network"]["params"])
        if stage.kind == "prune":
            assert result["achieved"]["removed"] >= result["achieved"]["asked"] * 0.6
    assert sizes[0] > sizes[-1]
    load_model(route.evaluation.run(tmp_path / "runs"))
