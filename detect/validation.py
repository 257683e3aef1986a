"""AP on a validation split while a detector trains: which iteration is kept, and an end before the last one."""

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.engine import HookBase
from torch import Tensor, nn

from detect.settings import TrainSettings
from training.checkpoint import State


class Enough(BaseException):  # Detectron2 would log an Exception as a failure
    """As many measurements without a higher AP as `patience` says: the training ends."""


@dataclass(frozen=True)
class Kept:
    """The iteration whose weights a training leaves, 1 the first, and its AP (percent) on the validation split."""

    iteration: int
    AP: float


class Validation(HookBase):
    """Measures AP every `validate_every` iterations and at the last one; comes after what changes weights.

    `measure`: AP in percent, the same in every process. `metrics`: what this step measured, if anything. `ended`: has
    `patience` run out?
    """

    def __init__(self, detector: nn.Module, settings: TrainSettings, measure: Callable[[], float]):
        assert settings.validate_every is not None
        self.detector = detector
        self.every = settings.validate_every
        self.keeps_best = settings.keep == "best"
        self.patience = settings.patience
        self.measure = measure
        self.metrics: dict[str, float] = {}
        self.last: Kept | None = None
        self.best: Kept | None = None
        self._weights: dict[str, Tensor] = {}  # of the best iteration, where it is kept
        self._without = 0  # measurements since the best

    @property
    def ended(self) -> bool:
        return self.patience is not None and self._without >= self.patience

    @property
    def kept(self) -> Kept | None:
        """Of equal ones the earliest is the best; None: nothing was trained."""
        return self.best if self.keeps_best else self.last

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self.metrics = {}
        if done % self.every and done != self.trainer.max_iter:
            return
        self.last = Kept(done, self.measure())
        self.metrics = {"val_AP": self.last.AP}
        self._without += 1
        if self.best is None or self.last.AP > self.best.AP:
            self.best, self._without = self.last, 0
            if self.keeps_best:
                self._weights = {name: value.cpu().clone() for name, value in self.detector.state_dict().items()}

    def load_kept(self) -> None:
        """Give the detector the weights of the iteration that is kept."""
        if self._weights:
            self.detector.load_state_dict(self._weights)

    def state_dict(self) -> State:
        """What a resumed training goes on with."""
        kept = {name: found and vars(found) for name, found in (("last", self.last), ("best", self.best))}
        return {**kept, "weights": self._weights, "without": self._without}

    def load_state_dict(self, state: State) -> None:
        self.last, self.best = (found and Kept(**found) for found in (state["last"], state["best"]))
        self._weights, self._without = state["weights"], state["without"]
