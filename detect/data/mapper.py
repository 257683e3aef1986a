"""From a record to what a detector takes: Detectron2's mapper over pictures that we read."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T

from detect.data.picture import read_picture


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
