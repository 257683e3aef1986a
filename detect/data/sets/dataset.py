"""What a detection data set is to all that opens, names and checks one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

from detect.data.records import DetectionDataset
from training.options import Section

OptionsT = TypeVar("OptionsT", bound=Section)
IdentityT = TypeVar("IdentityT", bound=Mapping[str, object])


FilesT = TypeVar("FilesT")


class Parts(TypedDict, Generic[FilesT]):
    """What a data set of files says of each split in its identity."""

    train: FilesT
    test: FilesT
    val: NotRequired[FilesT]


def files_of(identity: Parts[FilesT], split: str) -> FilesT:
    """What it says of one split; KeyError for one that it does not have."""
    if split == "train":
        return identity["train"]
    if split == "test":
        return identity["test"]
    if split == "val":
        return identity["val"]
    raise KeyError(split)


@dataclass(frozen=True)
class DataSet(Generic[OptionsT, IdentityT]):
    """An entry of DATASETS.

    `options`: its section below `detector.dataset`, whose meaning for a user is `meaning`. `title(options)`: what a
    report calls it. `identity(options)`: JSON of what defines its images and boxes, ValueError where its files are not
    there; files are {"sha256": ..., "paths": ...}, as a path is where a file is, not what it is.
    `open(identity, split, root)`: the `train` or `test` split, and `val` where there is one; what is generated, and
    what is kept of files that take long to read, is written below `root`; None: nothing is. `files(paths)`: the files
    of which `sha256` is the sum; None where all follows from the options, which are then the identity.
    `has_val(options)`: are there validation images beside those for training and testing? ValueError as by `identity`.
    `outlines`: can its files hold those of objects, of which masks are learned?
    """

    options: type[OptionsT]
    meaning: str
    title: Callable[[OptionsT], str]
    identity: Callable[[OptionsT], IdentityT]
    open: Callable[[IdentityT, str, Path | None], DetectionDataset]
    files: Callable[[Any], tuple[Path, ...]] | None = None
    has_val: Callable[[OptionsT], bool] = lambda options: False
    outlines: bool = False

    @property
    def generated(self) -> bool:
        """Do its images follow from its options?"""
        return self.files is None
