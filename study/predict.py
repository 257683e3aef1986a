"""What a finished or an exported detector finds on pictures: what `prune-transfer predict` calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from classify.export import read_exported
from detect.build import Config
from detect.data import WholeImages
from detect.data.looking import Pictures
from detect.data.records import Detection, Split
from detect.evaluate import find_objects
from detect.exported import ExportedDetector, reading
from detect.pictures import draw_detections
from pruning.errors import Refusal
from study.config.sections import Machine
from study.stages.detector import finished_detector, load_detector
from study.stages.stage import device_of
from training.files import check_output_folder, read_json, write_json

FOUND, DRAWN = "detections.coco.json", "pictures"


@dataclass(frozen=True)
class _Subject:
    """What looks; `cfg` (Detectron2's) says how pictures are read for it."""

    source: str
    detector: nn.Module
    cfg: Config
    classes: tuple[str, ...]


def predict(
    source: Path, places: Sequence[Path], *, out: Path, min_score: float, force: bool = False
) -> dict[str, object]:
    """Find objects with the detector of `source`, draw them and write them as COCO JSON; returns counts and notes.

    `source`: the run directory of a detector or of its evaluation, or an exported file with its JSON beside it.
    `places`: pictures and folders of them. Pictures are read as in an evaluation: upright, in RGB of 8 bits, one at a
    time. `out` gets detections.coco.json, whose categories are numbered from 1, and pictures/. `force`: files there are
    replaced.
    """
    if not 0 <= min_score <= 1:
        raise Refusal(f"--score {min_score:g}: a score is a number from 0 to 1")
    if not source.exists():
        raise Refusal(f"{source}: there is no such file; name an exported detector, or a run directory")
    check_output_folder(out, force=force)
    subject = _of_file(source) if source.is_file() else _of_run(source)
    dataset = WholeImages(Pictures(tuple(places), subject.classes))
    split = dataset.split
    found = find_objects(subject.detector, subject.cfg, dataset=dataset)
    found = [one for one in found if one["score"] >= min_score]
    about = {"source": subject.source, "least_score": min_score, "notes": list(split.notes)}
    draw_detections(split, found, out_dir=out / DRAWN)
    write_json(out / FOUND, {"info": about, **_in_coco(split, found)})
    return {"pictures": len(split.images), "detections": len(found), **about, "out": str(out)}


def _of_run(run: Path) -> _Subject:
    stage, classes = finished_detector(run)
    _, detector, cfg = load_detector(stage, run.resolve().parents[1], len(classes), device=device_of(Machine()))
    return _Subject(stage.id, detector, cfg, classes)


def _of_file(path: Path) -> _Subject:
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        raise Refusal(f"{path}: {beside.name}, which `prune-transfer export` writes beside it, is not there")
    about = read_json(beside)
    if about.get("task") != "detector":
        raise Refusal(f"{path}: {beside.name} says that it is no detector but a {about.get('task')}")
    if "shorter_side" not in about["input"]:
        raise Refusal(f"{path}: {beside.name} does not say how pictures are scaled, as older ones; export it again")
    classes = about["classes"] or [f"class {k}" for k in range(1, about["num_classes"] + 1)]
    cfg = reading(**{key: about["input"][key] for key in ("shorter_side", "longest_side")})
    return _Subject(str(path), ExportedDetector(read_exported(path, about["format"])), cfg, tuple(classes))


def _in_coco(split: Split, found: Sequence[Detection]) -> dict[str, object]:
    """Images, categories and annotations, each with its score."""
    number = {image.id: k for k, image in enumerate(split.images, 1)}
    images = [
        {"id": number[image.id], "file_name": image.id, "width": image.width, "height": image.height}
        for image in split.images
    ]
    categories = [{"id": k, "name": name} for k, name in zip(split.category_ids, split.classes, strict=True)]
    annotations = [
        {
            "id": k,
            "image_id": number[one["image_id"]],
            "category_id": one["category_id"],
            "bbox": one["bbox"],
            "area": one["bbox"][2] * one["bbox"][3],
            "iscrowd": 0,
            **({"segmentation": one["segmentation"]} if "segmentation" in one else {}),
            "score": one["score"],
        }
        for k, one in enumerate(found, 1)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}
