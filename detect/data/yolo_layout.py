"""Where the files of a data set in YOLO's format are, as Ultralytics, Roboflow and LabelImg leave them.

A YAML has `path`, the root, `train`, `val`, `test`, each a folder, a list of files (.txt) or several of these, and
`names`, a list or a mapping from 0 on (https://docs.ultralytics.com/datasets/detect/). The labels of images/a.jpg are
in labels/a.txt, or beside the image. Roboflow's YAML says ../train/images where train/images beside it is meant.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from detect.data.picture import SUFFIXES
from pruning.errors import Refusal
from training.strict_yaml import parse_yaml_file

SPLITS = ("train", "val", "test")
_YAMLS = (".yaml", ".yml")
_LIST = ".txt"
_IMAGES, _LABELS = "images", "labels"


@dataclass(frozen=True)
class YoloSet:
    """The images of a split: folders with all below them, lists of files, or files, in `root`."""

    root: Path
    places: tuple[str, ...]

    def images(self) -> tuple[Path, ...]:
        """Image files in the order of the places, each once; ValueError if a place is not there or has none."""
        return tuple(dict.fromkeys(file for place in self.places for file in self._of(place)))

    def needs(self) -> tuple[Path, ...]:
        """The lists, and where the labels of each image are or would be."""
        lists = [path for path in map(self._find, self.places) if path.is_file() and path.suffix == _LIST]
        return (*lists, *map(label_file, self.images()))

    def id_of(self, image: Path) -> str:
        """The image's path in the root."""
        return image.relative_to(self.root).as_posix() if image.is_relative_to(self.root) else image.as_posix()

    def _of(self, place: str) -> Iterator[Path]:
        path = self._find(place)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        elif path.suffix == _LIST:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found = [self._listed(path, line.strip()) for line in lines if line.strip()]
        else:
            found = [path]
        if not found:
            raise Refusal(f"{path}: there are no images ({', '.join(SUFFIXES)})")
        yield from found

    def _find(self, place: str) -> Path:
        tried = [self.root / place, self.root / place.removeprefix("../")]
        found = next((path for path in tried if path.exists()), None)
        if found is None:
            raise Refusal(f"{tried[0]}: there is no such folder or list of images; yolo.root is where to look for it")
        return found

    def _listed(self, file: Path, line: str) -> Path:
        tried = [self.root / line, file.parent / line]
        return next((path for path in tried if path.exists()), tried[0])


def label_file(image: Path) -> Path:
    """Where the labels of an image are: in labels/ where it is in images/, if there is such a folder; or beside it."""
    parts = image.parts
    places = [k for k, part in enumerate(parts[:-1]) if part == _IMAGES]
    if places:
        moved = Path(*parts[: places[-1]], _LABELS, *parts[places[-1] + 1 :]).with_suffix(_LIST)
        if moved.parent.is_dir():
            return moved
    return image.with_suffix(_LIST)


@dataclass(frozen=True)
class Described:
    """What a YAML says; `names`: of the classes by their numbers."""

    root: Path
    places: Mapping[str, tuple[str, ...]]
    names: Mapping[int, str]


def find_yaml(root: Path) -> Path:
    """The only YAML in a folder; ValueError if there is none or several."""
    found = sorted(path for path in root.iterdir() if path.suffix in _YAMLS) if root.is_dir() else []
    if len(found) != 1:
        what = ", ".join(path.name for path in found) or "no YAML"
        raise Refusal(f"yolo.root {root}: {what} there; name one by yolo.yaml, or give train, test and names instead")
    return found[0]


def read_description(path: Path, root: Path | None = None) -> Described:
    """The YAML of a data set; `root` is taken instead of the one that it says. ValueError if it is none."""
    said = parse_yaml_file(path)
    if not isinstance(said, dict):
        raise Refusal(f"{path}: the YAML of a data set is a mapping with train, val and names")
    if "kpt_shape" in said:
        raise Refusal(f"{path}: kpt_shape: its labels are of keypoints; boxes are wanted")
    names = read_names(said.get("names"), f"{path}: names")
    count = said.get("nc", len(names))
    if count != len(names):
        raise Refusal(f"{path}: nc is {count!r}, but names lists {len(names)} classes")
    places = {split: _places(said[split], f"{path}: {split}") for split in SPLITS if said.get(split)}
    return Described(_root(path, said.get("path")) if root is None else root, places, names)


def read_names(value: object, source: str) -> dict[int, str]:
    """Names by number of a list, or of a mapping from numbers; ValueError if it is neither or a name repeats."""
    listed = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if not isinstance(listed, dict) or not listed:
        raise Refusal(f"{source}: {value!r}; the classes are a list [a, b] or a mapping {{0: a, 1: b}}")
    names = {}
    for key, name in sorted(listed.items(), key=lambda pair: str(pair[0])):
        if isinstance(key, bool) or not str(key).isdecimal():
            raise Refusal(f"{source}: {key!r} is no number of a class")
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise Refusal(f"{source}: {name!r} is no name of a class; put it in quotes")
        names[int(key)] = str(name)
    if len(set(names.values())) != len(names):
        raise Refusal(f"{source}: {list(names.values())} repeat themselves")
    return dict(sorted(names.items()))


def _places(value: object, source: str) -> tuple[str, ...]:
    places = [value] if isinstance(value, str) else value
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise Refusal(f"{source}: {value!r} is no folder, no list of files (.txt) and no list of these")
    return tuple(places)


def _root(path: Path, said: object) -> Path:
    """The folder of the YAML, or what its `path` says: from there, from the working directory, or its own name."""
    if said in (None, "", "."):
        return path.parent
    tried = [path.parent / str(said), Path(str(said))]
    found = next((folder for folder in tried if folder.is_dir()), None)
    if found is None and path.resolve().parent.name == Path(str(said)).name:
        found = path.parent
    if found is None:
        raise Refusal(f"{path}: path: there is no folder {tried[0]} nor {tried[1]}; say by yolo.root where it is")
    return found
