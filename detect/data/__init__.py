"""Detection data sets: read once into memory, checked, handed out as streams."""

from detect.data.check import check_apart, check_classes, check_dataset
from detect.data.classes import MatchedDataset, with_boxes_only
from detect.data.coco import CocoDataset
from detect.data.loader import (
    DetectionDataset,
    PositionSampler,
    TrainStream,
    class_names,
    mean_image_size,
    seeded_rng,
    test_loader,
    train_loader,
)
from detect.data.voc import JoinedDataset, VocDataset
from detect.data.whole import WholeImages

__all__ = [
    "CocoDataset",
    "DetectionDataset",
    "JoinedDataset",
    "MatchedDataset",
    "PositionSampler",
    "TrainStream",
    "VocDataset",
    "WholeImages",
    "check_apart",
    "check_classes",
    "check_dataset",
    "class_names",
    "mean_image_size",
    "seeded_rng",
    "test_loader",
    "train_loader",
    "with_boxes_only",
]
