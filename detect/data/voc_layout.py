"""Where the files of a data set with VOC's XML are: Pascal VOC's own folders, and those that people have.

Annotations are in Annotations/ (or annotations/, xmls/, labels/) or in the folder itself; images in JPEGImages/ (or
images/, imgs/) or beside the annotations, as LabelImg leaves them. An image set is a list of ids in ImageSets/Main/,
ImageSets/ or the folder; or a folder of its own, such as train/; or `all`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from detect.data.draw import drawn
from detect.data.picture import SUFFIXES
from pruning.errors import Refusal

ALL = "all"
_ANNOTATIONS = ("annotations", "annotation", "xmls", "xml", "labels")
_IMAGES = ("jpegimages", "images", "image", "imgs", "img")
_NO_IMAGES = (".xml", ".txt", ".json", ".csv", ".yaml")
_FLAGS = ("1", "+1", "-1", "0")  # of the lists of one class: it is there, it is not, it is there but difficult
_LAYOUT = (
    "expected are XML files in Annotations/ and images in JPEGImages/ (or annotations/ and images/, or both in one"
    " folder) and lists of names in ImageSets/Main/"
)


@dataclass(frozen=True)
class Draw:
    """Which part of an image set is meant: a random share of it, the same for the same seed, or the rest."""

    test: float
    seed: int
    side: str  # train or test

    def of(self, ids: Iterable[str], source: Path) -> list[str]:
        """The ids of this side, in their order."""
        listed = list(dict.fromkeys(ids))
        try:
            chosen = drawn(listed, self.test, self.seed)
        except ValueError as error:
            raise Refusal(f"{source}: voc.split.test {error}") from error
        return [name for name in listed if (name in chosen) == (self.side == "test")]


@dataclass(frozen=True)
class VocSet:
    """An image set of a folder, as a config names it. `annotations`, `images`: folders in `root`; None: found."""

    root: Path
    image_set: str
    annotations: Path | None = None
    images: Path | None = None
    draw: Draw | None = None

    def find(self) -> "Found":
        """The files there; ValueError with the expected layout if there are none."""
        found = self._found()
        if self.draw is None:
            return found
        ids = tuple(self.draw.of(found.ids, found.source))
        side = "drawn for the test split" if self.draw.side == "test" else "left for training"
        note = f"{found.source}: {len(ids)} of {len(found.ids)} images are {side} (voc.split, seed {self.draw.seed})"
        return replace(found, ids=ids, notes=(*found.notes, note))

    def _found(self) -> "Found":
        listed = self._list()
        if listed is None and self.image_set != ALL:
            whole = self._folder_of_its_own()
            if whole is None:
                raise Refusal(self._no_list())
            return whole
        annotations = _folder(self.root, self.annotations, _ANNOTATIONS, "annotations", has=(".xml",))
        images = _folder(self.root, self.images, _IMAGES, "images", has=SUFFIXES, beside=annotations)
        stems = _stems(annotations)
        if listed is None:
            return Found(annotations, None, tuple(stems), annotations, images)
        ids, notes = _read_list(listed, set(stems))
        return Found(listed, listed, ids, annotations, images, notes)

    def _list(self) -> Path | None:
        """The file that lists the image set, if there is one."""
        name = self.image_set
        own = [Path(name)] if Path(name).suffix or len(Path(name).parts) > 1 else []
        places = (self.root / "ImageSets" / "Main", self.root / "ImageSets", self.root)
        tried = [*own, *(place / text for place in places for text in (f"{name}.txt", name))]
        return next((path for path in tried if path.is_file()), None)

    def _folder_of_its_own(self) -> "Found | None":
        """The set as train/ with all its files, or as annotations/train/ and images/train/, or one of these."""
        whole = self.root / self.image_set
        if whole.is_dir() and (_stems(whole) or _of_names(whole, _ANNOTATIONS)):
            return VocSet(whole, ALL, self.annotations, self.images).find()
        annotations = self.root / self.annotations if self.annotations else _of_names(self.root, _ANNOTATIONS)
        images = self.root / self.images if self.images else _of_names(self.root, _IMAGES)
        boxes, pictures = (
            f / self.image_set if f and (f / self.image_set).is_dir() else None for f in (annotations, images)
        )
        if boxes is not None:
            return Found(boxes, None, tuple(_stems(boxes)), boxes, pictures or images or boxes)
        if pictures is not None:  # annotations of all sets are together
            return Found(pictures, None, tuple(_stems(pictures, SUFFIXES)), annotations or self.root, pictures)
        return None

    def _no_list(self) -> str:
        path = list_file(self.root, self.image_set)
        lists = sorted(p.stem for p in path.parent.glob("*.txt"))[:8] if path.parent.is_dir() else []
        folders = sorted(p.name for p in self.root.iterdir() if p.is_dir())[:8] if self.root.is_dir() else []
        there = f"lists there: {', '.join(lists) or 'none'}; folders in {self.root}: {', '.join(folders) or 'none'}"
        ways = "give a list's name or path, the name of a folder with its own XML files, `all`, or draw by voc.split"
        return f"{path}: cannot be read: No such file or directory ({there}); {_LAYOUT}; {ways}"


@dataclass(frozen=True)
class Found:
    """`source`: what a message calls the set; `listed`: the file that lists it; `ids`: names without suffix."""

    source: Path
    listed: Path | None
    ids: tuple[str, ...]
    annotations: Path
    images: Path
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids:
            what = "the list is empty" if self.listed else f"there is no XML file; {_LAYOUT}"
            raise Refusal(f"{self.source}: {what}")

    def annotation(self, image_id: str) -> Path:
        """Where the boxes of an image are."""
        path = self.annotations / f"{image_id}.xml"
        capitals = self.annotations / f"{image_id}.XML"
        return capitals if not path.exists() and capitals.exists() else path

    def needs(self) -> tuple[Path, ...]:
        """The list, if there is one, and the annotations."""
        return (*([self.listed] if self.listed else []), *(self.annotation(i) for i in self.ids))

    def image_files(self) -> dict[str, Path]:
        """Image files by their names without suffix: .jpg before others, other formats than those of images last."""
        files: dict[str, Path] = {}
        order = {suffix: k for k, suffix in enumerate(SUFFIXES)}
        for path in sorted(self.images.iterdir(), key=lambda p: (order.get(p.suffix.lower(), len(order)), p.name)):
            if path.suffix.lower() not in _NO_IMAGES:
                files.setdefault(path.stem, path)
        return files


def list_file(root: Path, image_set: str) -> Path:
    """Where the ids of an image set are, in Pascal VOC's layout."""
    path = Path(image_set)
    return path if path.suffix or len(path.parts) > 1 else root / "ImageSets" / "Main" / f"{image_set}.txt"


