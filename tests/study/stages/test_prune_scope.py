"""`detector.prune_scope`: what it adds to stages, refuses and costs; channels and single weights end to end."""

import json

import pytest
import torch
from support.stages_alone import run_alone
from support.tiny_study import DIGITS, tiny

from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.config.detector import check_pyramid
from study.export import export_run
from study.plan.estimate import Estimator
from study.run.study import run_study
from study.stages.detector import load_detector
from study.stages.network import Network, read_weights
from training.strict_yaml import ConfigError

WITH_FPN = "detector.prune_scope=backbone+fpn"
SLIMMING = "prune={method: slimming, ratio: 0.4}"
NORM = "detector.model.overrides={MODEL.FPN.NORM: BN}"
LATERALS = ("fpn_lateral4", "fpn_lateral3", "fpn_lateral2")


def stages(*overrides):
    return {route.pipeline: route.stages for route in tiny(*overrides)[1]}


def test_the_default_adds_nothing_to_any_stage():
    """So that the hashes of finished runs stay theirs."""
    found = stages(SLIMMING)
    assert {
        name: [s.id for s in chain] for name, chain in stages(SLIMMING, "detector.prune_scope=backbone").items()
    } == {name: [s.id for s in chain] for name, chain in found.items()}
    chain = {stage.kind: stage for stage in reversed(found["transfer_then_prune"])}
    assert chain["prune_detector"].settings.keys() == {"method", "options", "target", "selection"}
    assert chain["train_detector"].settings["effect"].keys() == {"method", "options"}
    assert chain["train_detector"].settings.keys() == {"data", "model", "train", "init", "effect"}


def test_only_pruning_inside_a_detector_is_another():
    before, after = stages(), stages(WITH_FPN)
    differing = {name for name in before if [s.id for s in before[name]] != [s.id for s in after[name]]}
    assert differing == {"transfer_then_prune"}
    one, two = before["transfer_then_prune"], after["transfer_then_prune"]
    assert [a.id == b.id for a, b in zip(one, two, strict=True)] == [True, True, False, False, False]
    assert two[2].settings["scope"] == "backbone+fpn"


