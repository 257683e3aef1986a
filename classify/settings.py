"""What defines a classifier's training."""

from dataclasses import dataclass

from classify.optimizers import check_optimizer


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
    precision: str = "auto"
    checkpoint_every: int = 100  # steps
    report_every: int = 20  # steps
    snapshot_at: int | None = None  # steps

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(f"accumulate={self.accumulate} is outside 1..batch_size={self.batch_size}")

    def steps_per_epoch(self, n_images: int) -> int:
        """Steps of one epoch, the last one with fewer images perhaps; ValueError if the settings ask for too much."""
        if self.batch_size > n_images:
            raise ValueError(f"batch_size={self.batch_size} is larger than the training set of {n_images} images")
        steps = -(-n_images // self.batch_size)
        total = self.epochs * steps
        if self.snapshot_at is not None and not 0 <= self.snapshot_at <= total:
            raise ValueError(f"snapshot_at={self.snapshot_at} is outside 0..{total}, the steps of the training")
        return steps
