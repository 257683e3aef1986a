"""A detector's start, memory, resume and evaluation on a data set as large as COCO, against the plain way.

The data set is pretended: as many images, boxes, classes and outlines as COCO 2017's, of which the files are links to a
few pictures. Every row is a process of its own, as a stage of a study is: it finds out what the files hold, opens the
data, builds a small detector and trains it. Looking at every picture, which a study does once before, is not part of
it. "first" has nothing to find beside the runs, "second" finds what the first left, "resumed" its checkpoint too, and
"parsed anew" reads the JSON. One process at a time; with the whole data set one that parses takes 2.4 GB. Then as many
detections as a detector may have on the test images are evaluated, as in coco_eval.py, which says how.

listing.py has the start on ImageNet's files; what a report draws of COCO's 5,000 test images is in image_bootstrap.py
with --images 5000 --classes 80 --boxes 7 --detections 100.
Run: python benchmarks/scale.py [--only starts] [--share 0.2] [--batches 300] [--workers 2] [--folder DIR]
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from multiprocessing import active_children
from pathlib import Path
from unittest import mock

import coco_eval  # beside this program
import numpy as np
from PIL import Image

IMAGES, BOXES, CLASSES = {"train": 118_287, "test": 5_000}, {"train": 860_001, "test": 36_781}, 80
POINTS = 23  # of an outline
FOUND = 100  # detections of an image
PICTURES = 24  # that all files are links to; a file system may allow 65,000 links to one
WIDTH, HEIGHT, BATCH = 640, 480, 4
EARLY = 20  # batches after which workers are looked at first
SMALL = {"image_size": 96, "max_image_size": 128, "fpn_channels": 16, "box_head_dim": 32, "train_proposals": 50}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("starts", "evaluation"))
    parser.add_argument("--share", type=float, default=1.0, help="of COCO's images and boxes")
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the data set is written, unless it is there, and stays")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(train(**arguments.child)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "test.json").is_file():
            write_data(folder, arguments.share)
        if arguments.only != "evaluation":
            shutil.rmtree(folder / "runs", ignore_errors=True)
            compare_starts(folder, arguments.batches, arguments.workers)
        if arguments.only != "starts":
            coco_eval.compare(folder / "test.json", FOUND)


def compare_starts(folder: Path, batches: int, workers: int) -> None:
    """Print a row for each process: seconds by the clock (of the processor), and megabytes."""
    megabytes = (folder / "train.json").stat().st_size / 1e6
    print(
        f"{len(list((folder / 'train').iterdir())):,} training images, {megabytes:,.0f} MB of JSON, {workers} workers"
    )
    print(f"{'':12s} {'to first step':>20s} {'of it opening':>20s} {'its memory':>11s} {'peak':>8s}  a worker's own")
    rows = (("first", False, 1), ("second", False, batches), ("resumed", False, 1), ("parsed anew", True, batches))
    for name, anew, steps in rows:
        told = {"folder": str(folder), "anew": anew, "steps": steps, "workers": workers, "resume": name == "resumed"}
        line = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps({**told, "begun": time.time()})],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.splitlines()[-1]
        found = json.loads(line)
        steps, opening = ("{:7.1f} s ({:6.1f} s)".format(*found[key]) for key in ("first_step", "opening"))
        print(
            f"{name:12s} {steps:>20s} {opening:>20s} {found['data']:8.0f} MB {found['peak']:5.0f} MB ",
            found["workers"],
            flush=True,
        )


def write_data(folder: Path, share: float) -> None:
    """Pictures, and both splits."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(PICTURES):
        pixels = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / f"{k}.jpg", quality=90)
    for split in IMAGES:
        write_split(folder, split, round(IMAGES[split] * share), round(BOXES[split] * share), rng)


