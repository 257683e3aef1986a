"""A fabricated comparison with run directories: every number in it is invented, to test the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageDraw

from study.report.rows import Basis, Comparison, Measured, Row, StageResult, Step

# pipeline -> (chain of (step, kind, run kind-and-hash, shared), AP of seed 0, 1, 2)
CHAINS = {
    "unpruned": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("detect", "train_detector", "train_detector-aaaaaaaaaaaa", True),
    ],
    "prune_then_transfer": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("prune", "prune", "prune-bbbbbbbbbbbb", True),
        ("fine_tune", "train_classifier", "train_classifier-bbbbbbbbbbbb", False),
        ("detect", "train_detector", "train_detector-bbbbbbbbbbbb", False),
    ],
    "transfer_then_prune": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("detect", "train_detector", "train_detector-aaaaaaaaaaaa", True),
        ("prune_detector", "prune_detector", "prune_detector-cccccccccccc", False),
        ("fine_tune_detector", "train_detector", "train_detector-cccccccccccc", False),
    ],
    "scratch_e": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("prune", "prune", "prune-bbbbbbbbbbbb", True),
        ("classify_scratch", "train_classifier", "train_classifier-dddddddddddd", False),
        ("detect", "train_detector", "train_detector-dddddddddddd", False),
    ],
    "scratch_b": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("prune", "prune", "prune-bbbbbbbbbbbb", True),
        ("classify_scratch", "train_classifier", "train_classifier-eeeeeeeeeeee", False),
        ("detect", "train_detector", "train_detector-eeeeeeeeeeee", False),
    ],
    "detect_from_scratch": [
        ("classify", "train_classifier", "train_classifier-aaaaaaaaaaaa", True),
        ("prune", "prune", "prune-bbbbbbbbbbbb", True),
        ("detect", "train_detector", "train_detector-ffffffffffff", False),
    ],
}
AP = {
    "unpruned": (62.4, 63.6, 63.0),
    "prune_then_transfer": (60.8, 61.6, 61.4),
    "transfer_then_prune": (58.9, 60.3, 59.1),
    "scratch_e": (59.0, 60.1, 60.0),
    "scratch_b": (59.6, 60.2, 60.6),
    "detect_from_scratch": (47.9, 49.4, 48.2),
}
TRAIN_MACS = {"train_classifier": 40_000_000_000_000, "train_detector": 210_000_000_000_000}
CLASSES = [str(digit) for digit in range(10)]


def fabricate(runs: Path, *, seeds: tuple[int, ...] = (0, 1), files: bool = True) -> dict:
    """The content of comparison.json for the six known routes; with `files`, its run directories below `runs` too."""
    rows = [_row(pipeline, seed) for pipeline in CHAINS for seed in seeds]
    stages = {
        step["run"]: {"kind": step["kind"], "step": step["step"], "result": _result(step["kind"])}
        for row in rows
        for step in row["chain"]
    }
    if files:
        for run, stage in stages.items():
            _write_run(runs / run, stage["kind"], run)
    return {
        "study": "digits",
        "task": "detection",
        "title": "Fabricated study: routes to a pruned detector",
        "config_file": "configs/pipelines/digits.yaml",
        "config": {"seeds": list(seeds)},
        "config_yaml": "study: digits\nseeds: [0, 1]\nprune:\n  method: l1_filter\n  ratio: 0.5\n",
        "seeds": list(seeds),
        "evaluation": {
            "dataset": "digits",
            "split": "test",
            "images": 300,
            "boxes": 1350,
            "metric": "COCO AP@[.50:.95], area=all, maxDets=100",
            "image_size": 128,
        },
        "grid": {},
        "rows": rows,
        "missing": [],
        "gaps": [],
        "stages": stages,
    }


def a_comparison(rows: Sequence[Row] = (), stages: Mapping[str, StageResult] | None = None) -> Comparison:
    """A comparison of detectors that has nothing but what it is given."""
    return Comparison("s", "detection", "", "", {}, "", (), Basis(), {}, tuple(rows), (), (), stages or {})


def a_row(pipeline: str, seed: int, chain: Sequence[Step], point: dict | None = None, **measured) -> Row:
    """A row that has nothing but what it is given."""
    return Row(pipeline, point or {}, seed, Measured.from_json(measured), None, "", tuple(chain))


def a_step(kind: str, run: str) -> Step:
    """A step of a chain that cost nothing, named after its kind."""
    return Step(kind, kind, run, 0, 0.0, False)


def with_grid(content: dict, ratios: tuple[float, ...] = (0.5, 0.7), loss: float = 4.0) -> dict:
    """The same rows at each ratio; from one ratio to the next every route but `unpruned` loses `loss` AP."""
    rows = [
        row | {"point": {"prune.ratio": ratio}, "AP": row["AP"] - loss * i * (row["pipeline"] != "unpruned")}
        for i, ratio in enumerate(ratios)
        for row in content["rows"]
    ]
    return {**content, "grid": {"prune.ratio": list(ratios)}, "rows": rows}


def _row(pipeline: str, seed: int) -> dict:
    ap = AP[pipeline][seed]
    dense = pipeline == "unpruned"
    evaluate = ("evaluate", "evaluate", f"evaluate-{sha256(pipeline.encode()).hexdigest()[:12]}", False)
    chain = [_step(pipeline, seed, *step) for step in (*CHAINS[pipeline], evaluate)]
    by_kind: dict[str, int] = {}
    for step in chain:
        by_kind[step["kind"]] = by_kind.get(step["kind"], 0) + step["train_macs"]
    return {
        "pipeline": pipeline,
        "point": {},
        "seed": seed,
        "AP": ap,
        "AP50": ap + 27.3,
        "AP75": ap + 9.1,
        "APs": None,
        "APm": ap - 3.0,
        "APl": None,
        "per_class": {name: round(ap + 6 * math.sin(2.1 * i + seed), 2) for i, name in enumerate(CLASSES)},
        "backbone_params": 11_176_512 if dense else 6_903_104,
        "backbone_macs": 592_445_440 if dense else 318_767_104,
        "detector_params": 14_900_000 if dense else 10_626_592,
        "detector_macs": 1_904_000_000 if dense else 1_630_321_664,
        "latency_ms": 31.4 + seed if dense else 22.9 + seed,
        "train_macs": sum(by_kind.values()),
        "seconds": sum(step["seconds"] for step in chain),
        "train_macs_by_kind": by_kind,
        "chain": chain,
    }


def _step(pipeline: str, seed: int, step: str, kind: str, run: str, shared: bool) -> dict:
    longer = 2 if step == "classify_scratch" and pipeline == "scratch_b" else 1
    macs = TRAIN_MACS.get(kind, 0) * longer // (2 if step.startswith("fine_tune") else 1)
    return {
        "step": step,
        "kind": kind,
        "run": f"{run}/seed{seed}",
        "train_macs": macs,
        "seconds": 4.0 + macs / 4e12,
        "shared": shared,
    }


def _result(kind: str) -> dict:
    return {
        "config": {},
        "metrics": {"accuracy": 0.953} if kind == "train_classifier" else {},
        "versions": {"torch": "2.14.1", "detectron2": "0.7.2"},
        "device": {"type": "cpu", "name": "Fabricated CPU", "threads": 1},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "seconds": 12.0,
        "train_macs": TRAIN_MACS.get(kind, 0),
    }


def _write_run(folder: Path, kind: str, run: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shift = sum(map(ord, run)) % 7
    if kind.startswith("train"):
        lines = (_metric_line(kind, step, shift) for step in range(20, 401, 10))
        (folder / "metrics.jsonl").write_text("".join(lines))
    if kind.startswith("prune"):
        prefix = "backbone.bottom_up.body." if kind == "prune_detector" else ""
        widths = {f"{prefix}layer{s}.{b}.conv1": 64 * 2 ** (s - 1) for s in (1, 2, 3, 4) for b in (0, 1)}
        keep = {name: list(range(width // 2)) for name, width in widths.items()}
        plan = {"format": 1, "arch": "resnet18", "options": {}, "keep": keep, "widths": widths}
        (folder / "plan.json").write_text(json.dumps(plan))
    if kind == "evaluate":
        (folder / "pr.json").write_text(json.dumps(_precision_recall(shift)))
        (folder / "detections").mkdir(exist_ok=True)
        for k in range(4):
            _draw_scene(folder / "detections" / f"ground_truth_{k}.png", k, 0)
            _draw_scene(folder / "detections" / f"detections_{k}.png", k, shift)


def _metric_line(kind: str, step: int, shift: int) -> str:
    loss = (2.4 + 0.1 * shift) * math.exp(-step / 150) + 0.3 + 0.05 * math.sin(step * (1 + shift))
    record = {"step": step, "total": 400, "loss": loss, "lr": 0.01}
    if kind == "train_classifier" and step % 50 == 0:
        record["val_accuracy"] = 1 - 0.8 * math.exp(-step / (120 + 10 * shift))
    return json.dumps(record) + "\n"


def _precision_recall(shift: int) -> dict:
    recall = [i / 100 for i in range(101)]
    curves = {name: {"precision": [max(0.0, 1 - r ** (2 + shift)) for r in recall]} for name in CLASSES}
    return {"iou": 0.5, "recall": recall, "classes": curves}


def _draw_scene(path: Path, k: int, shift: int) -> None:
    image = Image.new("RGB", (128, 128), (60 + 30 * k, 110, 150 - 20 * k))
    draw = ImageDraw.Draw(image)
    for i in range(3):
        left, top = 12 + 34 * i + shift, 20 + 17 * ((i + k) % 4) - shift
        draw.rectangle((left, top, left + 26, top + 32), outline=(255, 220, 80), width=2)
        draw.text((left + 10, top + 10), str((k + i) % 10), fill=(255, 255, 255))
    image.save(path)
