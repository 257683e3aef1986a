"""The fine-tuning after each layer that ThiNet and reconstruction prune, in the stage that prunes a classifier."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from classify.data import Splits
from classify.settings import TrainSettings
from classify.train import train_classifier
from study.stages.classifier import train_run
from study.stages.network import Network
from study.stages.stage import Context
from training.checkpoint import remove_checkpoints
from training.device import Precision


@dataclass
class FineTuning:
    """Trains the network that it is called with, in place, on the training images; once after each layer.

    A stage that was killed chooses the layers before it once more, and finds what was trained after them.
    """

    context: Context
    network: Network
    data: Splits
    settings: TrainSettings
    images_seen: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    precision: Precision | None = field(default=None, init=False)
    _checkpoints: list[Path] = field(default_factory=list, init=False)

    def __call__(self, model: nn.Module) -> None:
        """Train it for the epochs of the settings."""
        # one for each layer, in the order of the calls, which a stage that starts again repeats
        checkpoint = self.context.run.checkpoint_of(len(self._checkpoints))
        self._checkpoints.append(checkpoint)
        run = train_run(self.context, self.network)
        # whoever prunes may have turned gradients off around this call
        with torch.enable_grad():
            outcome = train_classifier(model, self.data.train, settings=self.settings, run=run, checkpoint=checkpoint)
        self.images_seen += outcome.images_seen
        self.seconds += outcome.seconds
        self.precision = outcome.precision

    def finish(self) -> None:
        """Remove the checkpoints: the stage is done."""
        for checkpoint in self._checkpoints:
            remove_checkpoints(checkpoint)
