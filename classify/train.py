"""Classifier training: one plain loop; on the CPU a killed run ends with the same bits."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.checkpoint import load_checkpoint, save_checkpoint
from classify.data.augment import normalize
from classify.data.images import Batch, Images, stream
from classify.evaluate import evaluate_classifier
from classify.memory_format import channels_last
from classify.precision import autocast_dtype
from classify.schedule import lr_schedule
from classify.seeding import seed_generators
from pruning.methods import Effect

Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainSettings:
    """How a classifier is trained. Weight decay is on all parameters, as in the study."""

    epochs: int
    batch_size: int
    lr: float
    mean: tuple[float, ...]  # of the input, RGB in 0..1
    std: tuple[float, ...]
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)  # fractions of the epochs
    gamma: float = 0.1
    warmup: float = 0.0  # fraction of the steps
    label_smoothing: float = 0.0
    augmentation: str = "none"
    seed: int = 0
    precision: str = "auto"
    checkpoint_every: int = 100  # steps
    report_every: int = 20  # steps


@dataclass(frozen=True)
class TrainOutcome:
    """What the training came to; seconds of training, earlier processes' included."""

    images_seen: int
    seconds: float
    final_loss: float


def train_classifier(
    model: nn.Module,
    train: Images,
    *,
    settings: TrainSettings,
    checkpoint: Path,
    validation: Images | None = None,
    report: Report | None = None,
    effects: Sequence[Effect] = (),
) -> TrainOutcome:
    """Train `model` in place, from `checkpoint` if that exists, and leave it there when done.

    `report(step, total, metrics)` is called every few steps, and with the validation accuracy (percent) after each
    epoch.
    Raises ValueError on settings that do not fit, FloatingPointError with the step of a loss that is not finite.
    """
    if settings.batch_size > len(train):
        raise ValueError(f"batch_size={settings.batch_size} is larger than the training set of {len(train)} images")
    device = next(model.parameters()).device.type
    dtype = autocast_dtype(settings.precision, device)
    per_epoch = -(-len(train) // settings.batch_size)
    total = settings.epochs * per_epoch
    with channels_last(model, dtype=dtype):
        optimizer = torch.optim.SGD(
            model.parameters(),
            settings.lr,
            settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
            fused=True,  # one pass over the weights
        )
        scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
        run = _Run(model, optimizer, scaler, effects, checkpoint, {"seed": settings.seed, "total": total})
        step = run.restore(device)
        if step == 0:
            for effect in effects:
                effect.at_start()
        while step < total:
            step = _train_epoch(run, train, settings, dtype, step, per_epoch, validation, report)
    return TrainOutcome(settings.epochs * len(train), run.seconds, run.last_loss)


def _train_epoch(
    run: "_Run",
    train: Images,
    settings: TrainSettings,
    dtype: torch.dtype | None,
    step: int,
    per_epoch: int,
    validation: Images | None,
    report: Report | None,
) -> int:
    """Train from `step` to the end of its epoch, checkpoints and reports included; returns the next step."""
    model, optimizer, scaler, effects = run.model, run.optimizer, run.scaler, run.effects
    schedule = lr_schedule(
        settings.schedule, milestones=settings.milestones, gamma=settings.gamma, warmup=settings.warmup
    )
    device = next(model.parameters()).device.type
    total = settings.epochs * per_epoch
    epoch, first = divmod(step, per_epoch)
    for images, labels in train.batches(_plan(train, settings, epoch, first), settings.augmentation):
        seed_generators(settings.seed, step)  # dropout; the same after a resume
        lr = settings.lr * schedule(step / total)
        for group in optimizer.param_groups:
            group["lr"] = lr
        model.train()
        inputs = normalize(images.to(device), settings.mean, settings.std).to(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            logits = model(inputs)
            loss = F.cross_entropy(logits, labels.to(device), label_smoothing=settings.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for effect in effects:
            effect.after_backward()
        scaler.step(optimizer)
        scaler.update()
        for effect in effects:
            effect.after_step(lr)
        step += 1
        run.watch(loss, step)
        metrics: dict[str, float] = {}
        if step % per_epoch == 0:
            for effect in effects:
                effect.after_epoch()
            if validation is not None:
                scores = evaluate_classifier(model, validation, mean=settings.mean, std=settings.std)
                metrics = {"val_accuracy": scores.top1, "val_loss": scores.loss}
        if report is not None and (metrics or step % settings.report_every == 0):
            report(step, total, {"loss": run.last_loss, "lr": lr, **metrics})
        if step % settings.checkpoint_every == 0 or step == total:
            run.save(step)
    return step


def _plan(train: Images, settings: TrainSettings, epoch: int, first: int) -> Iterator[Batch]:
    """The batches of one epoch from batch `first` on: a pure function of (seed, epoch, batch)."""
    order = torch.randperm(len(train), generator=stream(settings.seed, epoch))
    for i in range(first, -(-len(train) // settings.batch_size)):
        index = order[i * settings.batch_size : (i + 1) * settings.batch_size]
        yield Batch(index, (settings.seed, epoch, i))


class _Run:
    """What a training carries from one process to the next."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        effects: Sequence[Effect],
        path: Path,
        identity: Mapping[str, int],
    ):
        self.model = model
        self.optimizer = optimizer
        self.scaler = scaler
        self.effects = effects
        self.path = path
        self.identity = identity
        self.seconds = 0.0
        self.last_loss = float("nan")
        self._since = time.perf_counter()

    def restore(self, device: str) -> int:
        """Load the checkpoint if there is one; returns the step to go on with."""
        if not self.path.is_file():
            return 0
        keys = ("model", "optimizer", "scaler", "effects", "step", "seconds", "loss", *self.identity)
        state = load_checkpoint(self.path, required=keys, device=device)
        for key, value in self.identity.items():
            if state[key] != value:
                raise ValueError(f"{self.path}: a checkpoint of a training with {key}={state[key]}, not {value}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for effect, saved in zip(self.effects, state["effects"], strict=True):
            effect.load_state_dict(saved)
        self.seconds, self.last_loss = state["seconds"], state["loss"]
        self._since = time.perf_counter()
        return state["step"]

    def watch(self, loss: Tensor, step: int) -> None:
        """Stop on a loss that is not finite."""
        self.last_loss = float(loss.detach())
        if not np.isfinite(self.last_loss):
            raise FloatingPointError(f"step {step}: the loss is {self.last_loss}; lower the learning rate")

    def save(self, step: int) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        state: dict[str, Any] = {
            **self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "effects": [effect.state_dict() for effect in self.effects],
            "step": step,
            "seconds": self.seconds,
            "loss": self.last_loss,
        }
        save_checkpoint(self.path, state)
