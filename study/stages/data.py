"""The data sets of a study: what of them enters a stage's hash, and where they are on this machine."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.data import Splits, open_splits
from study.config.sections import Machine
from training.files import canonical

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from detect.data import DetectionDataset, VocDataset


@lru_cache(maxsize=4)
def _side(text: str, split: str) -> "DetectionDataset":
    """The files of one split alone; kept, as each side is matched with the other."""
    from detect.data import CocoDataset, JoinedDataset, WholeImages

    data = json.loads(text)
    dataset: DetectionDataset
    if "coco" in data:
        part = data["coco"][split]["paths"]
        dataset = CocoDataset(Path(part["annotations"]), Path(part["images"]))
    else:
        voc = data["voc"]
        places = [part["paths"] for part in (voc[split], *(voc.get("also", ()) if split == "train" else ()))]
        parts = [_voc_dataset(paths, voc) for paths in places]
        dataset = JoinedDataset(tuple(parts)) if len(parts) > 1 else parts[0]
    return WholeImages(dataset) if data.get("skip_broken") else dataset


def _voc_dataset(paths: Mapping[str, Any], voc: Mapping[str, Any]) -> "VocDataset":
    from detect.data import VocDataset
    from detect.data.voc_layout import Draw

    folders = {name: Path(paths[name]) for name in ("annotations", "images") if name in paths}
    return VocDataset(
        Path(paths["root"]),
        paths["image_set"],
        tuple(voc["classes"]),
        voc["year"],
        **folders,
        draw=Draw(**paths["draw"]) if "draw" in paths else None,
        declared=voc.get("paths", {}).get("declared", True),  # runs that are older do not say
    )


def open_classification(data: Mapping[str, Any], machine: Machine) -> Splits:
    """All splits of a data set given by name, options and seed; kept for the next stage."""
    return _load(canonical(dict(data)), machine.data_root, machine.workers)


@lru_cache(maxsize=2)
def _load(text: str, root: Path, workers: int) -> Splits:
    data = json.loads(text)
    return open_splits(data["name"], root=root, seed=data["seed"], workers=workers, **data["options"])
