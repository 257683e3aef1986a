"""What the files of pictures hold: every byte is read and decoded, and that is remembered until a file changes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from detect.data.picture import DAMAGE, UNTURNED, orientation
from detect.data.problems import MISSING, UNREADABLE
from detect.data.records import Split
from training.remembered import Asked, Found, keys_of, remembered, stamps_of


@dataclass(frozen=True)
class Decoded:
    """A picture's file. `sha256`: of its content, "" where there is none.

    `mode`, `size` (width, height) and `turn`, the EXIF orientation, are Pillow's, as stored. `fault`: the kind of what
    is wrong with a file that is no picture; `reason`: why, in words.
    """

    sha256: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turn: int = UNTURNED
    fault: str = ""
    reason: str = ""


def decode(file: Path) -> Decoded:
    """What is in a file, looked at to its end."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Decoded("", fault=MISSING)
    except OSError as error:
        return Decoded("", fault=UNREADABLE, reason=error.strerror or str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(BytesIO(content)) as picture:
            mode, size = picture.mode, picture.size
            # a JPEG is read to its end at an eighth of its size too, in less than half of the time
            picture.draft(None, (1, 1))
            picture.load()
            return Decoded(sha256, mode, size, orientation(picture))
    except DAMAGE as error:
        reason = "no image of a known format" if "identify" in str(error) else str(error)
        return Decoded(sha256, fault=UNREADABLE, reason=reason)


def decode_split(split: Split, memory: Path | None) -> Sequence[Decoded]:
    """What is in each picture's file. The folder `memory` remembers it of those that can be read; None: nothing does.

    Where one is remembered, only its size and times were looked at now.
    """
    files = split.images.files
    asked = Asked(keys_of(files), stamps_of(files))

    def find(index: int) -> Found:
        found = decode(Path(files[index]))
        return json.dumps(astuple(found)).encode(), not found.fault

    texts = remembered(memory, f"pictures of {split.source.resolve()}", asked, find)
    return [_read(text) for text in texts]


def _read(text: bytes) -> Decoded:
    sha256, mode, (width, height), *others = json.loads(text)
    return Decoded(sha256, mode, (width, height), *others)
