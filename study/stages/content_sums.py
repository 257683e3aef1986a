"""SHA-256 of what data sets consist of."""

import hashlib
import zipfile
import zlib
from pathlib import Path

from classify.data.content import Pieces
from training.remembered import Asked, Found, remembered

# content that cannot be read: whoever opens the data set says so, or leaves it out as it was asked to
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)


def content_sum(place: str, pieces: Pieces, folder: Path | None) -> str:
    """SHA-256 over the names and contents of `pieces`, in their order; `place` names the data set in messages.

    `folder`: where the sums of the single pieces are remembered, None: nowhere.
    """

    def find(index: int) -> Found:
        # such a stamp is of a file that is not there; that is not remembered, since it may come
        if pieces.stamps[index, 0] < 0:
            return b"absent", False
        try:
            return pieces.sha256(index).encode(), True
        except _DAMAGE:
            return b"unreadable", False

    digest = hashlib.sha256()
    sums = remembered(folder, place, Asked(pieces.keys, pieces.stamps), find)
    for name, found in zip(pieces.names, sums, strict=True):
        digest.update(b"%b\0%b\n" % (name, found))
    return digest.hexdigest()
