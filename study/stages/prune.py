"""The stage that prunes a classifier: a trained one, or an untrained one where only the shape is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classify.batch_norms import norms_of_single_values
from classify.calibration import CalibrationImages
from classify.data import Splits
from classify.data.images import balanced_indices
from pruning.cost import TRAINING_FACTOR
from pruning.cut import VOID_CHECK, Pruned, prune
from pruning.design.pattern import average
from pruning.design.widths_and_masks import Dense, pattern_of
from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.methods import METHODS, MethodOptions, get_method
from pruning.recalibrate import recalibrate
from pruning.targets import prune_to_shape
from study.stages.between_layers import FineTuning
from study.stages.classifier import accuracy, measured_splits
from study.stages.cost_left import cost_left
from study.stages.data import dataset_of, open_classification
from study.stages.network import (
    Network,
    Sizes,
    dense_groups,
    dense_network,
    load_model,
    made_network,
    own_network,
    save_weights,
    starts_dense,
)
from study.stages.settings import Prune
from study.stages.stage import Context
from study.stages.store import RunDir
from training.files import write_text

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from detect.prune import PrunedDetector

RECALIBRATION_BATCHES, _RECALIBRATION_BATCH_SIZE = 100, 128  # of the training images, as in the study
CALIBRATION_BATCH_SIZE = 64
CHECKED_IMAGES = 8  # on which the masked and the smaller network must agree


@dataclass(frozen=True)
class _Before:
    """The network that is about to be pruned, and its data; None where nothing is classified."""

    network: Network
    model: nn.Module
    data: Splits | None

    def images(self, index: Tensor) -> CalibrationImages:
        """Training images (n,) with the network's normalisation."""
        assert self.data is not None
        return CalibrationImages(self.data.train.subset(index), self.network.mean, self.network.std)


def run_prune(context: Context) -> dict[str, object]:
    """Prune; artifacts: plan.json, weights.safetensors, masks.safetensors from methods that remove single weights.

    Of a network that was trained on a data set also correct.npy.
    """
    settings, run = context.stage.read(Prune), context.run
    before = _before(context)
    options = _options(context, before)
    index, tuning = _looked_at(before, settings), None
    if settings.between_layers is not None:
        assert before.data is not None  # it is trained on what the classifier was
        tuning = FineTuning(context, before.network, before.data, settings.between_layers)
    pruned = _prune(context, before, options, index, finetune=tuning)
    small = before.network.then(pruned.plan, pruned.masks)
    small.save(run)
    save_weights(run.weights, pruned.model)
    scored = before.data is not None and not starts_dense(context.stage)
    return {
        "metrics": _metrics(pruned.model.to(context.device), before, settings, run) if scored else {},
        "network": small.as_result() | small.costs(),
        "dense": before.network.dense().costs(),
        **pruning_facts(pruned, before.network.costs(), small.costs()),
        **choosing_facts(pruned, None if index is None else len(index)),
        **({"train_macs": 0} if tuning is None else _spent(tuning)),
    }


def _spent(tuning: FineTuning) -> dict[str, object]:
    """What the fine-tuning between layers cost, in a network whose removed channels are zero and still there."""
    tuning.finish()
    return {
        "images_seen": tuning.images_seen,
        "train_macs": TRAINING_FACTOR * tuning.network.costs()["macs"] * tuning.images_seen,
        "train_seconds": tuning.seconds,
        "precision": None if tuning.precision is None else tuning.precision.as_result(),
    }


def pruning_facts(pruned: "Pruned | PrunedDetector", before: Sizes, after: Sizes) -> dict[str, object]:
    """What a result says of a pruning: asked against achieved, what it saved, how far the check's networks differed.

    `before`, `after`: params and macs.
    """
    assert pruned.achieved is not None
    saved = {"params": before["params"] - after["params"], "macs": before["macs"] - after["macs"]}
    void = {"check": VOID_CHECK} if pruned.difference is None else {}
    return {"achieved": pruned.achieved.as_result() | saved, "masked_equals_small": pruned.difference, **void}


def choosing_facts(pruned: "Pruned | PrunedDetector", n_images: int | None) -> dict[str, object]:
    """What a result says of the cost of choosing: seconds, and the images looked at by a method that does so."""
    seconds: dict[str, object] = {} if pruned.seconds is None else {"prune_seconds": round(pruned.seconds, 3)}
    return seconds if n_images is None else {**seconds, "calibration_images": n_images}


def _before(context: Context) -> _Before:
    stage, dataset = context.stage, dataset_of(context.stage)
    data = None if dataset is None else open_classification(dataset, context.machine, context.runs)
    if not starts_dense(stage):
        return _Before(Network.load(context.parent), load_model(context.parent), data)
    network = made_network(own_network(stage)) if data is None else dense_network(own_network(stage), data)
    torch.manual_seed(stage.seed)
    return _Before(network, network.build(), data)


