"""Detector training on Detectron2's trainer; on the CPU a killed run ends with the same bits.

Where Detectron2's `launch` started several processes (see detect/processes.py) they train one detector: each takes its
images of every batch, gradients and reported losses are means over the processes, effects act alike in each, and the
main one writes.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.solver import get_default_optimizer_params
from detectron2.structures import Boxes, Instances
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.utils.data import DataLoader

from classify.optimizers import fused_sgd
from detect.build import Detector
from detect.data import DetectionDataset, class_names
from detect.data.loader import sizes_vary, train_loader
from detect.data.records import Record
from detect.distillation import Teacher
from detect.evaluate import evaluate_detector
from detect.hooks import Checkpointer, EffectHook, Report, Reporter, Schedule, Stop, saved_training
from detect.settings import TrainRun, TrainSettings
from detect.validation import Enough, Kept, Validation
from pruning.errors import Diverged, Refusal
from pruning.methods import Effect
from training.checkpoint_writer import CheckpointWriter
from training.compiled import compiled
from training.device import Precision, settle_together
from training.distributed import data_parallel, from_main, is_main, mean_over_processes, rank, world_size
from training.layout import channels_last
from training.options import changed
from training.schedule import lr_schedule
from training.seeding import seed_generators
from training.stopping import between_steps
from training.synchronised_norm import synchronised_norms


def check_divisible(batch_size: int, processes: int) -> None:
    """ValueError unless the processes get equally many images of a batch."""
    if batch_size % processes:
        raise Refusal(f"batch_size={batch_size} cannot be split evenly over {processes} processes")


def scaled_to_processes(settings: TrainSettings, cfg: CfgNode) -> TrainSettings:
    """The settings for as many processes as there are, where cfg.SOLVER.REFERENCE_WORLD_SIZE says what they are for.

    By Detectron2's rule each process keeps its images per step: batch and learning rate grow with the processes,
    iterations shrink; what is a fraction of the training stays it. As it is (0) the settings are for any number.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if not reference:
        return settings
    if settings.batch_size % reference:
        raise Refusal(f"batch_size={settings.batch_size} is no multiple of SOLVER.REFERENCE_WORLD_SIZE={reference}")
    scaled = cfg.clone()
    scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.BASE_LR = settings.batch_size, settings.lr
    scaled.SOLVER.MAX_ITER = settings.iterations
    solver = DefaultTrainer.auto_scale_workers(scaled, world_size()).SOLVER
    changes = {"batch_size": solver.IMS_PER_BATCH, "lr": solver.BASE_LR, "iterations": solver.MAX_ITER}
    return changed(settings, changes, "SOLVER.REFERENCE_WORLD_SIZE")


@dataclass(frozen=True)
class TrainOutcome:
    """What the training came to; seconds of training and validation, earlier processes' included.

    `iterations`: trained, also after the one that is kept. `kept`: None where nothing was validated.
    """

    iterations: int
    images_seen: int
    seconds: float
    final_loss: float
    precision: Precision
    kept: Kept | None = None


