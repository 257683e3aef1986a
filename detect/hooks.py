"""What happens around a training step: learning rate, pruning effects, checkpoints, reports."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from detectron2.engine import HookBase
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from detect.settings import TrainRun
from detect.validation import Enough, Validation
from pruning.methods import Effect
from training.checkpoint import CheckpointClock, State, training_to_continue
from training.checkpoint_writer import CheckpointWriter
from training.distributed import any_process, check_equal, is_main, mean_over_processes, world_size
from training.stopping import end_if, stop_asked

Report = Callable[[int, int, Mapping[str, float]], None]
_KEYS = ("model", "optimizer", "scaler", "effects", "iteration", "seconds", "loss", "precision")


def saved_training(
    path: Path, identity: Mapping[str, int], settings: Mapping[str, object], device: str
) -> State | None:
    """What `Checkpointer` wrote last; None: nothing. ValueError if it is of another training."""
    return training_to_continue(path, required=_KEYS, identity=identity, settings=settings, device=device)


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
    """Runs what a pruning method adds to training; an epoch is as many iterations as show every image once."""

    def __init__(self, effect: Effect, *, epoch: int):
        self.effect = effect
        self.epoch = epoch

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            self.effect.at_start()

    def after_backward(self) -> None:
        self.effect.after_backward()

    def after_step(self) -> None:
        self.effect.after_step(self.trainer.optimizer.param_groups[0]["lr"])
        done = self.trainer.iter + 1
        if done % self.epoch == 0 or done == self.trainer.max_iter:
            self.effect.after_epoch()


class Checkpointer(HookBase):
    """Saves and restores everything that the next step depends on, and counts the seconds.

    `identity` names what a checkpoint has to agree with to be continued, and `settings`, of the training those that are
    not the default, likewise; `precision` what it is made in. `writer`
    writes one every `run.checkpoint_minutes` and at the end; several processes ask one another every
    `run.report_every` iterations whether it is time, and whether a signal asked to end.
    """

    def __init__(
        self,
        detector: nn.Module,
        writer: CheckpointWriter,
        run: TrainRun,
        identity: Mapping[str, int],
        settings: Mapping[str, object],
        precision: str,
        effects: Sequence[Effect],
        validation: Validation | None,
    ):
        self.detector = detector
        self.writer = writer
        self.clock = CheckpointClock(run.checkpoint_minutes)
        self.meets_every = run.report_every
        self.identity = identity
        self.settings = settings
        self.precision = precision
        self.effects = effects
        self.validation = validation
        self.seconds = 0.0
        self.stops = False  # did a signal ask to end when this step's checkpoint was begun?

    def restore(self, saved: State | None) -> int:
        """Take over what `saved_training` found, if anything; returns the iteration to go on with."""
        iteration = 0 if saved is None else self._load(saved)
        check_equal(iteration, "the iteration to go on with", self.trainer.device)
        return iteration

    def _load(self, state: State) -> int:
        self.detector.load_state_dict(state["model"])
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        self.trainer.scaler.load_state_dict(state["scaler"])
        for effect, saved in zip(self.effects, state["effects"], strict=True):
            effect.load_state_dict(saved)
        if self.validation is not None:
            self.validation.load_state_dict(state["validation"])
        self.trainer.last_loss = state["loss"]
        self.seconds = state["seconds"]
        return state["iteration"]

    def before_train(self) -> None:
        self.since = time.perf_counter()

    def after_step(self) -> None:
        self.writer.check()
        done = self.trainer.iter + 1
        meets = world_size() == 1 or done % self.meets_every == 0
        self.stops = meets and any_process(stop_asked(), self.trainer.device)
        ends = done == self.trainer.max_iter or (self.validation is not None and self.validation.ended)
        if not (ends or self.stops or (meets and self.clock.due(self.trainer.device))):
            return
        self.trainer.settle()
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
        if is_main():
            self.writer.save(self._state(done))
            self.clock.restart()

    def _state(self, iteration: int) -> State:
        return {
            **self.identity,
            "settings": dict(self.settings),
            "precision": self.precision,
            "model": self.detector.state_dict(),
            "optimizer": self.trainer.optimizer.state_dict(),
            "scaler": self.trainer.scaler.state_dict(),
            "effects": [effect.state_dict() for effect in self.effects],
            **({} if self.validation is None else {"validation": self.validation.state_dict()}),
            "iteration": iteration,
            "seconds": self.seconds,
            "loss": self.trainer.last_loss,
        }


class Reporter(HookBase):
    """Calls report(step, total, metrics) with the losses, means over the processes, the learning rate and validation.

    Every few steps, after each validation and at the end. Other processes than the main one take part without a report.
    """

    def __init__(self, report: Report | None, *, every: int, total: int, validation: Validation | None = None):
        self.report = report
        self.validation = validation
        self.every = every
        self.total = total

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        measured = {} if self.validation is None else self.validation.metrics
        if done % self.every and done != self.total and not measured:
            return
        names, losses = zip(*self.trainer.losses.items(), strict=True)
        metrics = dict(zip(names, mean_over_processes(torch.stack(losses).detach()).tolist(), strict=True))
        if self.report is None:
            return
        metrics["loss"] = self.trainer.last_loss  # their sum
        metrics["lr"] = self.trainer.optimizer.param_groups[0]["lr"]
        self.report(done, self.total, {**metrics, **measured})


class Stop(HookBase):
    """Ends the training where a signal or `patience` asks for it and its checkpoint is begun; the last hook."""

    def __init__(self, keeper: Checkpointer):
        self.keeper = keeper

    def after_step(self) -> None:
        end_if(self.keeper.stops)
        if self.keeper.validation is not None and self.keeper.validation.ended:
            raise Enough
