"""What a data set consists of, piece by piece, so that it can be told from another in the same place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """A part of a data set's content.

    `name`: what it is called in the data set, wherever that is. `file`: the file that it is in. `read`: its bytes where
    they are not those of the file, as inside an archive.
    """

    name: str
    file: Path
    read: Callable[[], bytes] | None = None
