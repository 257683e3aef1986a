"""Images with boxes in memory, and detections of them that are right, shifted, doubled, of another class or nowhere."""

from pathlib import Path

import numpy as np

from detect.data.images import Box, ImageRecord, Images
from detect.data.records import Split

CLASSES, IDS = ("nine", "three", "seven"), (9, 3, 7)


def scenes(images=12, *, seed=0, special=0.2, voc_year=None):
    """A split; the share `special` of its boxes is crowd, or difficult with `voc_year`."""
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(images):
        boxes = []
        for _ in range(int(rng.integers(0, 6))):
            xywh = tuple(float(v) for v in rng.integers((0, 0, 8, 8), (40, 20, 50, 40)))
            flag = {"crowd" if voc_year is None else "difficult": bool(rng.random() < special)}
            boxes.append(Box(xywh, int(rng.integers(0, 3)), xywh[2] * xywh[3], **flag))
        each.append(boxes)
    return in_split(each, voc_year=voc_year)


def in_split(each, *, ids=IDS, voc_year=None):
    """A split of images with these boxes, whose ids count from 0."""
    records = [ImageRecord(i, Path(f"{i}.png"), 64, 96, tuple(boxes)) for i, boxes in enumerate(each)]
    return Split(Path("annotations.json"), CLASSES, ids, Images.of(records), (), voc_year)


def guesses(split, *, seed=1, shift=3.0, levels=None):
    """Detections in COCO's result format; `levels`: how many different scores there are, None: all differ."""
    rng = np.random.default_rng(seed)
    found = []
    for image in split.images:
        shown = [(box.xywh, box.label) for box in image.boxes for _ in range(3)] + [((1.0, 1.0, 9.0, 9.0), 0)]
        for xywh, label in shown:
            box = [float(v) for v in np.round(np.array(xywh) + rng.normal(0, shift, 4))]
            label = label if rng.random() < 0.8 else int(rng.integers(0, 3))
            score = rng.random() if levels is None else rng.integers(1, levels + 1) / levels
            found.append({"image_id": image.id, "category_id": split.category_ids[label], "bbox": box, "score": score})
    return found
