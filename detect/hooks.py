"""What happens around a training step: learning rate, pruning effects, checkpoints, reports."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from detect.checkpoint import load_checkpoint, save_checkpoint

Report = Callable[[int, int, Mapping[str, float]], None]


class Schedule(HookBase):
    """Sets the learning rate to lr * schedule(progress) before each step."""

    def __init__(self, schedule: ParamScheduler, lr: float, total: int):
        self.schedule = schedule
        self.lr = lr
        self.total = total

    def before_step(self) -> None:
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule(self.trainer.iter / self.total)


class EffectHook(HookBase):
    """Runs a pruning method's training effect: `after_backward(model)`, `after_step(model)`, where it has them."""

    def __init__(self, effect: Any, detector: nn.Module):
        self.effect = effect
        self.detector = detector

    def after_backward(self) -> None:
        if hasattr(self.effect, "after_backward"):
            self.effect.after_backward(self.detector)

    def after_step(self) -> None:
        if hasattr(self.effect, "after_step"):
            self.effect.after_step(self.detector)


class Checkpointer(HookBase):
    """Saves and restores everything that the next step depends on, and counts the seconds.

    `identity` names what a checkpoint has to agree with to be continued.
    """

    def __init__(self, detector: nn.Module, path: Path, *, identity: Mapping[str, int], every: int, total: int):
        self.detector = detector
        self.path = path
        self.identity = identity
        self.every = every
        self.total = total
        self.seconds = 0.0

    def restore(self) -> int:
        """Load the checkpoint if there is one; returns the iteration to go on with."""
        if not self.path.is_file():
            return 0
        state = load_checkpoint(self.path, device=self.trainer.device)
        for key, value in self.identity.items():
            if state[key] != value:
                raise ValueError(f"{self.path}: a checkpoint of a training with {key}={state[key]}, not {value}")
        self.detector.load_state_dict(state["model"])
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        self.trainer.scaler.load_state_dict(state["scaler"])
        self.trainer.last_loss = state["loss"]
        self.seconds = state["seconds"]
        return state["iteration"]

    def before_train(self) -> None:
        self.since = time.perf_counter()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.every and done != self.total:
            return
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
        if comm.is_main_process():
            save_checkpoint(self.path, self._state(done))

    def _state(self, iteration: int) -> dict[str, Any]:
        return {
            **self.identity,
            "model": self.detector.state_dict(),
            "optimizer": self.trainer.optimizer.state_dict(),
            "scaler": self.trainer.scaler.state_dict(),
            "iteration": iteration,
            "seconds": self.seconds,
            "loss": self.trainer.last_loss,
        }


class Reporter(HookBase):
    """Calls report(step, total, metrics) with the losses and the learning rate every few steps and at the end."""

    def __init__(self, report: Report, *, every: int, total: int):
        self.report = report
        self.every = every
        self.total = total

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.every and done != self.total:
            return
        metrics = {name: loss.item() for name, loss in self.trainer.losses.items()}
        metrics["total_loss"] = self.trainer.last_loss
        metrics["lr"] = self.trainer.optimizer.param_groups[0]["lr"]
        self.report(done, self.total, metrics)
