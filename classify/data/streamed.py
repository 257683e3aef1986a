"""Images that stay files: decoded as they are needed, in processes of their own, the same for any number of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from classify.data.augment import WHILE_DECODING, augmentation
from classify.data.decode import BrokenImage, Crop, centre, random_part, read_image
from classify.data.image_files import ImageFiles
from classify.data.images import Batch
from classify.data.layout import Labelled


@dataclass(frozen=True)
class StreamedImages:
    """One split on disk; `workers` processes decode it (0: this one). BrokenImage where a file turns out damaged."""

    files: ImageFiles
    labelled: Labelled
    classes: tuple[str, ...]
    crop: Crop
    workers: int = 0

    @property
    def labels(self) -> Tensor:
        """int64, (N,)."""
        return self.labelled.labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.crop.size, self.crop.size

    def __len__(self) -> int:
        return len(self.labelled)

    def take(self, index: Tensor) -> Tensor:
        """The images `index` as they are evaluated."""
        return torch.stack([self._centre(i) for i in index.tolist()])

    def batches(self, plan: Iterable[Batch], augment: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each planned batch, whole batches decoded side by side; "imagenet" augments each image as it is decoded."""
        if augment != WHILE_DECODING:
            augmentation(augment)  # an unknown name is refused before workers start
        loader = DataLoader(
            _Decoding(self, augment),
            batch_size=None,  # an item is a batch
            sampler=plan,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or it would draw from the training's random numbers
        )
        yield from loader

    def subset(self, index: Tensor) -> "StreamedImages":
        """The images `index` (n,) alone."""
        return replace(self, labelled=self.labelled.subset(index))

    def fingerprint(self) -> str:
        """SHA-256 of the classes, the crop, and each file's name, size in bytes and label."""
        digest = hashlib.sha256(repr((self.classes, self.crop)).encode())
        for file, label in zip(self.labelled.files, self.labels.tolist(), strict=True):
            digest.update(f"{file.name}\0{file.size}\0{label}\n".encode())
        return digest.hexdigest()

    def decode(self, batch: Batch, augment: str) -> tuple[Tensor, Tensor]:
        """This process's part of one batch."""
        index = batch.index.tolist()
        mine = range(len(index))[batch.part]
        labels = self.labels[batch.index][batch.part]
        if augment == WHILE_DECODING:
            return torch.stack([self._random_part(index[i], (*batch.key, i)) for i in mine]), labels
        images = torch.stack([self._centre(index[i]) for i in mine])
        if augment == "none":
            return images, labels
        # The random numbers are those of the whole batch, of which the other processes' images stay black
        whole = torch.zeros(len(index), *self.shape, dtype=torch.uint8)
        whole[batch.part] = images
        return augmentation(augment)(whole, batch.generator())[batch.part], labels

    def _centre(self, index: int) -> Tensor:
        return self._read(index, lambda image: centre(image, self.crop))

    def _random_part(self, index: int, key: tuple[int, ...]) -> Tensor:
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        return self._read(index, lambda image: random_part(image, self.crop.size, seed))

    def _read(self, index: int, use: Callable[[Image], Tensor]) -> Tensor:
        name = self.labelled.files[index].name
        try:
            return read_image(self.files, name, use)
        except BrokenImage as error:
            raise BrokenImage(
                f"{self.files.root}: {name} cannot be read ({error}); check: full finds it at the start"
            ) from error


class _Decoding(Dataset[tuple[Tensor, Tensor]]):
    """Turns batches that are planned into images; this is what goes to the workers."""

    def __init__(self, images: StreamedImages, augment: str):
        self._images = images
        self._augment = augment

    def __getitem__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._images.decode(batch, self._augment)
