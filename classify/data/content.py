"""What a data set consists of, piece by piece, so that it can be told from another in the same place."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.files import sha256
from training.remembered import Stamps, keys_of, stamps_of
from training.texts import Texts, to_bytes


@dataclass(frozen=True)
class Piece:
    """A part of a data set's content.

    `name`: what it is called in the data set, wherever that is. `file`: the file that it is in. `read`: its bytes where
    they are not those of the file, as inside an archive.
    """

    name: str
    file: Path
    read: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Pieces:
    """All pieces of a data set, without an object for each.

    `keys`: what tells each from all others that were ever in the same place. `stamps`: of their files, (N, 3).
    `sha256(index)`: 64 hexadecimal digits over a piece's bytes.
    """

    names: Texts
    keys: Texts
    stamps: Stamps
    sha256: Callable[[int], str]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> "Pieces":
        """The same pieces, their files as they are now."""

        def digest(index: int) -> str:
            piece = pieces[index]
            return sha256(piece.file) if piece.read is None else hashlib.sha256(piece.read()).hexdigest()

        names = Texts.of(to_bytes(piece.name) for piece in pieces)
        keys = keys_of(p.file if p.read is None else p.file / p.name for p in pieces)
        return cls(names, keys, stamps_of(piece.file for piece in pieces), digest)