def write_split(folder: Path, split: str, images: int, boxes: int, rng: np.random.Generator) -> None:
    """A COCO JSON and links to pictures in a folder beside it."""
    (folder / split).mkdir()
    names = [f"{k:012d}.jpg" for k in range(images)]
    for k, name in enumerate(names):
        (folder / split / name).hardlink_to(folder / f"{k % PICTURES}.jpg")
    corners = rng.uniform(0, (WIDTH - 210, HEIGHT - 210), (boxes, 2)).round(2)
    sides = rng.uniform(8, 200, (boxes, 2)).round(2)
    outlines = (corners[:, None] + sides[:, None] * rng.uniform(0, 1, (boxes, POINTS, 2))).round(2).reshape(boxes, -1)
    of, classes, crowd = (rng.integers(n, size=boxes) for n in (images, CLASSES, 100))
    with (folder / f"{split}.json").open("w") as file:
        entries = [{"id": k, "file_name": n, "width": WIDTH, "height": HEIGHT} for k, n in enumerate(names)]
        categories = [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)]
        file.write(f'{{"images": {json.dumps(entries)}, "categories": {json.dumps(categories)}, "annotations": [\n')
        for k in range(boxes):
            annotation = {
                "segmentation": [outlines[k].tolist()],
                "area": float(0.7 * sides[k].prod()),
                "iscrowd": int(crowd[k] == 0),
                "image_id": int(of[k]),
                "bbox": [*corners[k].tolist(), *sides[k].tolist()],
                "category_id": int(classes[k]) + 1,
                "id": k + 1,
            }
            file.write(json.dumps(annotation) + (",\n" if k + 1 < boxes else "\n"))
        file.write("]}")


def train(*, folder: str, anew: bool, steps: int, workers: int, resume: bool, begun: float) -> dict[str, object]:
    """Train `steps` batches in this process; seconds since `begun` and megabytes. `anew`: parse the JSON."""
    from classify.models import build
    from detect.build import build_detector
    from detect.data import class_names, coco
    from detect.data.open import open_detection
    from detect.settings import DetectorData, DetectorSettings, TrainRun, TrainSettings
    from detect.train import train_detector
    from study.stages.contents import Contents
    from training.device import set_threads
    from training.stopping import Stopped, stop_on_signals

    set_threads(1, jobs=1)
    place, found, own = Path(folder), {"workers": ""}, memory("self", "Private")
    sides = {side: {"annotations": place / f"{side}.json", "images": place / side} for side in IMAGES}
    start = time.perf_counter(), time.process_time()
    plainly = mock.patch.object(coco, "_kept_split", lambda path, images, folder: coco.read_coco(path, images))
    with plainly if anew else nullcontext():
        data = Contents(place / "runs").detection(DetectorData.model_validate({"coco": sides}))
        dataset = open_detection(data, "train", place / "runs" / "data")
        classes = len(class_names(dataset))
    opening = time.perf_counter() - start[0], time.process_time() - start[1]
    found |= {"opening": opening, "data": memory("self", "Private") - own}
    settings = DetectorSettings.model_validate(SMALL)
    detector, cfg = build_detector(build("resnet10", 10, {"width": 0.25}), settings, num_classes=classes)
    begun_at = [0]

    def report(step: int, total: int, metrics: object) -> None:
        begun_at[0] = begun_at[0] or step
        if step == begun_at[0]:
            found["first_step"] = time.time() - begun, time.process_time()
        done = step - begun_at[0] + 1
        if done in (EARLY, steps) and steps > 1:
            each = " and ".join(f"{memory(str(child.pid), 'Private'):.0f}" for child in active_children())
            found["workers"] += f"{each} MB after {done} batches  "
        if done == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    checkpoint = place / ("parsed.pt" if anew else "kept.pt")
    if not resume:
        checkpoint.unlink(missing_ok=True)
    run = TrainRun(num_workers=workers, report_every=1, precision="float32")
    with suppress(Stopped), stop_on_signals():
        train_detector(
            detector,
            cfg,
            dataset=dataset,
            settings=TrainSettings(iterations=10_000, batch_size=BATCH, lr=1e-4),
            run=run,
            checkpoint=checkpoint,
            report=report,
        )
    return found | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def memory(process: str, kind: str) -> float:
    """Megabytes of a process that no other shares (`Private`)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


if __name__ == "__main__":
    main()
