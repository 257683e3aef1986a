"""Classifier training: one plain loop; on the CPU a killed run ends with the same bits.

Inside `training.distributed.process_group` several processes train one classifier: each takes its images of every
batch, gradients and BatchNorm statistics are over all of them, effects act alike in each, and the main one writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn

from classify.batch_norms import check_smallest_batch
from classify.data.images import Batch, Images, stream
from classify.distillation import Teacher
from classify.evaluate import evaluate_classifier
from classify.settings import TrainRun, TrainSettings
from classify.step import TrainingStep
from pruning.errors import Refusal
from pruning.methods import Effect
from training.checkpoint import CheckpointClock, save_snapshot
from training.checkpoint_writer import CheckpointWriter
from training.compiled import compiled
from training.device import Precision, settle_together
from training.distributed import is_main, own_images
from training.layout import channels_last
from training.state import TrainingState, saved_training
from training.stopping import between_steps
from training.synchronised_norm import synchronised_norms

Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainOutcome:
    """What the training came to; seconds of training, earlier processes' included; `precision` None: none was run."""

    images_seen: int
    seconds: float
    final_loss: float
    precision: Precision | None = None


def train_classifier(
    model: nn.Module,
    train: Images,
    *,
    settings: TrainSettings,
    run: TrainRun,
    checkpoint: Path,
    schedule: ParamScheduler | None = None,
    snapshots: Mapping[Path, int] = MappingProxyType({}),
    validation: Images | None = None,
    report: Report | None = None,
    effects: Sequence[Effect] = (),
    teacher: Teacher | None = None,
) -> TrainOutcome:
    """Train `model` in place, from `checkpoint` if that exists, and leave it there when done.

    `schedule`: multiplier of `settings.lr` by progress, None for that of the settings. `snapshots`: files for all
    tensors of the network, each after how many steps it is written (0: as the network came, before any effect).
    `teacher`: what `model` is distilled from; it is frozen and in no checkpoint.
    `report(step, total, metrics)` is called every few steps, and with the validation accuracy (percent) after each
    epoch, in the main process.
    Raises ValueError on settings that do not fit, FloatingPointError with the step of a loss that is not finite,
    Stopped after a step and a checkpoint when a signal asks for it (`training.stopping`).
    """
    per_epoch = settings.steps_per_epoch(len(train))
    check_smallest_batch(model, settings, len(train), image=train.shape)
    total = settings.epochs * per_epoch
    device = next(model.parameters()).device.type
    identity = {"seed": run.seed, "total": total, "algorithm": settings.optimizer}  # the run's name covers the rest
    saved = saved_training(checkpoint, identity, settings.stated(), device)
    precision = replace(settle_together(run.precision, device), compiled=run.compile).of_checkpoint(saved, checkpoint)
    schedule, clock = schedule or settings.lr_schedule(), CheckpointClock(run.checkpoint_minutes)
    with (
        channels_last(model, *([teacher.network] if teacher else []), dtype=precision.dtype),
        synchronised_norms(model),
        compiled(model, effects, wanted=run.compile),
        between_steps(),
        CheckpointWriter(checkpoint) as writer,
    ):
        training = TrainingStep(model, settings, run, precision.dtype, effects, teacher)
        for effect in effects:
            effect.plan_for(total, training.optimizer)
        state = TrainingState(
            *(model, training.optimizer, training.scaler, effects, writer),
            *(identity, settings.stated(), precision.words, clock),
        )
        done = state.restore(saved)
        del saved  # as large as the network and its optimiser
        _begin(model, effects, snapshots, done, total)
        for step, (images, labels, n_images) in enumerate(_batches(train, settings, run, done, total), done + 1):
            lr = settings.lr * schedule((step - 1) / total)
            state.watch(training.take(images, labels, n_images, step=step - 1, lr=lr))
            reports, ends = step % run.report_every == 0, step % per_epoch == 0
            state.after(step, total, reports=reports, ends=ends)
            metrics = _end_epoch(model, effects, validation, run) if ends else {}
            if report is not None and is_main() and (reports or metrics):
                report(step, total, {"loss": state.last_loss, "lr": lr, **metrics})
            _take_snapshots(snapshots, model, step)
            state.keep(step)
    return TrainOutcome(settings.epochs * len(train), state.seconds, state.last_loss, precision)


def _batches(
    train: Images, settings: TrainSettings, run: TrainRun, done: int, total: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels of this process, and the images of the whole batch, of every step behind the first `done`."""
    per_epoch = settings.steps_per_epoch(len(train))
    while done < total:
        epoch, first = divmod(done, per_epoch)
        plan = _plan(len(train), settings.batch_size, run.seed, epoch=epoch, first=first)
        for images, labels in train.batches(plan, settings.augmentation):
            yield images, labels, min(settings.batch_size, len(train) - done % per_epoch * settings.batch_size)
            done += 1


def _plan(n: int, batch_size: int, seed: int, *, epoch: int, first: int) -> Iterator[Batch]:
    """The batches of one epoch over `n` images from batch `first` on: a pure function of (seed, epoch, batch)."""
    order = torch.randperm(n, generator=stream(seed, epoch))
    for i, index in enumerate(order.split(batch_size)):
        if i >= first:
            yield Batch(index, (seed, epoch, i), own_images())


def _begin(model: nn.Module, effects: Sequence[Effect], snapshots: Mapping[Path, int], done: int, total: int) -> None:
    """What comes before the first step, unless `done` steps are; ValueError if the end would lack a snapshot."""
    _check_snapshots(snapshots, done, total)
    if done:
        return
    _take_snapshots(snapshots, model, 0)
    for effect in effects:
        effect.at_start()


def _end_epoch(
    model: nn.Module, effects: Sequence[Effect], validation: Images | None, run: TrainRun
) -> dict[str, float]:
    """Accuracy (percent) and loss on the validation images, in the main process, once the effects have acted."""
    for effect in effects:
        effect.after_epoch()
    if validation is None or not is_main():
        return {}
    scores = evaluate_classifier(model, validation, mean=run.mean, std=run.std)
    return {"val_accuracy": scores.top1, "val_loss": scores.loss}


def _check_snapshots(snapshots: Mapping[Path, int], step: int, total: int) -> None:
    """Refuse a training that would end without a snapshot; `step` is the one to go on with."""
    for file, at in snapshots.items():
        if not 0 <= at <= total:
            raise Refusal(f"snapshot_at={at} is outside 0..{total}, the steps of the training")
        if step > 0 and step >= at and not file.is_file():
            raise Refusal(
                f"{file}: the snapshot of step {at} is gone and the checkpoint is of step {step};"
                " delete the checkpoint to train from the start"
            )


def _take_snapshots(snapshots: Mapping[Path, int], model: nn.Module, step: int) -> None:
    for file, at in snapshots.items():
        if step == at and is_main():
            save_snapshot(file, model)
