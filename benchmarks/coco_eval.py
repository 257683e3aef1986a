"""COCO's box metrics by hotcoco, which is what we use, and by faster-coco-eval where it is installed, against
pycocotools: seconds, memory, and how far from pycocotools' the twelve numbers and all precisions are.

Each is a process of its own that has read the annotations and is given the same detections. "all of it" is what an
evaluation does once a detector's objects are found: metrics, kinds of errors, matches and files. scale.py has the same
with as many detections as a detector has on COCO.
Run: python benchmarks/coco_eval.py [--images 2000]
"""

import argparse
import contextlib
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

CLASSES, BOXES, FOUND, SIZE = 10, 8, 24, 640  # boxes and detections of an image, and its pixels
REFERENCE, OTHER, OURS, WHOLE = "pycocotools", "faster-coco-eval", "hotcoco", "all of it"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "annotations.json"
        write_annotations(annotations, images)
        compare(annotations, FOUND)


def compare(annotations: Path, found: int) -> None:
    """Print a row for each evaluator of `found` detections for each image of a COCO JSON, which are left beside it."""
    truth = json.loads(annotations.read_text())
    file = annotations.with_name("detections.json")
    file.write_text(json.dumps(list(made_detections(truth, found))))
    images = len(truth["images"])
    print(f"{images:,} images, {found * images:,} detections, {len(truth['categories'])} classes")
    expected: dict[str, np.ndarray] = {}
    for name in (REFERENCE, *([OTHER] if find_spec("faster_coco_eval") else []), OURS, WHOLE):
        with get_context("spawn").Pool(1) as process:
            clock, cpu, memory, numbers = process.apply(measured, (name, annotations, file))
        label = name if name == WHOLE else f"{name} {version(name)}"
        print(f"{label:24s} {clock:6.2f} s, {cpu:6.2f} s of the processor, {memory:6,.0f} MB", end="")
        expected = expected or numbers
        for key, values in numbers.items():
            off = np.abs(values - expected[key])
            print(f"  {(off > 0).sum()} of {off.size:,} {key} differ, by {off.max():.1e} at most", end="")
        print(flush=True)


Measured = tuple[float, float, float, dict[str, np.ndarray]]


def measured(name: str, annotations: Path, file: Path) -> Measured:
    """Seconds of the clock and of the processor, MB more than before, and what `name` makes of the detections."""
    steps = (ours if name in (OURS, WHOLE) else others)(name, annotations, json.loads(file.read_text()))
    next(steps)
    before, start, used = peak(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = next(steps)
    clock, cpu, more = time.perf_counter() - start, time.process_time() - used, peak() - before
    if evaluation is None:
        return clock, cpu, more, {}
    return clock, cpu, more, {"numbers": np.array(evaluation.stats[:12]), "precisions": evaluation.eval["precision"]}


def others(name: str, annotations: Path, detections: list[dict]) -> Iterator[Any]:
    """First the annotations are read, then the detections evaluated."""
    if name == OTHER:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    yield
    evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    yield evaluation


def ours(name: str, annotations: Path, detections: list[dict]) -> Iterator[Any]:
    """The same with this project's own functions."""
    from detect import evaluate
    from detect.data import CocoDataset
    from detect.detector_config import make_config
    from detect.settings import DetectorSettings

    dataset = CocoDataset(annotations, annotations.parent)
    cfg = make_config(DetectorSettings(), num_classes=len(dataset.split.classes))
    made, evaluated = [], evaluate.coco_evaluation
    yield
    if name == OURS:
        with mock.patch.object(evaluate, "coco_evaluation", lambda *given: made.append(evaluated(*given)) or made[-1]):
            evaluate.score_detections(dataset, detections)
        yield made[-1]
    with mock.patch.object(evaluate, "find_objects", lambda *_, **__: detections):
        evaluate.evaluate_detector(None, cfg, dataset=dataset, out_dir=annotations.parent / "evaluation")
    yield None


def write_annotations(path: Path, images: int) -> None:
    """`BOXES` at random on each image."""
    rng = np.random.default_rng(0)
    annotations = []
    for image in np.repeat(np.arange(images), BOXES).tolist():
        left, top, width, height = (*rng.uniform(0, SIZE - 200, 2).tolist(), *rng.uniform(8, 200, 2).tolist())
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(rng.integers(CLASSES)) + 1,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE, "width": SIZE} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
    }
    path.write_text(json.dumps(coco))


def made_detections(truth: dict, count: int) -> Iterator[dict]:
    """`count` for each image: three near each box, four in five of its class, and where nothing is the others."""
    rng = np.random.default_rng(1)
    there: dict[int, list[tuple[list[float], int]]] = {image["id"]: [] for image in truth["images"]}
    for a in truth["annotations"]:
        there[a["image_id"]] += [] if a["iscrowd"] else 3 * [(a["bbox"], a["category_id"])]
    classes = np.array([category["id"] for category in truth["categories"]])
    for image, near in there.items():
        boxes = np.hstack([rng.uniform(0, 400, (count, 2)), rng.uniform(8, 200, (count, 2))])
        labels = rng.choice(classes, count)
        near = near[:count]
        if near:
            boxes[: len(near)] = np.array([box for box, _ in near]) + rng.normal(0, 5, (len(near), 4))
            right = np.flatnonzero(rng.random(len(near)) < 0.8)
            labels[right] = [near[k][1] for k in right]
        scores = rng.random(count, dtype=np.float32)
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "score": score}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