def train_detector(
    detector: Detector,
    cfg: CfgNode,
    *,
    dataset: DetectionDataset,
    settings: TrainSettings,
    run: TrainRun,
    checkpoint: Path,
    schedule: ParamScheduler | None = None,
    validation: DetectionDataset | None = None,
    report: Report | None = None,
    effects: Sequence[Effect] = (),
    teacher: Teacher | None = None,
) -> TrainOutcome:
    """Train a detector in place, from `checkpoint` if that exists, and leave it there when done.

    `schedule`: multiplier of `settings.lr` by progress, None for that of the settings.
    `validation`: what `settings.validate_every` measures AP on. `report(step, total, metrics)` is called now and then
    with the losses, the learning rate and that AP, in the main process.
    `effects`: what a pruning method adds to the training, already bound to the network it acts on. `teacher`: what the
    detector is distilled from; it is frozen and in no checkpoint.
    Raises ValueError on settings that do not fit, FloatingPointError with the step of a loss that is not finite,
    Stopped after a step and a checkpoint when a signal asks for it (`training.stopping`).
    """
    _check_classes(dataset, cfg)
    check_divisible(settings.batch_size, world_size())
    device = next(detector.parameters()).device.type
    schedule, total = schedule or schedule_of(settings), settings.iterations
    identity = {"seed": run.seed, "iterations": total, "batch_size": settings.batch_size}
    saved = saved_training(checkpoint, identity, settings.stated(), device)
    precision = replace(settle_together(run.precision, device), compiled=run.compile).of_checkpoint(saved, checkpoint)
    detectors = (detector,) if teacher is None else (detector, teacher.detector)
    with channels_last(*detectors, dtype=precision.dtype), CheckpointWriter(checkpoint) as writer:
        optimizer = _optimizer(detector, settings)
        for effect in effects:
            effect.plan_for(total, optimizer)
        # the backbone alone: proposals are of another number in each image, so nothing behind it has a fixed shape
        fast = compiled(detector.backbone, effects, wanted=run.compile, sizes_vary=sizes_vary(dataset, cfg))
        # PyTorch's SyncBatchNorm needs GPUs; here it works on the CPU too
        with synchronised_norms(detector, nn.SyncBatchNorm), fast:
            trainer = DetectorTrainer(detector, optimizer, settings, run, precision.dtype, teacher)
            validator = _validation(detector, cfg, settings, run, validation)
            keeper = Checkpointer(
                detector, writer, run, identity, settings.stated(), precision.words, effects, validator
            )
            told = Reporter(report if is_main() else None, every=run.report_every, total=total, validation=validator)
            at_epochs = [EffectHook(effect, epoch=_epoch(dataset, cfg, settings)) for effect in effects]
            rate = Schedule(schedule, settings.lr, total)
            trainer.register_hooks([rate, *at_epochs, validator, keeper, told, Stop(keeper)])
            start = keeper.restore(saved)
            del saved  # as large as the detector and its optimiser
            if start < total and not (validator is not None and validator.ended):
                trainer.data_loader = _loader(dataset, cfg, settings, run, start)
                with between_steps(), suppress(Enough):
                    trainer.train(start, total)
            if validator is not None:
                validator.load_kept()
    trained = total if validator is None or validator.last is None else validator.last.iteration
    kept = None if validator is None else validator.kept
    return TrainOutcome(trained, trained * settings.batch_size, keeper.seconds, trainer.last_loss, precision, kept)


def _validation(
    detector: nn.Module, cfg: CfgNode, settings: TrainSettings, run: TrainRun, dataset: DetectionDataset | None
) -> Validation | None:
    """What measures AP while the detector trains; None where the settings ask for none."""
    if settings.validate_every is None:
        return None
    if dataset is None:
        raise Refusal(f"validate_every={settings.validate_every} needs a validation split")

    def measure() -> float:
        found = evaluate_detector(detector, cfg, dataset=dataset, num_workers=run.num_workers)
        device = next(detector.parameters()).device
        return float(from_main(torch.tensor(found.get("AP", 0.0), dtype=torch.float64, device=device)))

    return Validation(detector, settings, measure)


