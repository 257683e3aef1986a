"""A detection data set as Detectron2's loaders hand it out."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader, detection_utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.structures import PolygonMasks
from torch.utils.data import DataLoader

from detect.data.outlines import read_outlines
from detect.data.picture import read_picture
from detect.data.records import DetectionDataset, Record
from detect.data.stream import PositionSampler, TrainStream


class Mapper(DatasetMapper):
    """Detectron2's own reading clips grey of 16 bits at 255; its records have boxes here, and outlines if asked for.

    In training what a record becomes by the same transformation is kept for the process: a picture is read and scaled
    once, unless `keeps` is false. `colours`: augmentations that look at pixels, anew each time. `masks`: Detectron2's
    format of the objects' masks, "polygon" or "bitmask"; None: records have none.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: str,
        colours: Sequence[T.Augmentation] = (),
        masks: str | None = None,
        keeps: bool = True,
    ):
        super().__init__(
            is_train=is_train,
            augmentations=augmentations,
            image_format=image_format,
            use_instance_mask=masks is not None,
            instance_mask_format=masks or "polygon",
        )
        self.crops = any(isinstance(augmentation, T.RandomCrop) for augmentation in augmentations)
        self.keeps = keeps and is_train and not self.crops  # two crops are hardly ever alike
        self.colours = T.AugmentationList(colours)

    def __call__(self, dataset_dict: Record) -> Record:
        """The record with `image`, uint8 (3, H, W), and for training `instances` instead of its annotations."""
        transforms = self.augmentations(_Size(dataset_dict["height"], dataset_dict["width"]))
        record = self._kept_or_mapped(dataset_dict, transforms)
        if self.colours.augs:
            seen = T.AugInput(record["image"].permute(1, 2, 0).numpy())
            self.colours(seen)
            record["image"] = torch.as_tensor(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        return record

    def _kept_or_mapped(self, dataset_dict: Record, transforms: T.TransformList) -> Record:
        if not self.keeps:
            return self._map(copy.deepcopy(dataset_dict), transforms)
        file = Path(dataset_dict["file_name"]).stat()
        applied = tuple((type(t), *vars(t).values()) for t in transforms.transforms)
        key = (
            repr(dataset_dict),
            file.st_mtime_ns,
            file.st_size,
            applied,
            self.image_format,
            self.instance_mask_format,
        )
        return {**_kept.get(key, lambda: self._map(copy.deepcopy(dataset_dict), transforms))}

    def _map(self, record: Record, transforms: T.TransformList) -> Record:
        rgb = np.asarray(read_picture(Path(record["file_name"])))
        image = rgb[:, :, ::-1] if self.image_format == "BGR" else rgb
        detection_utils.check_image_size(record, image)
        image = transforms.apply_image(image)
        record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if self.is_train:
            self._transform_annotations(record, transforms, image.shape[:2])
            if self.crops and record["instances"].has("gt_masks"):  # as Detectron2 does
                record["instances"].gt_boxes = record["instances"].gt_masks.get_bounding_boxes()
        else:
            record.pop("annotations", None)
        return record


_ROOM = 2**28  # bytes of a process


@dataclass
class _Kept:
    """What pictures became, as long as there is room: the first ones stay."""

    free: int = _ROOM
    mapped: dict[tuple[object, ...], Record] = field(default_factory=dict)

    def get(self, key: tuple[object, ...], make: Callable[[], Record]) -> Record:
        if key in self.mapped:
            return self.mapped[key]
        made = make()
        if (size := _bytes(made)) <= self.free:
            self.free -= size
            self.mapped[key] = made
        return made


def _bytes(record: Record) -> int:
    """Of the image and of the objects' masks."""
    masks = record["instances"].get_fields().get("gt_masks")
    if isinstance(masks, PolygonMasks):
        return record["image"].nbytes + sum(polygon.nbytes for polygons in masks.polygons for polygon in polygons)
    return record["image"].nbytes + (0 if masks is None else masks.tensor.nbytes)


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
    sizes, of_images = np.unique(dataset.split.images.sizes, axis=0, return_inverse=True)
    resized = np.array([T.ResizeShortestEdge.get_output_shape(h, w, short, longest) for h, w in sizes.tolist()])
    height, width = resized[of_images.ravel()].mean(axis=0).round().astype(int).tolist()
    return height, width


def sizes_vary(dataset: DetectionDataset, cfg: CfgNode) -> bool:
    """Do training images come in several sizes once they are scaled or cropped?"""
    shorter, longest = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN
    if cfg.INPUT.CROP.ENABLED or len(set(shorter)) > 1:
        return True
    found = {(image.height, image.width) for image in dataset.split.images}
    scaled = {T.ResizeShortestEdge.get_output_shape(*size, shorter[0], longest) for size in found}
    return len(scaled) > 1


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
) -> DataLoader[list[Record]]:
    """An endless loader; its k-th batch depends only on (seed, start_iteration + k). Split over processes.

    `flip`, `group_by_aspect`: also where `cfg` says so. `colour_jitter`, `repeat_threshold`: as in TrainSettings.
    """
    # Detectron2 needs a library that is not here to crop a polygon
    outlines = read_outlines(dataset.split, encoded=cfg.INPUT.CROP.ENABLED) if cfg.MODEL.MASK_ON else None
    records = dataset.split.records(filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, outlines=outlines)
    mapper = Mapper(
        is_train=True,
        augmentations=train_augmentations(cfg, flip),
        image_format=cfg.INPUT.FORMAT,
        colours=colour_augmentations(colour_jitter),
        masks=None if outlines is None else "bitmask" if outlines.any_encoded else "polygon",
        keeps=_worth_keeping(dataset, cfg),
    )
    heights, widths = records.images.sizes.T
    stream = TrainStream(
        records,
        mapper,
        seed=seed,
        batch_size=batch_size,
        landscape=widths > heights if group_by_aspect or cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
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


def _worth_keeping(dataset: DetectionDataset, cfg: CfgNode) -> bool:
    """Is there room for a tenth of an epoch's pictures? Of fewer hardly one is asked for again."""
    height, width = mean_image_size(dataset, cfg)
    return 3 * height * width * len(dataset.split.images) <= 10 * _ROOM


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


def colour_augmentations(jitter: float | None) -> list[T.Augmentation]:
    """Detectron2's changes of brightness, contrast and saturation, each by a factor in 1 - jitter to 1 + jitter."""
    if jitter is None:
        return []
    return [kind(1 - jitter, 1 + jitter) for kind in (T.RandomBrightness, T.RandomContrast, T.RandomSaturation)]


def test_loader(dataset: DetectionDataset, cfg: CfgNode, *, num_workers: int = 0) -> DataLoader[list[Record]]:
    """Detectron2's loader of every image once, in order, one per batch, split over the processes."""
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    mapper = Mapper(is_train=False, augmentations=[resize], image_format=cfg.INPUT.FORMAT)
    records = dataset.split.records()
    return build_detection_test_loader(dataset=records, mapper=mapper, num_workers=num_workers)
