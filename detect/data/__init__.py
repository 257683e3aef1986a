"""Detection data sets: read once into memory, checked, handed out as streams."""

from detect.data.check import check_apart, check_dataset
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

__all__ = [
    "CocoDataset",
    "DetectionDataset",
    "JoinedDataset",
    "PositionSampler",
    "TrainStream",
    "VocDataset",
    "check_apart",
    "check_dataset",
    "class_names",
    "mean_image_size",
    "seeded_rng",
    "test_loader",
    "train_loader",
]
