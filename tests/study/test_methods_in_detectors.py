"""Every pruning method on every route to a detector, in one study; nothing is supplied that the product must have."""

import csv
import math

import pytest
import torch
from support.kinds_of_methods import MASKING
from support.short_schedules import CHANNELS_EACH_STEP, EACH_STEP
from support.tiny_study import ALL, DIGITS, tiny

from pruning.design.pattern import Pattern
from pruning.masks import Masks
from pruning.methods import METHODS
from pruning.plan import PruningPlan
from pruning.surgery import mask
from study.run.study import run_study
from study.stages.detector import build, load_detector
from study.stages.network import Network, read_weights
from study.stages.prune_detector import prunable_groups
from study.stages.stage import Stage

pytestmark = pytest.mark.slow  # a study of some 150 stages: three minutes

PRUNED = [name for name in ALL if name != "unpruned"]
# of ResNet-10 with 8, 16, 32 and 64 channels; the last stage is no part of a detector with strides up to 16
HALF = {"layer1.0.conv1": 4, "layer2.0.conv1": 8, "layer3.0.conv1": 16}
BODY = "backbone.bottom_up.body."


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One study, a variant for each method: 32 images of digits in two batches, four iterations of a detector."""
    folder = tmp_path_factory.mktemp("methods")
    pattern = folder / "pattern.json"
    pattern.write_text(Pattern(widths=(0.5, 0.25)).to_json())
    prune = {"ratio": 0.5}
    changes = {"guided": {"options": {"patterns": [str(pattern)]}}, "soft_filter": {"ratio": 0.3}}  # as it trains
    changes |= {name: {"options": options} for name, options in (EACH_STEP | CHANNELS_EACH_STEP).items()}
    variants = {name: {"prune": {"method": name, **prune, **changes.get(name, {})}} for name in METHODS}
    config, routes = tiny(
        "classifier.dataset.options={image_size: 32, n_train: 32, n_val: 10, n_test: 10}",
        "classifier.train.epochs=1",
        "classifier.fine_tune={epochs: 1, lr: 0.004}",
        "detector.dataset.digits.train=4",
        "detector.dataset.digits.test=2",
        "detector.train.iterations=4",
        "detector.prune_at=0.5",
        "evaluate={scenes: 0, latency_rounds: 1}",
        "machine.precision=float32",
        f"variants={variants}",
    )
    out, outcome = run_study(config, DIGITS, routes, folder / "runs")
    return out, outcome, routes, folder / "runs"


def detector_of(done, method, pipeline) -> tuple[Stage, object]:
    _, _, routes, runs = done
    (route,) = [r for r in routes if r.pipeline == pipeline and r.point.get("variant") == method]
    return route.evaluation.parents[0], runs


def test_the_study_is_complete_and_every_row_has_its_score(done):
    out, outcome, _, _ = done
    assert outcome.complete, outcome.failed
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + len(METHODS) * len(PRUNED)
    assert all(math.isfinite(float(row["AP"])) for row in rows)


@pytest.mark.parametrize("pipeline", PRUNED)
@pytest.mark.parametrize("method", METHODS)
def test_the_detector_is_that_of_the_pruned_network(done, method, pipeline):
    """Its weights are as narrow as its plan says and finite, or as masked as its masks say."""
    stage, runs = detector_of(done, method, pipeline)
    directory = stage.run(runs)
    weights, network = read_weights(directory.weights), Network.load(directory)
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    plan = PruningPlan.load(directory.plan)
    for name, keep in plan.keep.items():
        if f"{BODY}{name}.weight" in weights:
            assert weights[f"{BODY}{name}.weight"].shape[0] == len(keep), name
    assert (network.masks is not None) == (method in MASKING)
    for name, held in (Masks.load(directory.masks) if network.masks is not None else {}).items():
        if f"{BODY}{name}" in weights:
            weight = weights[f"{BODY}{name}"]
            assert not bool(weight[~held].any()) and bool(weight[held].any()), name


@pytest.mark.parametrize("pipeline", PRUNED)
@pytest.mark.parametrize("method", ["l1_filter", "random", "uniform", "thinet", "reconstruction"])
def test_half_of_every_layer_is_half(done, method, pipeline):
    stage, runs = detector_of(done, method, pipeline)
    weights = read_weights(stage.run(runs).weights)
    assert {name: weights[f"{BODY}{name}.weight"].shape[0] for name in HALF} == HALF


@pytest.mark.parametrize("pipeline", ["prune_then_transfer", "transfer_then_prune"])
@pytest.mark.parametrize("method", METHODS)
def test_masked_and_small_network_agreed(done, method, pipeline):
    stage, runs = detector_of(done, method, pipeline)
    pruned = next(s for s in reversed(stage.with_ancestors()) if s.kind in ("prune", "prune_detector"))
    assert pruned.run(runs).read_result()["masked_equals_small"] < 1e-4


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_what_calibration_rewrote_is_rewritten_in_the_detector(done, method):
    """The convolutions that read the narrowed ones do not hold a cut of the weights that training left there."""
    stage, runs = detector_of(done, method, "transfer_then_prune")
    pruned = stage.parents[0]
    before, after = (read_weights(s.run(runs).weights) for s in (pruned.parents[0], pruned))
    for block in ("layer1.0", "layer2.0", "layer3.0"):
        keep = list(PruningPlan.load(pruned.run(runs).plan).keep[f"{block}.conv1"])
        name = f"{BODY}{block}.conv2.weight"
        assert not torch.allclose(after[name], before[name][:, keep])


def before_and_after(done, method):
    """The detector that pruning was given inside `transfer_then_prune`, the one that it left, and its plan."""
    last, runs = detector_of(done, method, "transfer_then_prune")
    pruned = last.parents[0]
    trained = pruned.parents[0]
    network, before, _ = load_detector(trained, runs, 10, device="cpu")
    small = Network.load(pruned.run(runs))
    after, _ = build(trained, small, small.build(), 10, device="cpu")
    after.load_state_dict(read_weights(pruned.run(runs).weights))
    groups = prunable_groups(pruned, network, network.build(), before.backbone)
    return before.eval(), after.eval(), small, groups


def assert_same_detector(one, other):
    """The same features, proposals' scores included, and boxes in images that neither was trained on."""
    generator = torch.Generator().manual_seed(0)
    for size in ((64, 64), (50, 64)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        with torch.no_grad():
            batch = one.preprocess_image([{"image": image}]).tensor
            expected, found = one.backbone(batch), other.backbone(batch)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
            first, second = (d([{"image": image}])[0]["instances"] for d in (one, other))
        assert len(first) == len(second)
        torch.testing.assert_close(second.scores, first.scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["l1_filter", "random", "uniform", "guided", "slimming", "structure_selection"])
def test_the_small_detector_is_the_masked_one(done, method):
    before, after, small, groups = before_and_after(done, method)
    body = before.backbone.bottom_up.body
    before.backbone.bottom_up.body = mask(body, small.plan, groups)
    assert small.plan.changes_shape
    assert_same_detector(before, after)


@pytest.mark.parametrize("method", ["soft_filter", "group_fisher"])
def test_what_training_zeroed_is_what_is_cut(done, method):
    """The last act in the detector's training was a zeroing, so that cutting changes nothing, with no mask."""
    before, after, small, _ = before_and_after(done, method)
    assert small.plan.changes_shape
    assert_same_detector(before, after)


@pytest.mark.parametrize("method", MASKING)
def test_masks_take_single_weights_and_nothing_else(done, method):
    before, after, small, _ = before_and_after(done, method)
    assert small.masks is not None
    for name, tensor in before.state_dict().items():
        held = small.masks.get(name.removeprefix(BODY))
        assert torch.equal(after.state_dict()[name], tensor if held is None else tensor * held), name
