"""The stage that trains a detector, and how others load it."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from classify.models import stages_of, traced_part
from classify.regimes import get_regime
from detect.budgets import Costs
from detect.build import Config, Detector, build_detector
from detect.cost import part_macs
from detect.data import DetectionDataset, class_names
from detect.data.loader import backbone_inputs, mean_image_size
from detect.data.open import open_detection
from detect.detector_config import make_config
from detect.distillation import Teacher
from detect.prune import backbone_groups
from detect.pyramid import join, narrow_pyramid, pyramid_groups
from detect.settings import TrainRun
from detect.single_level import masked_parts
from detect.train import scaled_to_processes, schedule_of, train_detector
from pruning.cost import TRAINING_FACTOR
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from pruning.methods import Effect
from pruning.recalibrate import recalibrate
from study.stages.classifier import random_start
from study.stages.data import classification_info, dataset_of
from study.stages.effects import method_effect, trained_network
from study.stages.length import detector_iterations, pretraining_macs
from study.stages.network import (
    Network,
    load_model,
    read_weights,
    save_weights,
)
from study.stages.prune import RECALIBRATION_BATCHES
from study.stages.settings import Scope, TrainDetector
from study.stages.stage import Context, Stage, load_stage
from training.distributed import is_main

DETECTORS = ("train_detector", "prune_detector")  # kinds of stages that hold one


def run_train_detector(context: Context) -> dict[str, object]:
    """Train a detector around the parent's network; artifacts: plan.json (backbone), weights.safetensors (all)."""
    stage, settings = context.stage, context.stage.read(TrainDetector)
    dataset = open_detection(settings.data, "train", context.data)
    network = Network.load(context.parent)
    torch.manual_seed(stage.seed)
    # Behind a pruning inside the detector the parent's file holds the whole detector: all weights are loaded below,
    # once it is built.
    inherited = settings.init == "inherited" and stage.parents[0].kind != "prune_detector"
    classifier = load_model(context.parent) if inherited else random_start(network)
    if settings.recalibrate:
        _recalibrate(classifier.to(context.device), network, dataset, stage)
    detector, cfg = build(stage, network, classifier, len(class_names(dataset)), device=context.device)
    if stage.parents[0].kind == "prune_detector":
        detector.load_state_dict(read_weights(context.parent.weights))
    size = mean_image_size(dataset, cfg)
    macs = part_macs(detector, image_size=size, masks=network.masks).training(cfg)
    teacher = _teacher(context, len(class_names(dataset)))
    taught = 0 if teacher is None else part_macs(teacher.detector, image_size=size).teacher(cfg, teacher.settings)
    iterations = _iterations(context, network, dataset, macs=macs + taught)
    train_settings = scaled_to_processes(settings.train.model_copy(update={"iterations": iterations}), cfg)
    run = TrainRun(
        seed=stage.seed,
        precision=context.precision,
        compile=context.machine.compile,
        num_workers=context.machine.workers,
        checkpoint_minutes=context.machine.checkpoint_minutes,
    )
    effects = _effects(stage, network, detector)
    outcome = train_detector(
        detector,
        cfg,
        dataset=dataset,
        settings=train_settings,
        run=run,
        checkpoint=context.run.checkpoint,
        schedule=_schedule(settings),
        validation=open_detection(settings.data, "val", context.data) if settings.train.validate_every else None,
        report=context.report,
        effects=effects,
        teacher=teacher,
    )
    if not is_main():  # of several processes that trained together one writes
        return {}
    trained_network(network, effects).save(context.run)
    save_weights(context.run.weights, detector)
    validated = {} if (kept := outcome.kept) is None else {"val_AP": kept.AP, "kept_iteration": kept.iteration}
    return {
        # pruned at 0: nothing was trained
        "metrics": {"final_loss": outcome.final_loss if iterations else None, **validated},
        "data": dataset.split.summary(),
        "network": network.as_result(),
        "iterations": outcome.iterations,
        **({} if kept is None else {"planned_iterations": train_settings.iterations}),
        "images_seen": outcome.images_seen,
        "precision": outcome.precision.as_result(),
        "train_macs": (macs + taught) * outcome.images_seen,
        **({"teacher_macs": taught * outcome.images_seen} if teacher else {}),
        "train_seconds": outcome.seconds,
    }