def _options(context: Context, before: _Before) -> Any:
    """The method's options, with what earlier stages left for it: masks of the round before, patterns to follow."""
    stage, settings = context.stage, context.stage.read(Prune)
    options = after_masks(settings.method, settings.method_options(), before.network.masks)
    if starts_dense(stage) and stage.parents:
        write_pattern([Network.load(parent.run(context.runs)) for parent in stage.parents], context.run.pattern)
        options = replace(options, patterns=(str(context.run.pattern),))
    return options


def after_masks(method: str, options: Any, masks: Masks | None) -> Any:
    """The options of a method for a network that masks were held on, or that has lost no single weight.

    ValueError where the method cannot go on from masks.
    """
    if get_method(method).continues_masks:
        return replace(options, masks=Masks({}) if masks is None else masks)
    if masks is not None:
        able = " or ".join(name for name, m in METHODS.items() if m.continues_masks and not m.removes_in_training)
        raise Refusal(f"{method} cannot prune a network that single weights were removed from; {able} can")
    return options


def write_pattern(guides: Sequence[Network], file: Path) -> None:
    """What the guiding networks have in common, by stage of the network."""
    patterns = []
    for guide in guides:
        model = guide.dense().build()
        # where single weights went no channels are asked for, and they may be such as nobody can follow
        groups = [] if guide.masks is not None else dense_groups(guide, model)
        patterns.append(pattern_of(guide.plan, Dense(model, groups, guide.example()), guide.masks))
    write_text(file, average(patterns).to_json())


def _prune(
    context: Context, before: _Before, options: MethodOptions, index: Tensor | None, *, finetune: FineTuning | None
) -> Pruned:
    """Where the network runs; what comes back is on the CPU. `index`: of the images that the method looks at."""
    settings, seed, device = context.stage.read(Prune), context.stage.seed, context.device
    network = before.network
    if before.data is None:
        # noise will do: the masked and the smaller network must agree on any input
        generator = torch.Generator().manual_seed(seed)
        batch = torch.randn(CHECKED_IMAGES, *network.example().shape[1:], generator=generator)
    else:
        batch = before.images(torch.arange(min(CHECKED_IMAGES, len(before.data.train)))).inputs(0, CHECKED_IMAGES)
    shape = settings.structural
    unstructured = shape is None and get_method(settings.method).unstructured(options)
    # found by tracing, which not every network bears that may lose single weights
    groups = [] if unstructured else dense_groups(network, before.model)
    model, batch = before.model.to(device), batch.to(device)
    if shape is not None:
        return prune_to_shape(model, network.arch, groups, shape, batch=batch).cpu()
    return prune(
        model,
        network.arch,
        groups,
        settings.method,
        settings.selection,
        batch=batch,
        seed=seed,
        options=options,
        calibration=None if index is None else before.images(index).losses(CALIBRATION_BATCH_SIZE),
        finetune=finetune,
        allow_partial=settings.allow_partial,
        cost_left=cost_left(network, groups) if settings.selection.cost_target else None,
    ).cpu()


def _metrics(model: nn.Module, before: _Before, settings: Prune, run: RunDir) -> dict[str, float]:
    """Accuracy right after pruning; on the test split also with BatchNorm's statistics estimated anew."""
    network, data = before.network, before.data
    assert data is not None
    found = accuracy(model, data, network, measured_splits(untested=settings.untested), correct=run.correct)
    if settings.untested:
        return found
    device = next(model.parameters()).device
    # the same images for all networks and seeds; the model changes in place, which its file, already written, does not
    index = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    batches = list(index[: RECALIBRATION_BATCHES * _RECALIBRATION_BATCH_SIZE].split(_RECALIBRATION_BATCH_SIZE))
    if len(batches) > 1 and len(batches[-1]) == 1 and norms_of_single_values(model, network.example().to(device)):
        batches[-2:] = [torch.cat(batches[-2:])]  # such a norm cannot take one image
    recalibrate(model, (before.images(batch).inputs(0, len(batch)).to(device) for batch in batches))
    return found | {"recalibrated_top1": accuracy(model, data, network, ("test",))["test_top1"]}


def _looked_at(before: _Before, settings: Prune) -> Tensor | None:
    """The training images that the method looks at, (n,), the classes taking turns; None if it looks at none."""
    if settings.structural is not None or get_method(settings.method).needs == "nothing":
        return None
    assert before.data is not None  # methods that look at images are refused without
    labels = before.data.train.labels
    return balanced_indices(labels, settings.calibration.n_images(labels))
