"""A finished run's network as a file for elsewhere, with a JSON beside it that says how to use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from classify.export import FORMATS, Signature, export
from detect.data.open import open_detection
from pruning.cost import count_macs, count_params
from pruning.errors import Refusal
from study.config.sections import Machine
from study.stages.data import dataset_of, open_classification
from study.stages.network import Network, load_model, read_weights
from study.stages.provenance import environment
from study.stages.stage import Stage, load_stage
from training.files import write_bytes, write_json

if TYPE_CHECKING:  # Detectron2, which classification works without
    from detect.build import Config
    from detect.export import DetectionComparison

_CLASSIFIERS = ("train_classifier", "take_weights", "prune")
_DETECTORS = ("train_detector", "prune_detector")
_BATCHES = (2, 1, 5)  # of images, on which an exported classifier must agree; the first is traced
_MASKS = "(detections, rows, columns) float32 in 0..1: how probably each part of the box, in a grid, is the object's"
_TRAINING_IMAGES = 3  # on which an exported detector must agree, where they are on this machine


@dataclass(frozen=True)
class _Subject:
    """What is exported: one tensor in, one or several out; `description` says what they mean.

    The first of `inputs` is traced; on all of them the file must compute what PyTorch does.
    """

    task: str
    model: nn.Module
    inputs: Sequence[torch.Tensor]
    signature: Signature
    description: dict[str, object]
    compare: "DetectionComparison | None" = None


def export_run(
    run: Path, file_format: str, *, out: Path | None = None, image_size: tuple[int, int] | None = None
) -> dict[str, object]:
    """Export the classifier or detector of a finished run directory; returns what the JSON says.

    `out`: the network's file, by default `classifier` or `detector` with the format's ending in the run directory; the
    JSON has its name with `.json`. `image_size` (height, width): of a classifier the only size the file will take, of a
    detector the size at which MACs are counted; by default the size it was trained for. ValueError for what cannot be.
    """
    if file_format not in FORMATS:
        raise Refusal(f"--format {file_format}: unknown; choose from {', '.join(FORMATS)}")
    if image_size is not None and min(image_size) < 1:
        raise Refusal(f"--image-size {image_size[0]} {image_size[1]}: height and width must be at least 1")
    stage = load_stage(run)
    runs = run.resolve().parents[1]
    if stage.kind not in (*_CLASSIFIERS, *_DETECTORS):
        kinds = ", ".join((*_CLASSIFIERS, *_DETECTORS))
        raise Refusal(f"{run}: a run of kind {stage.kind!r} holds no network; choose one of kind {kinds}")
    subject = (_classifier if stage.kind in _CLASSIFIERS else _detector)(stage, runs, image_size)
    path = out or run / f"{subject.task}{FORMATS[file_format]}"
    if path.suffix == ".json" or path.is_dir():
        raise Refusal(f"--out {path}: name the network's file; the JSON beside it gets the same name with .json")
    content, difference = _export(subject, file_format)
    about = {
        "file": path.name,
        "format": file_format,
        "task": subject.task,
        "source": {"run": stage.id, "environment": environment("cpu")},
        **subject.description,
        "largest_difference_from_pytorch": difference,
        "compared_with_pytorch": _compared(subject),
    }
    write_bytes(path, content)
    write_json(path.with_name(f"{path.name}.json"), about)
    return about


def _export(subject: _Subject, file_format: str) -> tuple[bytes, float]:
    """The file's content and its difference from PyTorch; of detectors also boxes are compared if none is found."""
    first, *others = subject.inputs
    arguments = (subject.model, first, subject.signature, file_format)
    content, difference = export(*arguments, others=others, compare=subject.compare)
    if subject.compare is not None and not subject.compare.detections:
        from detect.export import every_score

        with every_score(subject.model):  # the same network but for one number
            difference = export(*arguments, others=others, compare=subject.compare)[1]
    return content, difference


def _compared(subject: _Subject) -> dict[str, object]:
    """What the file was checked on."""
    shapes = [list(x.shape) for x in subject.inputs]
    return {"inputs": shapes} | ({"detections": subject.compare.detections} if subject.compare else {})


def _classifier(stage: Stage, runs: Path, image_size: tuple[int, int] | None) -> _Subject:
    network = Network.load(stage.run(runs))
    size = image_size or (network.image_size, network.image_size)
    channels = len(network.mean)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, channels, *size, generator=generator) for n in _BATCHES]
    model = load_model(stage.run(runs)).eval()
    try:
        macs = count_macs(model, batches[0][:1])
    except RuntimeError as error:
        raise Refusal(
            f"--image-size {size[0]} {size[1]}: {network.plan.arch} does not take it: {str(error).splitlines()[0]}"
        ) from error
    description = {
        "input": {
            "name": "images",
            "shape": ["batch", channels, *size],
            "dtype": "float32",
            **_pixels(network, "apply before the network: (pixel / 255 - mean) / std, by channel"),
        },
        "outputs": {"logits": "(batch, classes) float32, scores before softmax"},
        **_classes(stage, runs, network.num_classes),
        "costs": {"params": count_params(model), "macs": macs, "macs_of": f"one image of {size[0]} x {size[1]}"},
        "arch": network.plan.arch,
        "options": dict(network.plan.options),
    }
    batches.append(torch.zeros(3, channels, *size))
    return _Subject("classifier", model, batches, Signature("images", {0: "batch"}, {"logits": "batch"}), description)


