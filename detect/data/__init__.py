"""Detection data sets: read once into memory and checked, without Detectron2; loader.py hands them out to it."""

from detect.data.check import check_apart, check_classes, check_dataset
from detect.data.classes import MatchedDataset
from detect.data.coco import CocoDataset
from detect.data.records import DetectionDataset, class_names
from detect.data.voc import JoinedDataset, VocDataset
from detect.data.whole import WholeImages

__all__ = [
    "CocoDataset",
    "DetectionDataset",
    "JoinedDataset",
    "MatchedDataset",
    "VocDataset",
    "WholeImages",
    "check_apart",
    "check_classes",
    "check_dataset",
    "class_names",
]
