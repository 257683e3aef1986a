"""What the dry run of a detection study at COCO's size takes, against loading PyTorch and Detectron2 alone.

The data set is pretended: 64 images of 640 x 480 and 480 x 640 pixels with COCO's 80 classes, at the place that
`coco_r50.yaml` names; of more images a plan asks for the number and the size. Every row is a process of its own.
Run: python benchmarks/dry_run.py [--config coco_r50]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

IMAGES, CLASSES = 64, 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coco_r50", help="a pipeline file, or the name of a shipped one")
    config = parser.parse_args().config
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train2017", "val2017"):
            write_split(Path(folder) / "datasets" / "coco", split)
        launch = [sys.executable, "-W", "ignore"]
        plan = [*launch, "-m", "prune_transfer", "run", config, "--dry-run"]
        for name, command in (
            ("import torch, detectron2.modeling", [*launch, "-c", "import torch, detectron2.modeling"]),
            (f"{config} --dry-run", plan),
        ):
            print(f"{name:40s} {measure(command, folder)}", flush=True)


def write_split(root: Path, split: str) -> None:
    """Black pictures, two in three of them wide, each with a box of every class."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, boxes = [], []
    for k in range(1, IMAGES + 1):
        width, height = (640, 480) if k % 3 else (480, 640)
        Image.new("RGB", (width, height), (k, 0, 0)).save(root / split / f"{k}.jpg")
        images.append({"id": k, "file_name": f"{k}.jpg", "width": width, "height": height})
        boxes += [
            {"id": k * 100 + c, "image_id": k, "category_id": c, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
            for c in range(1, CLASSES + 1)
        ]
    categories = [{"id": c, "name": f"class {c}"} for c in range(1, CLASSES + 1)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def measure(command: list[str], folder: str) -> str:
    """Seconds by the clock and of the processor, and the process's memory at its peak, its end included."""
    start, there = time.perf_counter(), Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(there), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    seconds = time.perf_counter() - start
    processor = used.ru_utime + used.ru_stime
    return f"{seconds:6.1f} s, {processor:6.1f} s of the processor, {used.ru_maxrss / 1e3:6.0f} MB"


if __name__ == "__main__":
    main()
