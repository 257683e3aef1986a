"""One step of classifier training: forward and backward over the parts of a batch, then the optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data.augment import normalize
from classify.optimizers import check_optimizer, make_optimizer
from pruning.errors import Refusal
from pruning.methods import Effect
from training.device import Precision
from training.distributed import averaged_later, data_parallel, own_parts, rank, world_size
from training.seeding import seed_generators


@dataclass(frozen=True)
class TrainSettings:
    """How a classifier is trained.

    By default weight decay is on all parameters, as in the study; `norm_weight_decay=False` leaves out those of
    normalisation layers and all biases. `accumulate`: the batch of `batch_size` is cut into so many parts, which are
    computed one after the other and make one step; a BatchNorm then sees a part at a time. `snapshot_at`: after that
    many steps (0: before the first) all tensors of the network are written to a file, for rewinding.
    """

    epochs: int
    batch_size: int  # images of a step, over all parts and processes
    lr: float
    mean: tuple[float, ...]  # of the input, RGB in 0..1
    std: tuple[float, ...]
    optimizer: str = "sgd"
    momentum: float = 0.9  # of SGD
    nesterov: bool = False  # of SGD
    weight_decay: float = 1e-4
    norm_weight_decay: bool = True
    accumulate: int = 1
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)  # fractions of the epochs
    gamma: float = 0.1
    warmup: float = 0.0  # fraction of the steps
    label_smoothing: float = 0.0
    augmentation: str = "none"
    seed: int = 0
    precision: str | Precision = "auto"  # one of training.device.PRECISIONS, or what one was settled to
    checkpoint_every: int = 100  # steps
    report_every: int = 20  # steps
    snapshot_at: int | None = None  # steps

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if not 1 <= self.accumulate <= self.batch_size:
            raise Refusal(f"accumulate={self.accumulate} is outside 1..batch_size={self.batch_size}")

    def steps_per_epoch(self, n_images: int) -> int:
        """Steps of one epoch, the last one with fewer images perhaps; ValueError if the settings ask for too much."""
        if self.batch_size > n_images:
            raise Refusal(f"batch_size={self.batch_size} is larger than the training set of {n_images} images")
        steps = -(-n_images // self.batch_size)
        total = self.epochs * steps
        if self.snapshot_at is not None and not 0 <= self.snapshot_at <= total:
            raise Refusal(f"snapshot_at={self.snapshot_at} is outside 0..{total}, the steps of the training")
        return steps


@dataclass
class TrainingStep:
    """Trains `model`, in place, by one batch after the other; `dtype` is autocast's, None for float32."""

    model: nn.Module
    settings: TrainSettings
    dtype: torch.dtype | None = None
    effects: Sequence[Effect] = ()
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        self._device = next(self.model.parameters()).device.type
        self.optimizer = make_optimizer(
            self.model,
            s.optimizer,
            lr=s.lr,
            weight_decay=s.weight_decay,
            norm_weight_decay=s.norm_weight_decay,
            momentum=s.momentum,
            nesterov=s.nesterov,
        )
        self.scaler = torch.amp.GradScaler(self._device, enabled=self.dtype == torch.float16)
        self._network = data_parallel(self.model)

    def take(self, images: Tensor, labels: Tensor, n_images: int, *, step: int, lr: float) -> Tensor:
        """Step number `step`, from 0; returns the sum of the images' losses over `n_images`.

        `images` uint8 (n, C, H, W) and `labels` (n,) are this process's of the `n_images` of the batch.
        """
        own = () if rank() == 0 else (rank(),)  # other processes drop other units: they have other images
        seed_generators(self.settings.seed, step, *own)
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
        inputs = normalize(images.to(self._device), self.settings.mean, self.settings.std)
        with torch.autocast(self._device, dtype=self.dtype, enabled=self.dtype is not None):
            logits = self._network(inputs.to(memory_format=torch.channels_last)).float()
        targets, smoothing = labels.to(self._device), self.settings.label_smoothing
        loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing) / n_images
        # the processes' gradients are averaged, and should be added up
        self.scaler.scale(loss * world_size()).backward()
        return loss.detach()
