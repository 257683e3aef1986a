"""A data set of the user's own in YOLO's format: text files of labels, and a YAML that names classes and folders."""

from pathlib import Path
from typing import Annotated, TypedDict

from pydantic import Field, model_validator

from detect.data.sets.dataset import DataSet, Parts, files_of
from detect.data.yolo import YoloDataset
from detect.data.yolo_layout import Described, YoloSet, find_yaml, read_description, read_names
from pruning.errors import Refusal
from training.files import files_digest
from training.options import Section


class YoloData(Section):
    """A YAML as Ultralytics and Roboflow write it, or what it would say: {root, train, test, names}."""

    yaml: Path | None = None
    """YAML of the data set, with train, val, test and names; null: the only one in `root`."""
    root: Path | None = None
    """Folder of the data set, relative to the working directory; null: where the YAML says, or its own."""
    train: str | None = None
    """Training images, a folder or a list of files (.txt) in `root`; null: the YAML's `train`."""
    val: str | None = None
    """Validation images, a folder or a list in `root`; null: the YAML's `val`, unless that is for testing."""
    test: str | None = None
    """Test images, a folder or a list in `root`; null: the YAML's `test`, or its `val` if it has none."""
    names: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the classes from number 0 on, where there is no YAML; null: the YAML's."""

    @model_validator(mode="after")
    def _told(self) -> "YoloData":
        if self.yaml is None and self.root is None:
            raise Refusal("give `yaml`, the data set's YAML, or `root`, its folder")
        if self.names is not None and self.yaml is not None:
            raise Refusal("names: the YAML names the classes; leave one of the two out")
        if self.names is not None and None in (self.train, self.test):
            raise Refusal("names: without a YAML, give train and test too, such as images/train and images/val")
        return self

    def described(self) -> Described:
        """What the YAML says, or the options in its place."""
        if self.names is not None:
            assert self.root is not None
            return Described(self.root, {}, read_names(self.names, "yolo.names"))
        return read_description(self.yaml or find_yaml(self.root or Path()), self.root)


class _Paths(TypedDict):
    root: str
    places: list[str]


class _Files(TypedDict):
    sha256: str
    paths: _Paths


class _Identity(Parts[_Files]):
    names: dict[str, str]


def _identity(yolo: YoloData) -> _Identity:
    found = yolo.described()
    places = _places(yolo, found)
    identity: _Identity = {
        "names": {str(number): name for number, name in found.names.items()},
        "train": _files(found.root, places["train"], "train"),
        "test": _files(found.root, places["test"], "test"),
    }
    if "val" in places:
        identity["val"] = _files(found.root, places["val"], "val")
    return identity


def _files(root: Path, places: tuple[str, ...] | None, split: str) -> _Files:
    if not places:
        raise Refusal(f"yolo.{split}: the YAML has no {split} images; name their folder")
    return {"sha256": files_digest(YoloSet(root, places).needs()), "paths": {"root": str(root), "places": list(places)}}


def _places(yolo: YoloData, found: Described) -> dict[str, tuple[str, ...] | None]:
    """Where the images of each split are; `val` only where there is one beside the test images."""
    given = {split: (place,) for split in ("train", "val", "test") if (place := getattr(yolo, split)) is not None}
    val = found.places.get("val")
    places = {"train": found.places.get("train"), "test": found.places.get("test") or val, **given}
    if "val" not in given and val is not None and val != places["test"]:
        places["val"] = val
    return places


def _set(paths: _Paths) -> YoloSet:
    return YoloSet(Path(paths["root"]), tuple(paths["places"]))


def _open(identity: _Identity, split: str, root: Path | None) -> YoloDataset:
    files = _set(files_of(identity, split)["paths"])
    return YoloDataset(files.root, files.places, {int(number): name for number, name in identity["names"].items()})


YOLO = DataSet(
    options=YoloData,
    meaning="A data set of your own in YOLO's format: text files of labels and a YAML.",
    title=lambda yolo: str(yolo.yaml or yolo.root),
    identity=_identity,
    has_val=lambda yolo: "val" in _places(yolo, yolo.described()),
    open=_open,
    files=lambda paths: _set(paths).needs(),
)
