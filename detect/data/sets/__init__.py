"""Every detection data set by name. To add one: a file here, and a line in DATASETS."""

from typing import Any

from detect.data.sets import coco, digits, voc, yolo
from detect.data.sets.dataset import DataSet

DATASETS: dict[str, DataSet[Any, Any]] = {
    "digits": digits.DIGITS,
    "coco": coco.COCO,
    "voc": voc.VOC,
    "yolo": yolo.YOLO,
}
