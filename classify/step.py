"""One step of classifier training: forward and backward over the parts of a batch, then the optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data.augment import normalize
from classify.distillation import Teacher
from classify.optimizers import make_optimizer
from classify.settings import TrainRun, TrainSettings
from pruning.methods import Effect
from training.distributed import averaged_later, data_parallel, own_parts, rank, world_size
from training.seeding import seed_generators


@dataclass
class TrainingStep:
    """Trains `model`, in place, by one batch after the other; `dtype` is autocast's, None for float32.

    `teacher`: the network that the model learns from beside the labels; each process has it whole.
    """

    model: nn.Module
    settings: TrainSettings
    run: TrainRun
    dtype: torch.dtype | None = None
    effects: Sequence[Effect] = ()
    teacher: Teacher | None = None
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self._device = next(self.model.parameters()).device.type
        self.optimizer = make_optimizer(self.model, self.settings)
        self.scaler = torch.amp.GradScaler(self._device, enabled=self.dtype == torch.float16)
        self._network = data_parallel(self.model)

    def take(self, images: Tensor, labels: Tensor, n_images: int, *, step: int, lr: float) -> Tensor:
        """Step number `step`, from 0; returns the sum of the images' losses over `n_images`.

        `images` uint8 (n, C, H, W) and `labels` (n,) are this process's of the `n_images` of the batch.
        """
        own = () if rank() == 0 else (rank(),)  # other processes drop other units: they have other images
        seed_generators(self.run.seed, step, *own)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = own_parts(n_images, self.settings.accumulate)
        losses = []
        for part in parts:
            with averaged_later(self._network, later=part is not parts[-1]):
                losses.append(self._backward(images[part], labels[part], n_images))
        self.scaler.unscale_(self.optimizer)
        for effect in self.effects:
            effect.after_backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for effect in self.effects:
            effect.after_step(lr)
        return torch.stack(losses).sum()

    def _backward(self, images: Tensor, labels: Tensor, n_images: int) -> Tensor:
        """Add to the gradients those of this part; its loss is a sum over `n_images`, so that parts may differ."""
        pixels = images.to(self._device, non_blocking=True)
        inputs = normalize(pixels, self.run.mean, self.run.std).to(memory_format=torch.channels_last)
        targets, smoothing = labels.to(self._device, non_blocking=True), self.settings.label_smoothing
        with torch.autocast(self._device, dtype=self.dtype, enabled=self.dtype is not None):
            logits = self._network(inputs).float()
            loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
            if self.teacher is not None:
                loss = self.teacher.soften(loss, logits, inputs)
        loss = loss / n_images
        # the processes' gradients are averaged, and should be added up
        self.scaler.scale(loss * world_size()).backward()
        return loss.detach()
