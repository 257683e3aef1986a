"""What a detection data set is to all that opens, names and checks one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect.data.records import DetectionDataset
from training.options import Section


@dataclass(frozen=True)
class DataSet:
    """An entry of DATASETS.

    `options`: its section below `detector.dataset`, whose meaning for a user is `meaning`. `title(options)`: what a
    report calls it. `identity(options)`: JSON of what defines its images and boxes, ValueError where its files are not
    there; files are {"sha256": ..., "paths": ...}, as a path is where a file is, not what it is.
    `open(identity, split, root)`: the `train` or `test` split, and `val` where there is one; what is generated is
    written below `root`. `files(paths)`: the files of which `sha256` is the sum; None where all follows from the
    options, which are then the identity. `has_val(options)`: are there validation images beside those for training and
    testing? ValueError as by `identity`.
    """

    options: type[Section]
    meaning: str
    title: Callable[[Any], str]
    identity: Callable[[Any], dict[str, Any]]
    open: Callable[[Mapping[str, Any], str, Path], DetectionDataset]
    files: Callable[[Mapping[str, Any]], tuple[Path, ...]] | None = None
    has_val: Callable[[Any], bool] = lambda options: False

    @property
    def generated(self) -> bool:
        """Do its images follow from its options?"""
        return self.files is None