def _schedule(settings: TrainDetector) -> ParamScheduler | None:
    """The course of the rate in a regime of retraining; None for that of the settings."""
    if settings.retrain is None:
        return None
    return get_regime(settings.retrain).schedule(
        schedule_of(settings.train), settings.rewound_to or 0, settings.train.iterations
    )


def _iterations(context: Context, network: Network, dataset: DetectionDataset, *, macs: int) -> int:
    """How long the training is; `macs`: of one image in it."""
    before = context.stage.with_ancestors()[:-1]
    # functions, since a dense detector is built and traced for some of these numbers, and most rules ask for none
    costs = Costs(
        macs=lambda: macs,
        dense_macs=lambda: _dense_training_macs(context, network, dataset),
        before=lambda: sum(s.run(context.runs).read_result()["train_macs"] for s in before),
        dense_classification=lambda: _dense_classification(context, network),
        spare=lambda: _spare(context, network),
        teacher=lambda: _others_teacher_macs(context, network, dataset),
    )
    return detector_iterations(context.stage, costs)


def _teacher(context: Context, num_classes: int) -> Teacher | None:
    """The unpruned detector that this training is distilled from, if it is."""
    distill = context.stage.read(TrainDetector).distill
    if distill is None:
        return None
    _, detector, _ = load_detector(context.stage.parents[1], context.runs, num_classes, device=context.device)
    return Teacher(detector, distill)


def _recalibrate(classifier: nn.Module, network: Network, dataset: DetectionDataset, stage: Stage) -> None:
    """Estimate BatchNorm's statistics anew on the images that the detector is trained on, in place."""
    settings, device = stage.read(TrainDetector), next(classifier.parameters()).device
    # the backbone, which alone is looked at, does not ask how many classes there are
    cfg = make_config(settings.model, num_classes=1, pixel_mean=network.mean, pixel_std=network.std)
    images = backbone_inputs(dataset, cfg, batch_size=settings.train.batch_size, seed=stage.seed)
    recalibrate(classifier, (batch.to(device) for batch in islice(images, RECALIBRATION_BATCHES)))


def _dense_detector(context: Context, network: Network, dataset: DetectionDataset) -> tuple[Detector, Config]:
    """The detector around the unpruned network, with weights that mean nothing."""
    dense = network.dense()
    # only to be counted: the training must draw the same numbers with it and without
    with torch.random.fork_rng():
        return build(context.stage, dense, dense.build(), len(class_names(dataset)), device="cpu")


def _dense_training_macs(context: Context, network: Network, dataset: DetectionDataset) -> int:
    """Training MACs of one image in the detector around the unpruned network."""
    detector, cfg = _dense_detector(context, network, dataset)
    return part_macs(detector, image_size=mean_image_size(dataset, cfg)).training(cfg)


def _others_teacher_macs(context: Context, network: Network, dataset: DetectionDataset) -> int:
    """MACs of one image that the unpruned detector looks at where the route that this one is fair to is distilled."""
    pretraining = context.stage.read(TrainDetector).pretraining
    if pretraining is None or pretraining.distill is None:
        return 0
    detector, cfg = _dense_detector(context, network, dataset)
    return part_macs(detector, image_size=mean_image_size(dataset, cfg)).teacher(cfg, pretraining.distill)


def _dense_classification(context: Context, network: Network) -> int:
    """Training MACs of the unpruned classifier in the epochs that its budget counts."""
    budget = context.stage.read(TrainDetector).budget
    assert budget is not None  # it asks for this
    epochs = budget.classifier_epochs
    return TRAINING_FACTOR * network.dense().costs()["macs"] * epochs * _classification_images(context)


