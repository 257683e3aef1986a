"""Images from a folder that has one folder per class, as ImageNet is kept: `root/class/image.jpg`."""

from itertools import chain, zip_longest
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from classify.data.images import ImageSet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SUFFIXES = (".png", ".jpg", ".jpeg")

# ImageNet's test images are resized to 256 pixels before 224 of them are cut out; small ones are used whole
_RESIZE = 256 / 224
_SMALLEST_CROPPED = 128


def load_folder(root: Path, *, image_size: int, n_images: int, seed: int = 0) -> ImageSet:
    """At most `n_images` images of `root/class/image`, as many of each class as there are, drawn by `seed`.

    Each is resized, and its centre of `image_size` x `image_size` pixels is kept. ValueError for a folder without
    classes, a class without images, or a file that is no image.
    """
    if n_images < 1:
        raise ValueError(f"n_images={n_images} must be at least 1")
    classes = _classes(root)
    random = Random(seed)
    shuffled = [random.sample(files, len(files)) for files in classes.values()]
    in_turn = chain.from_iterable(zip_longest(*([(label, f) for f in fs] for label, fs in enumerate(shuffled))))
    chosen = [item for item in in_turn if item is not None][:n_images]
    images = torch.stack([_read(file, image_size) for _, file in chosen])
    return ImageSet(images, torch.tensor([label for label, _ in chosen]), tuple(classes))


def _classes(root: Path) -> dict[str, list[Path]]:
    """Image files by class, both in alphabetical order."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(f"{root}: no folder of a class in it; images are expected as {root / 'class' / 'image.png'}")
    classes = {f.name: sorted(p for p in f.iterdir() if p.suffix.lower() in SUFFIXES) for f in folders}
    for name, files in classes.items():
        if not files:
            raise ValueError(f"{root / name}: no image in it; files read are {', '.join(SUFFIXES)}")
    return classes


def _read(file: Path, size: int) -> torch.Tensor:
    """uint8 (3, size, size), RGB."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: not readable as an image ({error})") from error
    shorter = round(size * _RESIZE) if size >= _SMALLEST_CROPPED else size
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).permute(2, 0, 1)
