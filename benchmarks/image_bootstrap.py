"""The bootstrap over test images: seconds and memory of 1,000 draws, for evaluations with made-up matches.

Run: python benchmarks/image_bootstrap.py [--images 300] [--classes 10] [--boxes 3] [--detections 19]
     [--evaluations 30], the last of these routes times seeds, boxes and detections of an image
"""

import argparse
import resource
import time

import numpy as np

from detect.matches import Matches, to_bytes
from study.report.statistics.images import average_precisions, draw_images

IOUS = np.linspace(0.5, 0.95, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 300, "classes": 10, "boxes": 3, "detections": 19, "evaluations": 30}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    boxes = np.random.default_rng(0).poisson(given.boxes / given.classes, (given.images, given.classes))
    evaluations = [make_matches(boxes, given.detections, seed) for seed in range(given.evaluations)]
    before, start, used = peak(), time.perf_counter(), time.process_time()
    ap = average_precisions(evaluations, draw_images(given.images)).ap
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(f"{given.evaluations} evaluations, {given.images} images, {given.classes} classes, {len(IOUS)} IoUs")
    print(f"AP {ap.mean():.2f}, deviation over draws {ap.std(axis=1).mean():.2f}")
    print(f"{seconds:.2f} s ({cpu:.2f} s of processor), peak {peak():.0f} MB, {before:.0f} MB before")
    print(f"{len(to_bytes({'coco': evaluations[0]})) / 1000:.0f} kB in a file")


def make_matches(boxes: np.ndarray, detections: int, seed: int) -> Matches:
    """A detector that finds 90 % of the boxes at an IoU of 0.5 and 15 % at 0.95, and is surer of what is there."""
    rng = np.random.default_rng(seed)
    found = []
    for column in boxes.T:
        owners = np.repeat(np.arange(len(column)), column)
        others = rng.integers(len(column), size=len(column) * detections // boxes.shape[1] - len(owners))
        quality = np.concatenate([rng.random(len(owners)), np.ones(len(others))])  # 0 is the best
        sure = rng.beta(3, 2, len(owners)) - 0.3 * quality[: len(owners)]
        score = np.concatenate([sure, rng.beta(1, 6, len(others))])
        order = np.argsort(-score)
        flags = quality[:, None] < np.linspace(0.9, 0.15, len(IOUS))
        found.append((np.concatenate([owners, others])[order], flags[order].astype(np.uint8)))
    return Matches.of_classes([str(k) for k in range(boxes.shape[1])], IOUS, boxes, found)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
