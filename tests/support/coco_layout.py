"""Small data sets in COCO's format, written where a test wants them."""

import json
from io import BytesIO

import numpy as np
from PIL import Image

from detect.data import CocoDataset


def picture(seed=0, mode="RGB", size=(40, 20)):
    """Noise; `size`: width, height."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, kind, **options):
    """The bytes of a file of that kind."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    """EXIF data that asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def grey_16_bits(value=60000, size=(40, 20)):
    """A PNG of one grey."""
    return encoded(Image.fromarray(np.full(size[::-1], value, dtype=np.uint16)), "PNG")


def coco_box(k, image, bbox, **more):
    """An annotation of the category with id 0."""
    return {"id": k, "image_id": image, "category_id": 0, "bbox": bbox, **more}


def write_coco(folder, files, boxes=(), **changes):
    """A COCO JSON over files by name (40 x 20, ids from 1); no info, no licences, a category with id 0."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    images = [{"id": k, "file_name": name, "width": 40, "height": 20} for k, name in enumerate(files, 1)]
    coco = {
        "images": images,
        "annotations": list(boxes) or [coco_box(1, 1, [4, 4, 8, 8])],
        "categories": [{"id": 0, "name": "thing"}, {"id": 7, "name": "other"}],
    }
    (folder / "all.json").write_text(json.dumps(coco | changes))
    return CocoDataset(folder / "all.json", folder)