def test_what_a_method_adds_to_training_is_told_the_scope():
    before, after = (stages(SLIMMING, NORM, *scope)["transfer_then_prune"] for scope in ((), (WITH_FPN,)))
    assert "scope" not in before[1].settings["effect"]
    assert after[1].settings["effect"]["scope"] == "backbone+fpn"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["detector.prune_scope=fpn"], "prune_scope: 'fpn' does not fit; expected: one of backbone, backbone+fpn"),
        (
            [WITH_FPN, "detector.model={head: c4, strides: [8]}"],
            "prune_scope: backbone+fpn needs model.head: fpn or cascade or mask or retinanet; c4 has no FPN",
        ),
        (
            [WITH_FPN, SLIMMING],
            "slimming ranks channels by the BatchNorm behind them and the FPN has none; set detector.model.overrides",
        ),
        ([WITH_FPN, "prune={method: structure_selection}"], "structure_selection ranks channels by the BatchNorm"),
        (
            [WITH_FPN, "detector.model.overrides={MODEL.FPN.NORM: GN}"],
            "an FPN with MODEL.FPN.NORM 'GN' cannot be pruned; choose from '', 'BN', 'SyncBN'",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_sentence(overrides, message):
    with pytest.raises(ConfigError) as error:
        tiny(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_detectron2_yaml_may_say_the_norm(tmp_path):
    file = tmp_path / "fpn.yaml"
    file.write_text("VERSION: 2\n")
    with pytest.raises(ConfigError, match="slimming ranks channels by the BatchNorm"):
        stages(WITH_FPN, SLIMMING, f"detector.model.config_file={file}")
    file.write_text("MODEL: {FPN: {NORM: BN}}\n")
    chain = stages(WITH_FPN, SLIMMING, f"detector.model.config_file={file}")["transfer_then_prune"]
    assert chain[2].settings["scope"] == "backbone+fpn"
    with pytest.raises(ValueError, match="slimming ranks channels by the BatchNorm"):
        check_pyramid("slimming", "")
    check_pyramid("slimming", "BN")
    check_pyramid("l1_filter", "")


def test_the_cost_ahead_of_training_by_hand(tmp_path):
    """16 channels of the FPN become 8. At 64 x 64 pixels p2, p3, p4 have 256, 64 and 16 positions."""
    costs = {}
    for scope in ("backbone", "backbone+fpn"):
        config, routes = tiny("pipelines=[transfer_then_prune]", f"detector.prune_scope={scope}")
        estimator, stage = Estimator(tmp_path, config.machine), routes[0].stages[2]
        costs[scope] = estimator.estimate(stage)
        assert estimator.network(stage).plan.kept_counts().get("fpn_lateral4") == (8 if "fpn" in scope else None)
    macs = sum(n * (width * 8 + 8 * 16 * 9) for width, n in ((8, 256), (16, 64), (32, 16)))
    assert costs["backbone"].macs - costs["backbone+fpn"].macs == macs
    params = (8 + 16 + 32) * 8 + 3 * 8 + 3 * 8 * 16 * 9  # of a lateral its bias too
    assert costs["backbone"].params - costs["backbone+fpn"].params == params


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Pruning inside the detector with its FPN, two iterations before and after, by channels and by single weights."""
    runs = tmp_path_factory.mktemp("runs")
    variants = (
        "variants={channels: {prune: {ratio: 0.5, scope: all}}, weights: {prune: {method: magnitude, ratio: 0.6}}}"
    )
    share = "detector.prune_at=0.5"
    config, routes = tiny("pipelines=[unpruned, transfer_then_prune]", WITH_FPN, variants, share)
    out, outcome = run_study(config, DIGITS, routes, runs)
    assert outcome.complete, outcome
    return out, {route.point.get("variant", "dense"): route for route in routes}, runs


@pytest.mark.slow
def test_a_narrower_pyramid_is_trained_loaded_and_exported(finished, tmp_path):
    _, routes, runs = finished
    stage = routes["channels"].evaluation.parents[0]
    plan = PruningPlan.load(stage.run(runs).plan)
    assert plan.kept_counts()["fpn_lateral4"] == 8 and plan.kept_counts()["layer2.0.conv2"] == 8
    _, detector, _ = load_detector(stage, runs, 10, device="cpu")
    fpn = detector.backbone
    assert [fpn.get_submodule(name).weight.shape[:2] for name in LATERALS] == [(8, 16), (8, 8), (8, 4)]
    before = read_weights(stage.parents[0].run(runs).weights)
    assert before.keys() == detector.state_dict().keys()
    assert not torch.equal(before["backbone.fpn_output2.weight"], fpn.fpn_output2.weight)  # it went on training
    for exported in (stage, stage.parents[0]):
        assert export_run(exported.run(runs).path, "torchscript", out=tmp_path / "net.pt")["task"] == "detector"


@pytest.mark.slow
def test_single_weights_of_a_pyramid_stay_zero(finished):
    _, routes, runs = finished
    run = routes["weights"].evaluation.parents[0].run(runs)
    masks, weights = Masks.load(run.masks), read_weights(run.weights)
    own = [name for name in masks if name.startswith("fpn_")]
    assert len(own) == 6 and len(masks) == 9 + 6  # layer4 is not in the detector
    for name, mask in masks.items():
        weight = weights[f"backbone.{name}" if name in own else f"backbone.bottom_up.body.{name}"]
        assert bool((weight[~mask] == 0).all()) and bool((weight[mask] != 0).all()), name
    assert masks.density() == pytest.approx(0.4, abs=0.001)
    assert Network.load(run).costs()["density"] != masks.density()  # of the classifier alone


@pytest.mark.slow
def test_the_table_counts_what_is_left_of_the_pyramid(finished):
    out, _, _ = finished
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    dense, channels, weights = ({**row["point"], **row} for row in rows)
    assert (channels["variant"], weights["variant"]) == ("channels", "weights")
    for cost in ("backbone_params", "backbone_macs", "detector_params", "detector_macs"):
        assert channels[cost] < dense[cost] and weights[cost] < dense[cost]
    own = [row["detector_macs"] - row["backbone_macs"] for row in (dense, channels, weights)]
    assert own[1] < own[0] and own[2] < own[0]


def test_channels_that_went_while_a_detector_trained_are_cut_in_the_study(tmp_path):
    """Of body and FPN, in the second half of the detector's training."""
    fisher = "prune={method: group_fisher, ratio: 0.4, level: global, options: {every: 1, by: macs}}"
    config, routes = tiny(
        fisher, WITH_FPN, "pipelines=[transfer_then_prune]", "detector.train.iterations=16", "machine.precision=float32"
    )
    run_alone(config, routes, tmp_path)
    *_, trained, pruned, _, _ = routes[0].stages
    assert (trained.kind, pruned.kind) == ("train_detector", "prune_detector")
    assert trained.settings["effect"]["scope"] == "backbone+fpn"
    before, after = (read_weights(stage.run(tmp_path).weights) for stage in (trained, pruned))
    plan = PruningPlan.load(pruned.run(tmp_path).plan)
    assert any(name in LATERALS for name in plan.keep)
    for name, kept in plan.keep.items():
        key = f"backbone.{name}.weight" if name in LATERALS else f"backbone.bottom_up.body.{name}.weight"
        alive = before[key].flatten(1).any(1).nonzero().flatten().tolist()
        assert alive == list(kept) and len(after[key]) == len(kept), name
    assert pruned.run(tmp_path).read_result()["masked_equals_small"] < 1e-4
