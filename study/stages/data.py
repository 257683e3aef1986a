"""The data sets of a study: what of them enters a stage's hash, and where they are on this machine."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from classify.data import DataInfo, Splits, known_info, open_splits
from detect.data.open import _digest, _voc_needs
from detect.settings import CocoFiles, VocPart
from study.config.sections import Machine
from training.files import canonical


def _check_coco(part: CocoFiles, key: str) -> None:
    for name, place, there in (
        ("annotations", part.annotations, part.annotations.is_file()),
        ("images", part.images, part.images.is_dir()),
    ):
        if not there:
            raise ValueError(
                f"{key}.{name}: {place} is not there; a split in COCO's format is a JSON file and the folder of its"
                " images, which nothing here downloads"
            )


def _check_voc(part: VocPart, key: str) -> None:
    if not part.folder().is_dir():
        where = (
            "" if part.root else f"; without `root`, VOC{part.year} is looked for in $DETECTRON2_DATASETS or datasets/"
        )
        raise ValueError(
            f"{key}.root: {part.folder()} is not there; a data set in VOC's layout is a folder with Annotations/,"
            f" JPEGImages/ and ImageSets/Main/, which nothing here downloads{where}"
        )


def annotations_now(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data`, as `detection_data` gives it, with the sums that its annotation files have now."""

    def again(value: Any) -> Any:
        if isinstance(value, list):
            return [again(part) for part in value]
        if not isinstance(value, Mapping):
            return value
        if "sha256" not in value:
            return {key: again(part) for key, part in value.items()}
        paths = value["paths"]
        coco = "annotations" in paths
        files = (Path(paths["annotations"]),) if coco else _voc_needs(Path(paths["root"]), paths["image_set"])
        return {**value, "sha256": _digest(files)}

    found: dict[str, Any] = again(data)
    return found


def with_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """A classification data set's settings with the options that only say where it is."""
    places = {key: value for key, value in data.get("paths", {}).items() if key != "why"}
    return {**data, "options": {**data["options"], **places}}


def open_classification(data: Mapping[str, Any], machine: Machine) -> Splits:
    """All splits of a data set as `study.contents` gives it; kept for the next stage. ValueError if it is not there."""
    if data.get("content", "") is None:
        raise ValueError(data["paths"]["why"])
    return _load(canonical(with_paths(data)), machine.data_root, machine.workers)


def classification_info(data: Mapping[str, Any], machine: Machine) -> DataInfo:
    """The facts of a data set; its files are opened only where nothing else can tell."""
    known = known_info(data["name"], data["options"])
    if known is not None:
        return known
    train = open_classification(data, machine).train
    return DataInfo(len(train.classes), len(train), train.shape)


@lru_cache(maxsize=2)
def _load(text: str, root: Path, workers: int) -> Splits:
    data = json.loads(text)
    return open_splits(data["name"], root=root, seed=data["seed"], workers=workers, **data["options"])
