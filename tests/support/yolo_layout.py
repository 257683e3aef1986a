"""A small data set in YOLO's format, written where a test wants it."""

import numpy as np
import yaml
from PIL import Image

SIZE = (80, 40)  # width, height


def write_yolo(root, splits, names=("cat", "dog"), **more):
    """`splits`: {folder of images below root: {name: lines of labels, None: no file}}; data.yaml has `more`.

    Labels are in the folder in which `images` is `labels`; returns the YAML.
    """
    seed = 0
    for place, images in splits.items():
        folder, labels = root / place, root / place.replace("images", "labels")
        folder.mkdir(parents=True)
        labels.mkdir(parents=True, exist_ok=True)
        for name, lines in images.items():
            pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
            seed += 1
            if lines is not None:
                (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({"names": list(names), **more}))
    return path
