"""COCO's box metrics, ours (faster-coco-eval) against pycocotools: the same detections, the same numbers.

Run: python benchmarks/coco_eval.py [--images 2000]
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.data import CocoDataset
from detect.evaluate import METRICS, score_detections

CLASSES, BOXES, SIZE = 10, 8, 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        dataset = CocoDataset(Path(folder) / "annotations.json", Path(folder))
        detections = make_data(dataset.annotations, images)
        start = time.perf_counter()
        theirs = pycocotools_metrics(dataset.annotations, detections)
        middle = time.perf_counter()
        ours = score_detections(dataset, detections)
        end = time.perf_counter()
    print(f"{images} images, {BOXES} boxes each, {len(detections)} detections, {CLASSES} classes")
    for name in METRICS:
        print(f"{name:5s} pycocotools {theirs[name]:.10f}  ours {ours[name]:.10f}  equal: {theirs[name] == ours[name]}")
    print(f"pycocotools {middle - start:6.2f} s, ours {end - middle:6.2f} s")
    print(f"ratio {(middle - start) / (end - middle):.1f} (bar: 5)")


def make_data(path: Path, images: int) -> list[dict]:
    """Write annotations of random boxes to `path`; return three noisy detections for each box."""
    rng = np.random.default_rng(0)
    annotations, detections = [], []
    for image in range(images):
        for _ in range(BOXES):
            box = np.concatenate([rng.uniform(0, SIZE - 200, 2), rng.uniform(8, 200, 2)])
            category = int(rng.integers(CLASSES)) + 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
            for _ in range(3):
                near = box + rng.normal(0, 6, 4)
                guess = category if rng.random() < 0.8 else int(rng.integers(CLASSES)) + 1
                detections.append(
                    {"image_id": image, "category_id": guess, "bbox": near.tolist(), "score": float(rng.random())}
                )
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE, "width": SIZE} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
    }
    path.write_text(json.dumps(coco))
    return detections


def pycocotools_metrics(annotations: Path, detections: list[dict]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100.0 * float(value) for name, value in zip(METRICS, evaluation.stats[:6], strict=True)}


if __name__ == "__main__":
    main()