def _detector(stage: Stage, runs: Path, image_size: tuple[int, int] | None) -> _Subject:
    from detect.cost import part_macs
    from detect.export import (
        DetectionComparison,
        ImageDetector,
        example_image,
        number_of_classes,
        other_images,
    )
    from study.stages.detector import build

    run = stage.run(runs)
    network, weights = Network.load(run), read_weights(run.weights)
    built_by = stage if stage.kind == "train_detector" else stage.parents[0]  # the stage that names model and data
    number = number_of_classes(weights)
    names = _classes(built_by, runs, number)
    detector, cfg = build(built_by, network, network.build(), number, device="cpu")
    detector.load_state_dict(weights)
    size = image_size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST)
    macs = part_macs(detector, image_size=size).evaluation(cfg)
    regions = f", at most {cfg.MODEL.RPN.POST_NMS_TOPK_TEST} proposals" if macs.roi_heads else ""
    objects = f", {cfg.TEST.DETECTIONS_PER_IMAGE} masks" if cfg.MODEL.MASK_ON else ""
    macs_of = f"one image of {size[0]} x {size[1]}{regions}{objects}"
    description = {
        **_detector_interface(network, cfg, one_stage=not macs.roi_heads),
        **names,
        "costs": {
            "params": count_params(detector),
            "macs": macs.total,
            "backbone_params": count_params(detector.backbone.bottom_up),
            "backbone_macs": macs.backbone,
            "macs_of": macs_of,
        },
        "arch": network.plan.arch,
        "options": dict(network.plan.options),
    }
    images = [example_image(size), *other_images(size)]
    if names["classes"] is not None:  # the data set is here
        images += _training_images(built_by, runs, cfg)
    model = ImageDetector(detector)
    return _Subject("detector", model, images, model.signature, description, DetectionComparison())


def _training_images(stage: Stage, runs: Path, cfg: "Config") -> list[torch.Tensor]:
    """A few images of the training split as evaluation resizes them, uint8 (3, H, W): a detector finds something there.

    None where the image files are gone, though the annotations are not.
    """
    from detect.data.loader import test_loader

    loader = test_loader(open_detection(stage.settings["data"], "train", runs / "data"), cfg)
    try:
        return [record["image"] for (record,) in islice(loader, _TRAINING_IMAGES)]
    except (ValueError, OSError):
        return []


def _detector_interface(network: Network, cfg: "Config", *, one_stage: bool) -> dict[str, object]:
    """What goes in and what comes out; `cfg` is Detectron2's."""
    shorter, longer = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    return {
        "input": {
            "name": "image",
            "shape": [3, "height", "width"],
            "dtype": "uint8",
            **_pixels(network, "done inside the network: give pixels 0..255"),
            "resize": f"before the network, bilinear: shorter side {shorter}, longer side at most {longer} pixels",
            "shorter_side": shorter,
            "longest_side": longer,
        },
        "outputs": {
            "boxes": "(detections, 4) float32: x0, y0, x1, y1 in pixels of the image given",
            "scores": "(detections,) float32 in 0..1",
            "classes": "(detections,) int64, numbers of `classes` from 0",
            **({"masks": _MASKS} if cfg.MODEL.MASK_ON else {}),
        },
        "score_threshold": (cfg.MODEL.RETINANET if one_stage else cfg.MODEL.ROI_HEADS).SCORE_THRESH_TEST,
        "most_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


def _pixels(network: Network, where: str) -> dict[str, object]:
    """Order of the channels and normalisation."""
    unit = "of pixel values in 0..1"
    numbers = {"mean": list(network.mean), "std": list(network.std), "unit": unit}
    normalisation = {**numbers, "source": network.normalization, "where": where}
    return {"channel_order": "RGB" if len(network.mean) == 3 else "grey", "normalisation": normalisation}


def _classes(stage: Stage, runs: Path, count: int) -> dict[str, object]:
    """Number and names of the classes; no names, and the reason, where the data set is not on this machine."""
    try:
        if stage.kind in _CLASSIFIERS:
            dataset = dataset_of(stage)
            if dataset is None:
                raise Refusal(f"no stage before {stage.id} names a classification data set")
            names = open_classification(dataset, Machine(), runs).train.classes
        else:
            from detect.data import class_names

            names = tuple(class_names(open_detection(stage.settings["data"], "train", runs / "data")))
    except (ValueError, OSError) as error:
        return {"num_classes": count, "classes": None, "classes_missing_because": str(error)}
    return {"num_classes": count, "classes": list(names)}
