"""A detection data set as Detectron2's loaders hand it out; the training stream resumes exactly."""

import copy
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader, detection_utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from detect.data.picture import read_picture
from detect.data.records import DetectionDataset
from pruning.errors import Refusal
from training.seeding import seed_generators


class Mapper(DatasetMapper):
    """Detectron2's own reading clips grey of 16 bits at 255; boxes are all that its records have here.

    In training what a record becomes by the same transformation is kept for the process: a picture is read and scaled
    once. `colours`: augmentations that look at pixels, anew each time.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: str,
        colours: Sequence[T.Augmentation] = (),
    ):
        super().__init__(is_train=is_train, augmentations=augmentations, image_format=image_format)
        crops = any(isinstance(augmentation, T.RandomCrop) for augmentation in augmentations)
        self.keeps = is_train and not crops  # two crops are hardly ever alike
        self.colours = T.AugmentationList(colours)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The record with `image`, uint8 (3, H, W), and for training `instances` instead of its annotations."""
        transforms = self.augmentations(_Size(dataset_dict["height"], dataset_dict["width"]))
        record = self._kept_or_mapped(dataset_dict, transforms)
        if self.colours.augs:
            seen = T.AugInput(record["image"].permute(1, 2, 0).numpy())
            self.colours(seen)
            record["image"] = torch.as_tensor(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        return record

    def _kept_or_mapped(self, dataset_dict: dict[str, Any], transforms: T.TransformList) -> dict[str, Any]:
        if not self.keeps:
            return self._map(copy.deepcopy(dataset_dict), transforms)
        file = Path(dataset_dict["file_name"]).stat()
        applied = tuple((type(t), *vars(t).values()) for t in transforms.transforms)
        key = (repr(dataset_dict), file.st_mtime_ns, file.st_size, applied, self.image_format)
        return dict(_kept.get(key, lambda: self._map(copy.deepcopy(dataset_dict), transforms)))

    def _map(self, record: dict[str, Any], transforms: T.TransformList) -> dict[str, Any]:
        rgb = np.asarray(read_picture(Path(record["file_name"])))
        image = rgb[:, :, ::-1] if self.image_format == "BGR" else rgb
        detection_utils.check_image_size(record, image)
        image = transforms.apply_image(image)
        record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if self.is_train:
            self._transform_annotations(record, transforms, image.shape[:2])
        else:
            record.pop("annotations", None)
        return record


@dataclass
class _Kept:
    """What pictures became, as long as there is room: the first ones stay."""

    free: int = 2**28  # bytes of a process
    mapped: dict[tuple, dict[str, Any]] = field(default_factory=dict)

    def get(self, key: tuple, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key in self.mapped:
            return self.mapped[key]
        made = make()
        if made["image"].nbytes <= self.free:
            self.free -= made["image"].nbytes
            self.mapped[key] = made
        return made


_kept = _Kept()  # stages that run in one process often train on the same data set


class _Size(T.AugInput):
    """A picture's size, without its pixels: it is all that the augmentations of `train_augmentations` look at."""

    def __init__(self, height: int, width: int):
        self._set(height, width)

    def transform(self, tfm: T.Transform) -> None:
        if isinstance(tfm, T.ResizeTransform):
            self._set(tfm.new_h, tfm.new_w)
        elif isinstance(tfm, T.CropTransform):
            self._set(tfm.h, tfm.w)

    def _set(self, height: int, width: int) -> None:
        self.image = np.broadcast_to(np.uint8(0), (height, width, 3))


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
    colour_jitter: float | None = None,
    repeat_threshold: float | None = None,
    group_by_aspect: bool = False,
    num_workers: int = 0,
) -> DataLoader:
    """An endless loader; its k-th batch depends only on (seed, start_iteration + k). Split over processes.

    `flip`, `group_by_aspect`: also where `cfg` says so. `colour_jitter`, `repeat_threshold`: as in TrainSettings.
    """
    records = dataset.split.records(filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    mapper = Mapper(
        is_train=True,
        augmentations=train_augmentations(cfg, flip),
        image_format=cfg.INPUT.FORMAT,
        colours=colour_augmentations(colour_jitter),
    )
    stream = TrainStream(
        records,
        mapper,
        seed=seed,
        batch_size=batch_size,
        group_by_aspect=group_by_aspect or cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        repeat_threshold=repeat_threshold,
    )
    return build_detection_train_loader(
        dataset=stream,
        mapper=None,  # the stream maps, so that it can seed the mapper by position
        sampler=PositionSampler(start_iteration * batch_size),
        total_batch_size=batch_size,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )


def train_augmentations(cfg: CfgNode, flip: bool) -> list[T.Augmentation]:
    """Augmentations of a training image, as in Detectron2's DatasetMapper; `flip`: also if `cfg` says none."""
    augmentations = build_augmentation(cfg, is_train=True)
    if flip and cfg.INPUT.RANDOM_FLIP == "none":
        augmentations.append(T.RandomFlip())
    if cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    return augmentations


def colour_augmentations(jitter: float | None) -> list[T.Augmentation]:
    """Detectron2's changes of brightness, contrast and saturation, each by a factor in 1 - jitter to 1 + jitter."""
    if jitter is None:
        return []
    return [kind(1 - jitter, 1 + jitter) for kind in (T.RandomBrightness, T.RandomContrast, T.RandomSaturation)]


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
    are put in different batches, and the epoch's last, incomplete batch is left out. With `repeat_threshold` images of
    rare classes are there several times in an epoch, as often as Detectron2's RepeatFactorTrainingSampler says, so
    that epochs differ in length.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        mapper: Mapper,
        *,
        seed: int,
        batch_size: int = 1,
        group_by_aspect: bool = False,
        repeat_threshold: float | None = None,
    ):
        if group_by_aspect and len(records) < batch_size:
            raise Refusal(f"{len(records)} images do not fill one batch of {batch_size} grouped by aspect")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.batch_size = batch_size
        self.landscape = np.array([r["width"] > r["height"] for r in records]) if group_by_aspect else None
        self.repeats = None if repeat_threshold is None else _repeats(records, repeat_threshold)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))  # the epoch drawn last
        self._ends = [0]  # where epochs of different lengths end

    def __len__(self) -> int:
        """Records in one epoch, or in the first if they differ."""
        if self.repeats is not None:
            return len(self._epoch_order(0))
        n = len(self.records)
        return n if self.landscape is None else n - n % self.batch_size

    def __getitem__(self, position: int) -> dict[str, Any]:
        with seeded_rng(self.seed, position):
            return self.mapper(self.records[self.index(position)])

    def index(self, position: int) -> int:
        """The record at a position of the stream."""
        epoch, offset = divmod(position, len(self)) if self.repeats is None else self._place(position)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        return int(self._order[1][offset])

    def _place(self, position: int) -> tuple[int, int]:
        """Epoch and place in it, where epochs differ in length."""
        while self._ends[-1] <= position:
            self._ends.append(self._ends[-1] + len(self._epoch_order(len(self._ends) - 1)))
        epoch = bisect_right(self._ends, position) - 1
        return epoch, position - self._ends[epoch]

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """The records of an epoch in a random order; repeated ones as often as a rounding at random gives."""
        if self.repeats is None:
            return rng.permutation(len(self.records))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return rng.permutation(self.repeats._get_epoch_indices(generator).numpy())

    def _epoch_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        order = self._drawn(rng)
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


def _repeats(records: list[dict[str, Any]], threshold: float) -> RepeatFactorTrainingSampler:
    """How often each record is drawn in an epoch on average: the square root of threshold / frequency, if above 1."""
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, threshold)
    return RepeatFactorTrainingSampler(factors, seed=0)  # the seed of an order that is not asked for


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
