"""Many short texts in one piece of memory: a million names of files in tens of megabytes."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Texts:
    """`packed`: all texts, one after the other. `ends`: int64 (N,), where each ends. 8 bytes a text beside its own."""

    packed: bytes
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Texts":
        """The same texts, packed as they come."""
        packed, ends = bytearray(), array("q")
        for text in texts:
            packed += text
            ends.append(len(packed))
        return cls(bytes(packed), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        return self.packed[self.ends[index - 1] if index else 0 : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self.ends.tolist():
            yield self.packed[start:end]
            start = end

    def same(self, other: "Texts") -> bool:
        """Are they the same texts in the same order?"""
        return np.array_equal(self.ends, other.ends) and self.packed == other.packed


def to_bytes(name: str) -> bytes:
    """A file's name as it is packed: UTF-8, and what is none as it is on the disk."""
    return name.encode(errors="surrogateescape")


def to_name(packed: bytes) -> str:
    """The inverse of `to_bytes`."""
    return packed.decode(errors="surrogateescape")
