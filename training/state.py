"""What a training carries from one process to the next."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.errors import Diverged
from pruning.methods import Effect
from training.checkpoint import CheckpointClock, State, check_same_network, save_checkpoint, training_to_continue
from training.distributed import check_equal, is_main, sum_over_processes

_KEYS = ("model", "optimizer", "scaler", "effects", "step", "seconds", "loss", "precision")


def saved_training(path: Path, identity: Mapping[str, int | str], device: str) -> State | None:
    """What `TrainingState.save` wrote last; None: nothing. ValueError if it is of another training."""
    return training_to_continue(path, required=_KEYS, identity=identity, device=device)


@dataclass
class TrainingState:
    """The parts of a training whose states are saved, and the file.

    `identity`: what a checkpoint must agree with, besides the network; `precision`: what it is made in, `clock`: when.
    Times are in seconds.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    effects: Sequence[Effect]
    path: Path
    identity: Mapping[str, int | str]
    precision: str
    clock: CheckpointClock
    seconds: float = 0.0
    last_loss: float = float("nan")
    _since: float = field(default_factory=time.perf_counter)
    _losses: list[Tensor] = field(default_factory=list)

    def restore(self, saved: State | None, device: str) -> int:
        """Take over what `saved_training` found, if anything; returns the step to go on with."""
        step = 0 if saved is None else self._load(saved)
        check_equal(step, "the step to go on with", device)
        self._since = time.perf_counter()
        return step

    def watch(self, loss: Tensor) -> None:
        """Note the loss of a step, this process's share of it, without waiting for a GPU to compute it."""
        self._losses.append(loss)

    def settle(self, step: int) -> None:
        """Take the losses up to `step` from the device; FloatingPointError with the step of the first not finite."""
        losses = sum_over_processes(torch.stack(self._losses)).cpu()
        self._losses.clear()
        odd = (~losses.isfinite()).nonzero().flatten().tolist()
        if odd:
            first = step - len(losses) + 1 + odd[0]
            raise Diverged(f"step {first}: the loss is {float(losses[odd[0]])}; lower the learning rate")
        self.last_loss = float(losses[-1])

    def save(self, step: int) -> None:
        """Write the checkpoint, in the main process."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        if not is_main():
            return
        state: State = {
            **self.identity,
            "precision": self.precision,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "effects": [effect.state_dict() for effect in self.effects],
            "step": step,
            "seconds": self.seconds,
            "loss": self.last_loss,
        }
        save_checkpoint(self.path, state)
        self.clock.restart()

    def _load(self, state: State) -> int:
        check_same_network(self.path, self.model, state["model"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for effect, saved in zip(self.effects, state["effects"], strict=True):
            effect.load_state_dict(saved)
        self.seconds, self.last_loss = state["seconds"], state["loss"]
        return state["step"]
