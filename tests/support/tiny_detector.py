"""A detector and its data as small as they can be."""

import json

import numpy as np
import torch
from PIL import Image

import detect.settings
from classify.models import build
from detect.build import build_detector
from detect.data import CocoDataset
from detect.settings import DetectorSettings
from support.told import altered, told


def two_squares(folder):
    """Eight 64 x 64 images, each with two bright squares on black."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(8):
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        for k in range(2):
            x, y, side = int(rng.integers(2, 12)) + 28 * k, int(rng.integers(2, 40)), int(rng.integers(10, 20))
            pixels[y : y + side, x : x + side] = 255
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": k + 1,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
                }
            )
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
    path = folder / "train.json"
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoDataset(path, folder)


SMALL = DetectorSettings(
    image_size=64,
    norm="BN",
    fpn_channels=8,
    anchor_sizes=(8, 16, 32, 64, 128),
    rpn_batch_size=16,
    roi_batch_size=16,
    pre_nms_topk=50,
    train_proposals=20,
    test_proposals=20,
    box_head_dim=16,
)


def make_detector(width=0.25, **changes):
    """Around a ResNet-10 of a quarter of the width: 16, 32, 64 and 128 channels."""
    torch.manual_seed(0)
    return build_detector(build("resnet10", 2, {"width": width}), altered(SMALL, **changes), num_classes=2)


def settings(**changes):
    """The `settings` and the `run` of a training."""
    values = {"iterations": 4, "batch_size": 2, "lr": 0.01, "clip_norm": 5.0, "report_every": 1, "precision": "float32"}
    return told(values, detect.settings, **changes)
