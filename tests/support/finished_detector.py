"""Finished runs of a detector around a pruned network, and of its evaluation, in seconds."""

import json

import numpy as np
import torch
import yaml
from PIL import Image

from detect.data.open import detection_data, open_detection
from detect.data.sets.coco import CocoData
from detect.settings import DetectorData
from detect.train import train_detector
from pruning.plan import PruningPlan
from study.config.sections import Machine
from study.stages.detector import build
from study.stages.evaluate import run_evaluate
from study.stages.network import Network, save_weights
from study.stages.stage import Context, Stage
from support.coco_layout import encoded, grey_16_bits, turned
from support.tiny_detector import SMALL, settings, two_squares
from support.told import altered
from training.files import write_text

PLAN = PruningPlan("resnet10", {"width": 0.125}, {"layer1.0.conv1": (0, 5)}, {"layer1.0.conv1": 8})
NETWORK = Network(PLAN, 10, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
CLASSIFIER = Stage("train_classifier", {"dataset": {"name": "digits", "options": {}, "seed": 0}}, (), 0)
MODEL = SMALL.model_copy(update={"max_image_size": 100})


def squares_on(size, seed):
    """Bright squares on black; `size`: width, height."""
    rng, pixels = np.random.default_rng(seed), np.zeros((*size[::-1], 3), dtype=np.uint8)
    for _ in range(3):
        x, y, side = int(rng.integers(0, size[0] - 12)), int(rng.integers(0, size[1] - 12)), int(rng.integers(8, 24))
        pixels[y : y + side, x : x + side] = rng.integers(160, 256, 3)
    return Image.fromarray(pixels)


def write_pictures(folder):
    """Twenty pictures of all the kinds that people have: sizes, modes, formats, turned by EXIF."""
    folder.mkdir()
    kinds = ["RGB", "L", "P", "RGBA", "CMYK"]
    for k in range(16):
        image = squares_on((50 + 7 * k, 110 - 4 * k), k).convert(kinds[k % 5])
        kind, suffix = [("PNG", ".png"), ("JPEG", ".jpg"), ("TIFF", ".tif")][k % 3]
        image = image.convert("CMYK" if kind != "PNG" and k % 5 == 4 else "RGB") if kind == "JPEG" else image
        image = image.convert("RGB") if kind == "PNG" and image.mode == "CMYK" else image
        (folder / f"{k:02d}{suffix}").write_bytes(encoded(image, kind))
    for k, orientation in enumerate((3, 6, 8), 16):
        content = encoded(squares_on((90, 60), k), "JPEG", exif=turned(orientation))
        (folder / f"{k:02d}.jpg").write_bytes(content)
    (folder / "19.png").write_bytes(grey_16_bits())


def upright(file):
    with Image.open(file) as image:
        return image.size[::-1] if image.getexif().get(0x0112) in (6, 8) else image.size


def finished_detector(runs, iterations=40, **changes):
    """Runs of a pruned network's detector, a little trained, and of its evaluation on twenty pictures; and these.

    `changes`: of the detector's settings.
    """
    runs.mkdir(exist_ok=True)
    two_squares(runs)
    write_pictures(runs / "photos")
    images = []
    for k, file in enumerate(sorted((runs / "photos").iterdir()), 1):
        width, height = upright(file)
        images.append({"id": 10 * k, "file_name": file.name, "width": width, "height": height})
    categories = [{"id": 7, "name": "left"}, {"id": 3, "name": "right"}]
    boxes = [{"id": k, "image_id": 10, "category_id": c, "bbox": [1, 1, 9, 9]} for k, c in enumerate((3, 7), 1)]
    (runs / "test.json").write_text(json.dumps({"images": images, "categories": categories, "annotations": boxes}))
    coco = {
        "train": {"annotations": runs / "train.json", "images": runs},
        "test": {"annotations": runs / "test.json", "images": runs / "photos"},
    }
    data = detection_data(DetectorData(coco=CocoData.model_validate(coco)))
    trained = {"iterations": iterations, "batch_size": 4, "lr": 0.02}
    model = altered(MODEL, **changes).model_dump(mode="json", exclude_unset=True)
    stage = Stage(
        "train_detector", {"model": model, "data": data, "train": trained, "init": "inherited"}, (CLASSIFIER,), 0
    )
    torch.manual_seed(0)
    detector, cfg = build(stage, NETWORK, NETWORK.build(), 2, device="cpu")
    dataset = open_detection(data, "train", runs / "data")
    how = settings(**trained)
    train_detector(detector, cfg, dataset=dataset, **how, checkpoint=runs / "checkpoint.pt")
    write_run(CLASSIFIER, runs, NETWORK.build(), {})
    write_run(stage, runs, detector, {"data": dataset.split.summary()})
    evaluation = Stage("evaluate", {"data": data, "scenes": 0, "split": "test"}, (stage,), 0)
    result = run_evaluate(Context(evaluation, runs, Machine(), None))
    write_run(evaluation, runs, None, result)
    return stage.run(runs).path, evaluation.run(runs).path, runs / "photos"


def write_run(stage, runs, model, result):
    """A finished run directory as the executor leaves it."""
    run = stage.run(runs)
    config = {"kind": stage.kind, "settings": dict(stage.settings), "parents": [p.id for p in stage.parents], "seed": 0}
    write_text(run.config, yaml.safe_dump(json.loads(json.dumps(config))))
    if model is not None:
        NETWORK.save(run)
        save_weights(run.weights, model)
    run.write_result({"network": NETWORK.as_result(), **result})
