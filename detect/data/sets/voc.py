"""Pascal VOC, or a data set of the user's own in its layout."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from pydantic import Field, field_validator, model_validator

from detect.data.records import DetectionDataset
from detect.data.sets.dataset import DataSet, Parts, files_of
from detect.data.voc import JoinedDataset, VocDataset, voc_classes
from detect.data.voc_layout import Draw, VocSet
from pruning.errors import Refusal
from training.files import files_digest
from training.options import Section

VocSets = tuple[VocSet, ...]


class VocPart(Section):
    """Training images of Pascal VOC, or of a data set in its layout.

    Without `root` it is Pascal VOC itself, where Detectron2 has it: VOC<year> in $DETECTRON2_DATASETS, or in datasets/.
    `train`: a name in ImageSets/Main, the path of a list of names, a folder with XML files and images of its own, or
    `all`, which is every XML file.
    """

    root: Path | None = None
    """Folder of the data set, relative to the working directory; null: where Detectron2 has Pascal VOC."""
    annotations: Path | None = None
    """Folder of the XML files in `root`; null: Annotations/ or the like, or `root` itself."""
    images: Path | None = None
    """Folder of the images in `root`; null: JPEGImages/, images/ or beside the XML files."""
    train: str = "trainval"
    """Training images: a name in ImageSets/Main, a file with a list, a folder, or `all` XML files."""
    year: Literal[2007, 2012] = 2012
    """Year of Pascal VOC, which also says whose mAP comes first: at 11 points (2007), or continuous."""

    def folder(self) -> Path:
        """Where the data set is."""
        if self.root is not None:
            return self.root
        return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / f"VOC{self.year}"


class VocSplit(Section):
    """A random share of the images is the test split, always the same one for a seed; the rest is trained on."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the images that becomes the test split."""
    seed: int = 0
    """Seed of the draw; not the seed of a run, so all runs have the same split."""
    of: str = "all"
    """Images to draw from, named as by `train`."""


class VocData(VocPart):
    """Training and test images; `also` joins those of other folders to the training images.

    The usual "07+12" is {year: 2007, also: [{year: 2012}]}. Where there are no lists: {root: ..., split: {test: 0.2}}
    draws both from all images.
    """

    val: str | None = None
    """Validation images, named as by `train`, on which nothing is trained; null: none, or a share (`validation`)."""
    test: str = "test"
    """Test images, named as by `train`."""
    split: VocSplit | None = None
    """Draw training and test images at random from all, instead of `train` and `test`."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the classes to detect; null: those of the annotations, in alphabetical order."""
    also: tuple[VocPart, ...] = ()
    """Further folders whose images join the training images, such as {year: 2012}."""

    @model_validator(mode="after")
    def _drawn(self) -> "VocData":
        usual = (("train", "trainval"), ("val", None), ("test", "test"))
        named = [key for key, value in usual if getattr(self, key) != value]
        if self.split is not None and named:
            given = " and ".join(f"{key}: {getattr(self, key)}" for key in named)
            raise Refusal(f"split draws training and test images; leave out {given} (split.of names what to draw from)")
        return self

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise Refusal(f"classes {list(value)} repeat themselves")
        return value


class _Draw(TypedDict):
    test: float
    seed: int
    side: str


class _Paths(TypedDict):
    """What VocDataset is made of."""

    root: str
    image_set: str
    annotations: NotRequired[str]
    images: NotRequired[str]
    draw: NotRequired[_Draw]


class _Files(TypedDict):
    """Which of the files are drawn shows in the digest."""

    sha256: str
    paths: _Paths


class _Declared(TypedDict):
    declared: bool


class _Identity(Parts[_Files]):
    """`also`, and whether the classes were declared, are of newer runs."""

    classes: list[str]
    year: int
    also: NotRequired[list[_Files]]
    paths: NotRequired[_Declared]


