"""A data set of the user's own in COCO's format."""

from pathlib import Path
from typing import TypedDict

from detect.data.coco import CocoDataset
from detect.data.sets.dataset import DataSet, Parts, files_of
from pruning.errors import Refusal
from training.files import files_digest
from training.options import Section


class CocoFiles(Section):
    """An annotation file in COCO's format and the folder of its images; relative to the working directory."""

    annotations: Path
    """JSON file of boxes in COCO's format, relative to the working directory."""
    images: Path | None = None
    """Folder of its images, relative to the working directory; null: that of the JSON file, as Roboflow's."""

    def folder(self) -> Path:
        """Where the images are."""
        return self.annotations.parent if self.images is None else self.images


class CocoData(Section):
    """A detection data set of the user's own."""

    train: CocoFiles
    """Training images."""
    val: CocoFiles | None = None
    """Validation images, nothing is trained on them; null: none, or a share of training's (`validation`)."""
    test: CocoFiles
    """Test images."""


class _Paths(TypedDict):
    annotations: str
    images: str


class _Files(TypedDict):
    sha256: str
    paths: _Paths


def _identity(data: CocoData) -> Parts[_Files]:
    identity: Parts[_Files] = {"train": _files(data.train, "train"), "test": _files(data.test, "test")}
    if data.val is not None:
        identity["val"] = _files(data.val, "val")
    return identity


def _files(part: CocoFiles, split: str) -> _Files:
    _check(part, f"detector.dataset.coco.{split}")
    paths: _Paths = {"annotations": str(part.annotations), "images": str(part.folder())}
    return {"sha256": files_digest((part.annotations,)), "paths": paths}


def _check(part: CocoFiles, key: str) -> None:
    for name, place, there in (
        ("annotations", part.annotations, part.annotations.is_file()),
        ("images", part.folder(), part.folder().is_dir()),
    ):
        if not there:
            raise Refusal(
                f"{key}.{name}: {place} is not there; a split in COCO's format is a JSON file and the folder of its"
                " images, which nothing here downloads"
            )


def _open(identity: Parts[_Files], split: str, root: Path | None) -> CocoDataset:
    paths = files_of(identity, split)["paths"]
    return CocoDataset(Path(paths["annotations"]), Path(paths["images"]))


COCO = DataSet(
    options=CocoData,
    meaning="A data set of your own in COCO's format.",
    title=lambda data: str(data.test.annotations),
    identity=_identity,
    has_val=lambda data: data.val is not None,
    open=_open,
    files=lambda paths: (Path(paths["annotations"]),),
    outlines=True,
)
