"""Images by which a pruning method sees activations or gradients: a data set by name, or a folder of images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data import DATASETS, dataset_options, open_splits
from classify.data.augment import normalize
from classify.data.folder import load_folder
from classify.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from classify.data.images import Images, at_most_of_each, balanced_indices
from pruning.errors import Refusal
from pruning.methods import Calibration
from pruning.modes import evaluation_mode


@dataclass(frozen=True)
class CalibrationImages:
    """Images, which may be read as they are needed, and their normalisation (RGB, in 0..1)."""

    images: Images
    mean: Sequence[float]
    std: Sequence[float]

    def inputs(self, first: int, last: int) -> Tensor:
        """Images as a network reads them, (N, 3, H, W)."""
        return normalize(self.images.take(torch.arange(first, min(last, len(self.images)))), self.mean, self.std)

    def losses(self, batch_size: int = 32) -> Calibration:
        """The mean cross-entropy of each batch, in evaluation mode, where the network is."""

        def of_batches(model: nn.Module) -> Iterator[Tensor]:
            device = next(model.parameters()).device
            with evaluation_mode(model):
                for i in range(0, len(self.images), batch_size):
                    logits = model(self.inputs(i, i + batch_size).to(device))
                    yield F.cross_entropy(logits, self.images.labels[i : i + batch_size].to(device))

        return of_batches


@dataclass(frozen=True)
class ImageSource:
    """A data set of `DATASETS` with its options, or a folder or zip `class/image`; and how many images are wanted.

    `seed`: of generated images. `per_class`: instead of `n_images`, how many of each class.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    n_images: int = 256
    seed: int = 0
    per_class: int | None = None

    def open(self, *, image_size: int, seed: int) -> CalibrationImages:
        """Read or make the images; a named data set has `image_size` unless its options say otherwise."""
        if self.n_images < 1:
            raise Refusal(f"--data-images {self.n_images} must be at least 1")
        if self.name in DATASETS:
            return self._open_dataset(image_size)
        root = Path(self.name)
        if not root.is_dir() and not is_zipfile(root):
            known = ", ".join(DATASETS)
            raise Refusal(f"--data {self.name}: neither a folder, nor a zip, nor a data set; data sets: {known}")
        if self.options:
            raise Refusal(f"--data {self.name}: a folder takes no options, not {', '.join(self.options)}")
        images = load_folder(root, image_size=image_size, n_images=self.n_images, per_class=self.per_class, seed=seed)
        return CalibrationImages(images, IMAGENET_MEAN, IMAGENET_STD)

    def _open_dataset(self, image_size: int) -> CalibrationImages:
        # Only training images are used: of generated ones, no others are made than must be
        wanted = {"image_size": image_size, "n_val": 1, "n_test": 1}
        if self.per_class is None:
            wanted["n_train"] = self.n_images
        known = dataset_options(self.name)
        options: dict[str, Any] = {key: value for key, value in wanted.items() if key in known} | dict(self.options)
        try:
            splits = open_splits(self.name, seed=self.seed, **options)
        except ValueError as error:
            raise Refusal(f"--data {self.name}: {error} (options are given by --data-options)") from error
        labels = splits.train.labels
        n_images = self.n_images if self.per_class is None else at_most_of_each(labels, self.per_class)
        return CalibrationImages(splits.train.subset(balanced_indices(labels, n_images)), splits.mean, splits.std)


def check_fit(model: nn.Module, example: Tensor, num_classes: int, data: CalibrationImages) -> None:
    """ValueError unless the images are such as `model`, made for `example` (1, C, H, W), can read."""
    shape, made_for = data.images.shape, tuple(example.shape[1:])
    if shape[0] != made_for[0]:
        raise Refusal(f"the images have {shape[0]} channels, the network reads {made_for[0]}")
    if len(data.images.classes) > num_classes:
        raise Refusal(f"the images are of {len(data.images.classes)} classes, the network has {num_classes}")
    try:
        with evaluation_mode(model), torch.no_grad():
            model(data.inputs(0, 1))
    except (RuntimeError, AssertionError) as error:
        raise Refusal(f"the network, made for {made_for}, cannot read images of shape {shape}") from error