def _identity(voc: VocData) -> _Identity:
    for key, part in (("voc", voc), *((f"voc.also.{k}", part) for k, part in enumerate(voc.also))):
        _check(part, f"detector.dataset.{key}")
    test = VocSet(voc.folder(), voc.test, voc.annotations, voc.images)
    train = replace(test, image_set=voc.train)
    if voc.split is not None:
        share, seed, of = voc.split.test, voc.split.seed, voc.split.of
        train, test = (replace(test, image_set=of, draw=Draw(share, seed, side)) for side in ("train", "test"))
    val = None if voc.val is None else replace(test, image_set=voc.val)
    also = [VocSet(part.folder(), part.train, part.annotations, part.images) for part in voc.also]
    places = tuple(place for place in (train, val, test, *also) if place is not None)
    everything = tuple(file for place in places for file in place.find().needs())
    classes = voc.classes or _once_a_content(files_digest(everything), voc_classes, places)
    identity: _Identity = {
        "classes": list(classes),
        "year": voc.year,
        "train": _files(train),
        "test": _files(test),
        "paths": {"declared": voc.classes is not None},
    }
    if val is not None:  # results without it keep their hashes, as those without `also`
        identity["val"] = _files(val)
    if also:
        identity["also"] = [_files(place) for place in also]
    return identity


def _files(files: VocSet) -> _Files:
    paths: _Paths = {"root": str(files.root), "image_set": files.image_set}
    if files.annotations is not None:
        paths["annotations"] = str(files.annotations)
    if files.images is not None:
        paths["images"] = str(files.images)
    if files.draw is not None:
        paths["draw"] = {"test": files.draw.test, "seed": files.draw.seed, "side": files.draw.side}
    return {"sha256": files_digest(files.find().needs()), "paths": paths}


@lru_cache(maxsize=16)
def _once_a_content(digest: str, function: Callable[[VocSets], tuple[str, ...]], places: VocSets) -> tuple[str, ...]:
    """`function` of files whose contents `digest` stands for."""
    return function(places)


def _check(part: VocPart, key: str) -> None:
    if not part.folder().is_dir():
        where = (
            "" if part.root else f"; without `root`, VOC{part.year} is looked for in $DETECTRON2_DATASETS or datasets/"
        )
        raise Refusal(
            f"{key}.root: {part.folder()} is not there; a data set in VOC's layout is a folder with Annotations/,"
            f" JPEGImages/ and ImageSets/Main/, which nothing here downloads{where}"
        )


def _open(identity: _Identity, split: str, root: Path | None) -> DetectionDataset:
    also = identity.get("also", ()) if split == "train" else ()
    parts = tuple(_dataset(part["paths"], identity) for part in (files_of(identity, split), *also))
    return JoinedDataset(parts) if len(parts) > 1 else parts[0]


def _dataset(paths: _Paths, voc: _Identity) -> VocDataset:
    declared = voc["paths"]["declared"] if "paths" in voc else True  # runs that are older do not say
    files = _set(paths)
    return VocDataset(
        files.root,
        files.image_set,
        tuple(voc["classes"]),
        voc["year"],
        files.annotations,
        files.images,
        files.draw,
        declared,
    )


def _set(paths: _Paths) -> VocSet:
    """The image set that a stage's settings name."""
    annotations = Path(paths["annotations"]) if "annotations" in paths else None
    images = Path(paths["images"]) if "images" in paths else None
    draw = Draw(**paths["draw"]) if "draw" in paths else None
    return VocSet(Path(paths["root"]), paths["image_set"], annotations, images, draw)


VOC = DataSet(
    options=VocData,
    meaning="Pascal VOC, or a data set of your own in its layout.",
    title=lambda voc: f"{voc.folder()}, {voc.test}",
    identity=_identity,
    has_val=lambda voc: voc.val is not None,
    open=_open,
    files=lambda paths: _set(paths).find().needs(),
)
