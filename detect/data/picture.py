"""An image file as training, evaluation, drawings and the checker see it: upright, in RGB of 8 bits."""

import struct
import zlib
from pathlib import Path

from PIL import ExifTags, Image

from classify.data.decode import to_rgb

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
UNTURNED = 1
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
# What damaged files make Pillow raise; its own error for files that it does not know is an OSError
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_picture(file: Path) -> Image.Image:
    """The picture, turned as its EXIF orientation says: boxes are of this one. Detectron2 turns pictures alike."""
    with Image.open(file) as image:
        turn = _UPRIGHT.get(orientation(image))
        rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of EXIF data beyond repair, many types; the picture itself may be whole
        return UNTURNED
    return found if found in _UPRIGHT else UNTURNED


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright picture, from the file's header; 0, 0 if it cannot be read."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            return (height, width) if orientation(image) in SIDEWAYS else (width, height)
    except DAMAGE:
        return 0, 0  # whoever checks the images says what is wrong with it
