"""Small image files for the tests of data sets that are read from disk."""

import zipfile
from io import BytesIO

import numpy as np
from PIL import Image


def picture(value, width=40, height=40):
    """An RGB picture: `value` in red, gradients in green and blue, so that parts of it differ."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = value
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels[..., 2] = np.linspace(0, 255, width)
    return Image.fromarray(pixels)


def encoded(value, kind="PNG", **size):
    """The bytes of a picture as a file of that kind."""
    content = BytesIO()
    picture(value, **size).save(content, kind)
    return content.getvalue()


def write_images(folder, n, *, first=0, **size):
    """`n` pictures 000.png, ... whose red is `first`, `first` + 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i:03d}.png").write_bytes(encoded(first + i, **size))


def write_zip(path, members):
    """A zip of {name or ZipInfo: bytes}."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
