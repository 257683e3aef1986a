"""A detection data set as Detectron2's loaders hand it out; the training stream resumes exactly."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader, detection_utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from detect.data.picture import read_picture
from detect.data.records import DetectionDataset
from pruning.errors import Refusal
from training.seeding import seed_generators


class Mapper(DatasetMapper):
    """Detectron2's own reading clips grey of 16 bits at 255; boxes are all that its records have here."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The record with `image`, uint8 (3, H, W), and for training `instances` instead of its annotations."""
        record = copy.deepcopy(dataset_dict)
        rgb = np.asarray(read_picture(Path(record["file_name"])))
        image = rgb[:, :, ::-1] if self.image_format == "BGR" else rgb
        detection_utils.check_image_size(record, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        height, width = augmented.image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            self._transform_annotations(record, transforms, (height, width))
        else:
            record.pop("annotations", None)
        return record


def mean_image_size(dataset: DetectionDataset, cfg: CfgNode) -> tuple[int, int]:
    """Mean (height, width) in pixels of the images as evaluation resizes them: the size that costs are given at."""
    short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    sizes = []
    for image in dataset.split.images:
        sizes.append(T.ResizeShortestEdge.get_output_shape(image.height, image.width, short, longest))
    height, width = np.mean(sizes, axis=0).round().astype(int).tolist()
    return height, width


def train_loader(
    dataset: DetectionDataset,
    cfg: CfgNode,
    *,
    batch_size: int,
    seed: int,
    start_iteration: int = 0,
    flip: bool = False,
    group_by_aspect: bool = False,
    num_workers: int = 0,
) -> DataLoader:
    """An endless loader; its k-th batch depends only on (seed, start_iteration + k). Split over processes.

    `flip`, `group_by_aspect`: also where `cfg` says so.
    """
    records = dataset.split.records(filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    mapper = Mapper(is_train=True, augmentations=train_augmentations(cfg, flip), image_format=cfg.INPUT.FORMAT)
    group_by_aspect = group_by_aspect or cfg.DATALOADER.ASPECT_RATIO_GROUPING
    stream = TrainStream(records, mapper, seed=seed, batch_size=batch_size, group_by_aspect=group_by_aspect)
    return build_detection_train_loader(
        dataset=stream,
        mapper=None,  # the stream maps, so that it can seed the mapper by position
        sampler=PositionSampler(start_iteration * batch_size),
        total_batch_size=batch_size,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )


def backbone_inputs(dataset: DetectionDataset, cfg: CfgNode, *, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Training images without end as a backbone reads them, (N, 3, H, W), of the sizes that training scales them to.

    The images of a batch are cut to the lowest height and the least width among them: padding is no picture.
    """
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    for batch in train_loader(dataset, cfg, batch_size=batch_size, seed=seed):
        images = [record["image"] for record in batch]
        height, width = (min(image.shape[axis] for image in images) for axis in (1, 2))
        yield torch.stack([(image[:, :height, :width] - mean) / std for image in images])


def train_augmentations(cfg: CfgNode, flip: bool) -> list[T.Augmentation]:
    """Augmentations of a training image, as in Detectron2's DatasetMapper; `flip`: also if `cfg` says none."""
    augmentations = build_augmentation(cfg, is_train=True)
    if flip and cfg.INPUT.RANDOM_FLIP == "none":
        augmentations.append(T.RandomFlip())
    if cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    return augmentations


def test_loader(dataset: DetectionDataset, cfg: CfgNode, *, num_workers: int = 0) -> DataLoader:
    """Detectron2's loader of every image once, in order, one per batch, split over the processes."""
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    mapper = Mapper(is_train=False, augmentations=[resize], image_format=cfg.INPUT.FORMAT)
    records = dataset.split.records()
    return build_detection_test_loader(dataset=records, mapper=mapper, num_workers=num_workers)


class PositionSampler(Sampler[int]):
    """Positions of the endless stream from `start` on; each process takes every world-size-th."""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        position = self.start + comm.get_rank()
        while True:
            yield position
            position += comm.get_world_size()


class TrainStream(Dataset):
    """Position in the endless training stream -> mapped record, a pure function of (seed, position).

    Each epoch is a permutation drawn from (seed, epoch). With `group_by_aspect` landscape and portrait images
    are put in different batches, and the epoch's last, incomplete batch is left out.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        mapper: Mapper,
        *,
        seed: int,
        batch_size: int = 1,
        group_by_aspect: bool = False,
    ):
        if group_by_aspect and len(records) < batch_size:
            raise Refusal(f"{len(records)} images do not fill one batch of {batch_size} grouped by aspect")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.batch_size = batch_size
        self.landscape = np.array([r["width"] > r["height"] for r in records]) if group_by_aspect else None
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))  # the epoch drawn last

    def __len__(self) -> int:
        """Records in one epoch."""
        n = len(self.records)
        return n if self.landscape is None else n - n % self.batch_size

    def __getitem__(self, position: int) -> dict[str, Any]:
        with seeded_rng(self.seed, position):
            return self.mapper(self.records[self.index(position)])

    def index(self, position: int) -> int:
        """The record at a position of the stream."""
        epoch, offset = divmod(position, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        return int(self._order[1][offset])

    def _epoch_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.records))
        if self.landscape is None:
            return order
        flags = self.landscape[order]
        batches, rest = [], []
        for group in (order[flags], order[~flags]):
            full = len(group) - len(group) % self.batch_size
            batches += [group[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
            rest += list(group[full:])
        rest = rest[: len(rest) - len(rest) % self.batch_size]
        batches += [np.array(rest[i : i + self.batch_size]) for i in range(0, len(rest), self.batch_size)]
        return np.concatenate([batches[i] for i in rng.permutation(len(batches))])


@contextmanager
def seeded_rng(seed: int, position: int) -> Iterator[None]:
    """Python's, NumPy's and PyTorch's CPU generators seeded from (seed, position), restored afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        seed_generators(seed, position)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
