"""Pictures without annotations, to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detect.data.images import ImageRecord, Images
from detect.data.picture import SUFFIXES, size_of
from detect.data.records import Split
from pruning.errors import Refusal


@dataclass(frozen=True)
class Pictures:
    """Single files, and folders with all pictures below them; `classes` are those of the detector that looks.

    An image's id is its path from the folder that was named, that folder's name included.
    """

    places: tuple[Path, ...]
    classes: tuple[str, ...]

    @cached_property
    def split(self) -> Split:
        """The pictures in the order of their names, categories numbered from 1; ValueError if there are none."""
        images: dict[str, ImageRecord] = {}
        for place in self.places:
            for name, file in _files(place):
                if name in images and images[name].file != file:
                    raise Refusal(f"{images[name].file} and {file} would both be called {name}; look at one at a time")
                width, height = size_of(file)
                images[name] = ImageRecord(name, file, height, width, ())
        ids = tuple(range(1, len(self.classes) + 1))
        return Split(self.places[0], self.classes, ids, Images.of(images.values()), ())


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """The name and the path of each picture."""
    if place.is_file():
        yield place.name, place
        return
    if not place.is_dir():
        raise Refusal(f"{place}: there is no such picture or folder")
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise Refusal(f"{place}: no picture in this folder ({', '.join(SUFFIXES)})")
    for file in found:
        yield (Path(place.resolve().name) / file.relative_to(place)).as_posix(), file