def _optimizer(detector: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    groups = get_default_optimizer_params(detector, weight_decay_norm=0.0)
    return fused_sgd(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay)


def schedule_of(settings: TrainSettings) -> ParamScheduler:
    """Multiplier of the learning rate as a function of progress in [0, 1)."""
    return lr_schedule(settings.schedule, milestones=settings.milestones, gamma=settings.gamma, warmup=settings.warmup)


class DetectorTrainer(SimpleTrainer):
    """Detectron2's trainer with autocast, clipping, and generators seeded by (seed, iteration).

    Seeding each step makes the sampling of anchors and regions the same after a resume.
    """

    def __init__(
        self,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
        run: TrainRun,
        dtype: torch.dtype | None,
        teacher: Teacher | None = None,
    ):
        device = next(detector.parameters()).device.type
        self.detector = detector
        super().__init__(data_parallel(detector), None, optimizer)
        self.settings = settings
        self.run = run
        self.dtype = dtype
        self.teacher = teacher
        self.device = device
        self.scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
        self.losses: dict[str, torch.Tensor] = {}
        self.last_loss = float("nan")
        self._unchecked: list[torch.Tensor] = []

    def run_step(self) -> None:
        data = next(self._data_loader_iter)  # before seeding: a new loader's first batch draws a number
        if self.device != "cpu":
            data = [on_device(record, self.device) for record in data]
        seed_generators(self.run.seed, self.iter * world_size() + rank())
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None):
                self.losses = self._losses(data)
        except FloatingPointError as error:  # from the RPN, whose message has no step
            raise Diverged(f"step {self.iter}: {error}") from error
        loss = torch.stack(list(self.losses.values())).sum()
        self._watch(loss)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.after_backward()
        if self.settings.clip_norm is not None:
            clip_gradients(self.optimizer, self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _losses(self, data: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if self.teacher is None:
            return self.model(data)
        return self.teacher.teach(self.detector, lambda: self.model(data))

    def _watch(self, loss: torch.Tensor) -> None:
        """Settle at once on the CPU, now and then where looking at a loss stalls the device."""
        self._unchecked.append(loss.detach())
        done, every = self.iter + 1, [self.run.report_every]
        every += [self.settings.validate_every] if self.settings.validate_every else []
        if self.device == "cpu" or not all(done % n for n in every) or done == self.max_iter:
            self.settle()

    def settle(self) -> None:
        """Take the losses not looked at yet from the device; FloatingPointError with the step of one not finite."""
        if not self._unchecked:
            return
        values = mean_over_processes(torch.stack(self._unchecked)).tolist()
        self._unchecked.clear()
        for step, value in enumerate(values, self.iter + 1 - len(values)):
            if not abs(value) < float("inf"):  # also false for NaN
                raise Diverged(f"step {step}: the loss is {value}; lower the learning rate")
        self.last_loss = values[-1]


def clip_gradients(optimizer: torch.optim.Optimizer, most: float) -> None:
    """Scale all gradients so that their norm is `most`, if it is larger: as clip_grad_norm_, to the bit.

    That multiplies by 1 otherwise; not to do so, one has to look at the norm, which stalls a GPU.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or not norm + 1e-6 <= most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)


def on_device(record: Record, device: str) -> Record:
    """An image and its objects on `device`; moved by Detectron2, the CPU would wait for each of their tensors."""
    objects, moved = record["instances"], Instances(record["instances"].image_size)
    for name, value in objects.get_fields().items():
        here = value.tensor if isinstance(value, Boxes) else value
        there = here.to(device, non_blocking=True) if isinstance(here, torch.Tensor) else here.to(device)
        moved.set(name, Boxes(there) if isinstance(value, Boxes) else there)
    return {**record, "image": record["image"].to(device, non_blocking=True), "instances": moved}


def _loader(
    dataset: DetectionDataset, cfg: CfgNode, settings: TrainSettings, run: TrainRun, start: int
) -> DataLoader[list[Record]]:
    return train_loader(
        dataset,
        cfg,
        batch_size=settings.batch_size,
        seed=run.seed,
        start_iteration=start,
        flip=settings.flip,
        colour_jitter=settings.colour_jitter,
        repeat_threshold=settings.repeat_threshold,
        group_by_aspect=settings.group_by_aspect,
        num_workers=run.num_workers,
    )


def _epoch(dataset: DetectionDataset, cfg: CfgNode, settings: TrainSettings) -> int:
    """Iterations; images without a box are not trained on, unless Detectron2's key says otherwise."""
    shown = len(dataset.split.records(filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS))
    return max(1, shown // settings.batch_size)


def _check_classes(dataset: DetectionDataset, cfg: CfgNode) -> None:
    found, wanted = len(class_names(dataset)), cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if found != wanted:
        raise Refusal(f"{dataset.split.source} has {found} categories, the detector {wanted} classes")