def _read_list(path: Path, stems: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids in a list, one a line, and notes; a line may have an image's suffix or folder, and a flag behind the name."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    flagged, ids = 0, []
    for line in filter(None, lines):
        name, *flag = line.rsplit(maxsplit=1)
        has_flag = flag != [] and flag[0] in _FLAGS and line not in stems
        flagged += has_flag
        ids.append(_id(name if has_flag else line, stems))
    note = f"{path}: {flagged} names have a flag (1, 0 or -1) behind them, which is not read: all of them are used"
    return tuple(ids), (note,) if flagged else ()


def _id(name: str, stems: set[str]) -> str:
    """The id that a line means: the name as it is, or without the suffix of an image and the folder."""
    path = Path(name.replace("\\", "/"))
    bare = path.stem if path.suffix.lower() in (*SUFFIXES, ".xml") else path.name
    without_suffix = str(path.with_name(bare)) if path.name else name
    return next((text for text in (name, without_suffix, bare) if text in stems), without_suffix)


def _folder(
    root: Path,
    given: Path | None,
    names: tuple[str, ...],
    what: str,
    *,
    has: tuple[str, ...],
    beside: Path | None = None,
) -> Path:
    """The folder of the annotations or images: the one given, one of a usual name, or `beside` or the root itself."""
    if given is not None:
        if not (root / given).is_dir():
            raise Refusal(f"{root / given}: no such folder; voc.{what} names the one with the {what} in {root}")
        return root / given
    usual = _of_names(root, names)
    if usual is not None:
        return usual
    for place in (root, *([beside] if beside else [])):
        if place.is_dir() and any(path.suffix.lower() in has for path in place.iterdir()):
            return place
    raise Refusal(f"{root}: no such folder, or no {what} there; {_LAYOUT}")


def _of_names(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder in `root` of one of these names, in any case; the first of them wins."""
    if not root.is_dir():
        return None
    there = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _stems(folder: Path, suffixes: tuple[str, ...] = (".xml",)) -> list[str]:
    return sorted({path.stem for path in folder.iterdir() if path.suffix.lower() in suffixes})
