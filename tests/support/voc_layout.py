"""A small data set in VOC's layout, written where a test wants it."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (96, 64)  # width, height


def voc_object(name, corners, *, difficult=0, truncated=0):
    """The XML of one object; `corners`: xmin, ymin, xmax, ymax."""
    edges = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{key}>{value}</{key}>" for key, value in edges)
    flags = f"<difficult>{difficult}</difficult><truncated>{truncated}</truncated>"
    return f"<object><name>{name}</name><pose>Unspecified</pose>{flags}<bndbox>{box}</bndbox></object>"


def write_voc(root: Path, images: dict[str, list[str]], image_set: str = "test", *, size=SIZE) -> Path:
    """Images of noise, one for each id, with their objects, in one image set; returns the root."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k, (image_id, objects) in enumerate(images.items()):
        pixels = np.random.default_rng(k).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{image_id}.jpg")
        write_annotation(root, image_id, objects, size=size)
    (root / "ImageSets" / "Main" / f"{image_set}.txt").write_text("".join(f"{i}\n" for i in images))
    return root


def write_annotation(root: Path, image_id: str, objects: list[str], *, size=SIZE, before: str = "") -> None:
    """Annotations/<id>.xml, with `before` between the XML declaration and its root."""
    width, height = size
    dimensions = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text = f'<?xml version="1.0"?>{before}<annotation>{dimensions}{"".join(objects)}</annotation>'
    (root / "Annotations" / f"{image_id}.xml").write_text(text)
