"""What a training carries from one process to the next."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.errors import Diverged
from pruning.methods import Effect
from training.checkpoint import CheckpointClock, State, check_same_network, training_to_continue
from training.checkpoint_writer import CheckpointWriter
from training.distributed import any_process, check_equal, is_main, sum_over_processes, world_size
from training.layout import lay_out_as_weights
from training.stopping import end_if, stop_asked

_KEYS = ("model", "optimizer", "scaler", "effects", "step", "seconds", "loss", "precision")


def saved_training(
    path: Path, identity: Mapping[str, int | str], settings: Mapping[str, object], device: str
) -> State | None:
    """What `TrainingState.save` wrote last; None: nothing. ValueError if it is of another training."""
    return training_to_continue(path, required=_KEYS, identity=identity, settings=settings, device=device)


@dataclass
class TrainingState:
    """The parts of a training whose states are saved, and what writes them.

    `identity`, `settings` (those that are not the default): what a checkpoint must agree with, besides the network;
    `precision`: what it is made in, `clock`: when. `stops`, `saves`: what `after` found of a step. Times: seconds.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    effects: Sequence[Effect]
    writer: CheckpointWriter
    identity: Mapping[str, int | str]
    settings: Mapping[str, object]
    precision: str
    clock: CheckpointClock
    seconds: float = 0.0
    last_loss: float = float("nan")
    stops: bool = False
    saves: bool = False
    _since: float = field(default_factory=time.perf_counter)
    _losses: list[Tensor] = field(default_factory=list)

    @property
    def _device(self) -> str:
        return next(self.model.parameters()).device.type

    def restore(self, saved: State | None) -> int:
        """Take over what `saved_training` found, if anything; returns the step to go on with."""
        step = 0 if saved is None else self._load(saved)
        check_equal(step, "the step to go on with", self._device)
        self._since = time.perf_counter()
        return step

    def watch(self, loss: Tensor) -> None:
        """Note the loss of a step, this process's share of it, without waiting for a GPU to compute it."""
        self._losses.append(loss)

    def after(self, step: int, total: int, *, reports: bool, ends: bool) -> None:
        """Find out whether a signal asks to end after `step`, and whether the state is to be saved then.

        `reports`, `ends`: is the loss reported, does an epoch end? Then, and before the state is saved, `last_loss` is
        this step's. Several processes stop and save together, and ask one another only where it does not hold up a GPU.
        OSError if the last checkpoint could not be written, FloatingPointError as `settle`.
        """
        self.writer.check()
        device = self._device
        meets = reports or world_size() == 1 or device == "cpu"
        self.stops = meets and any_process(stop_asked(), device)
        self.saves = step == total or self.stops or (meets and self.clock.due(device))
        if self.saves or reports or ends:
            self.settle(step)

    def keep(self, step: int) -> None:
        """Save if `after` found it time; Stopped if a signal asked to end."""
        if self.saves:
            self.save(step)
        end_if(self.stops)

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
        """Begin to write the checkpoint, in the main process."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        if not is_main():
            return
        state: State = {
            **self.identity,
            "settings": dict(self.settings),
            "precision": self.precision,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "effects": [effect.state_dict() for effect in self.effects],
            "step": step,
            "seconds": self.seconds,
            "loss": self.last_loss,
        }
        self.writer.save(state)
        self.clock.restart()

    def _load(self, state: State) -> int:
        check_same_network(self.writer.path, self.model, state["model"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        lay_out_as_weights(self.optimizer)
        self.scaler.load_state_dict(state["scaler"])
        for effect, saved in zip(self.effects, state["effects"], strict=True):
            effect.load_state_dict(saved)
        self.seconds, self.last_loss = state["seconds"], state["loss"]
        return state["step"]