def _spare(context: Context, network: Network) -> int:
    """Training MACs by which the classifier before is cheaper than the one that the budget allows for."""
    allowed = pretraining_macs(
        context.stage,
        dense_macs=network.dense().costs()["macs"],
        pruned_macs=network.costs()["macs"],
        images=_classification_images(context),
    )
    return allowed - int(context.parent.read_result()["train_macs"])


def _classification_images(context: Context) -> int:
    dataset = dataset_of(context.stage)
    assert dataset is not None  # budgets that count the classifier's training are refused without
    return classification_info(dataset, context.machine, context.runs).n_train


def groups_inside(
    strides: Sequence[int], scope: Scope, network: Network, classifier: nn.Module, fpn: nn.Module | None
) -> list[Group]:
    """What may be narrowed of a detector's backbone with these levels, or of that and `fpn`."""
    stages, example = stages_of(network.plan.arch), traced_part(network.plan.arch, network.example())
    if scope == "backbone":
        return backbone_groups(classifier, example, strides=strides, stages=stages)
    return pyramid_groups(fpn, classifier, example, strides=strides, stages=stages)


def _effects(stage: Stage, network: Network, detector: Detector) -> list[Effect]:
    """Masks held on the parts they cover, and what pruning inside the detector asks of the training before."""
    effects: list[Effect] = []
    if network.masks is not None:
        # each part names its parameters as the classifier does, or as Detectron2 does an FPN's: so masks are told apart
        for part in masked_parts(detector).values():
            here = {name: mask for name, mask in network.masks.items() if name in dict(part.named_parameters())}
            if here:
                effects.append(HoldMasks(part, Masks(here)))
    settings = stage.read(TrainDetector)
    wanted = settings.effect
    if wanted is not None:
        trained = detector.backbone.bottom_up.body if wanted.scope == "backbone" else join(detector.backbone)
        strides, scope = settings.model.strides, wanted.scope
        effects.append(
            method_effect(
                wanted,
                trained,
                network,
                lambda: groups_inside(strides, scope, network, network.build(), detector.backbone),
                stage.seed,
            )
        )
    return effects


def finished_detector(run: Path) -> tuple[Stage, tuple[str, ...]]:
    """The stage that holds the detector of a finished run, or of the one that it evaluates, and its classes' names."""
    stage = load_stage(run)
    if stage.kind == "evaluate":
        stage = stage.parents[0]
    if stage.kind not in DETECTORS:
        kinds = f"choose one of kind {', '.join(DETECTORS)} or evaluate"
        raise Refusal(f"{run}: a run of kind {stage.kind!r} holds no detector; {kinds}")
    result = trained_by(stage).run(run.resolve().parents[1]).read_result()
    return stage, tuple(result["data"]["per_class"])


def trained_by(stage: Stage) -> Stage:
    """The training that names a detector's data and model: the stage itself, or the one that it was pruned after."""
    return stage if stage.kind == "train_detector" else stage.parents[0]


def load_detector(stage: Stage, runs: Path, num_classes: int, *, device: str) -> tuple[Network, Detector, Config]:
    """The network, the detector with its weights and Detectron2's config of a finished stage of DETECTORS."""
    run = stage.run(runs)
    network = Network.load(run)
    detector, cfg = build(trained_by(stage), network, network.build(), num_classes, device=device)
    detector.load_state_dict(read_weights(run.weights))
    return network, detector, cfg


def build(
    stage: Stage, network: Network, classifier: nn.Module, num_classes: int, *, device: str, blank: bool = False
) -> tuple[Detector, Config]:
    """The detector that a training stage's settings describe, around `classifier`, as narrow as `network` says.

    `blank` is as in `build_detector`.
    """
    detector, cfg = build_detector(
        classifier,
        stage.read(TrainDetector).model,
        num_classes=num_classes,
        pixel_mean=network.mean,
        pixel_std=network.std,
        device=device,
        blank=blank,
    )
    if network.pyramid_plan().changes_shape:
        narrow_pyramid(detector.backbone, network.pyramid_plan())
    return detector, cfg
