"""A fabricated comparison of classifiers with run directories: every accuracy in it is invented, to test the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from classify.models import build
from pruning.masks import Masks

ARCH, OPTIONS, CLASSES, SIZE = "cifar_resnet", {"depth": 8}, 10, 32
DENSE_MACS, DENSE_PARAMS, IMAGES, EPOCHS = 12_000_000, 78_000, 50_000, 160
METHODS = {"l1": "l1_filter", "slim": "slimming", "weights": "magnitude"}  # variant -> method
LAYERS = {"layer1.0.conv1": 16, "layer2.0.conv1": 32, "layer3.0.conv1": 64}
# pipeline -> (step of its last training or None, top-1 above that of fine_tune by kind of method, epochs)
ROUTES: dict[str, tuple[str | None, dict[str, float], int]] = {
    "pruned": (None, {"l1": -30.0, "slim": -20.0, "weights": -10.0}, EPOCHS),
    "fine_tune": ("fine_tune", {"l1": 0.0, "slim": 0.0, "weights": 0.0}, 40),
    "scratch_e": ("classify_scratch", {"l1": 0.1, "slim": -0.1, "weights": -0.9}, EPOCHS),
    "scratch_b": ("classify_scratch", {"l1": 0.5, "slim": 0.3, "weights": -0.3}, 2 * EPOCHS),
    "ticket": ("classify_ticket", {"l1": -0.1, "slim": -0.2, "weights": 0.6}, EPOCHS),
}
NETWORK = {"num_classes": CLASSES, "image_size": SIZE, "mean": [0.5] * 3, "std": [0.2] * 3}


def fabricate_classification(
    runs: Path,
    *,
    variants: tuple[str, ...] = ("l1", "slim", "weights"),
    grid: Mapping[str, list[Any]] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    files: bool = True,
    dataset: str = "cifar10",
) -> dict:
    """The content of comparison.json for the known routes of each variant at each grid point.

    With `files`, the run directories below `runs` too.
    """
    grid = dict(grid or {})
    rows, stages = [], {}
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    dense_points = [dict(items) for items in dict.fromkeys(tuple(_dense_point(p).items()) for p in points)]
    for seed in seeds:
        rows += [_row("unpruned", point, seed, _chain("unpruned", point, seed)) for point in dense_points]
        for variant, point, pipeline in product(variants, points, ROUTES):
            at = {"variant": variant, **point}
            rows.append(_row(pipeline, at, seed, _chain(pipeline, at, seed)))
    rows.sort(key=lambda row: (list(row["point"].items()) != [], row["seed"]))  # unpruned first
    for row in rows:
        for step in row["chain"]:
            stages[step["run"]] = {"kind": step["kind"], "step": step["step"], "result": _result(step, row["point"])}
            if files:
                _write_run(runs / step["run"], step, row["point"])
    return {
        "study": "photos",
        "task": "classification",
        "title": "Fabricated study: pruned classifiers",
        "config_file": "configs/classify/photos.yaml",
        "config": {"seeds": list(seeds)},
        "config_yaml": "name: photos\n",
        "seeds": list(seeds),
        "evaluation": {
            "dataset": dataset,
            "split": "test",
            "metric": "top-1 accuracy (%)",
            "images": 10_000,
            "image_size": f"{SIZE} x {SIZE}",
        },
        "grid": grid,
        "rows": rows,
        "missing": [],
        "gaps": [],
        "stages": stages,
    }


def _dense_point(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if not key.startswith("prune.")}


def top1_of(pipeline: str, point: Mapping[str, Any], seed: int) -> float:
    """The invented accuracy: 90 at the dense network, less with the ratio, the seeds 0.2 apart."""
    rate = -4.0 if point.get("classifier.train.lr", 0.1) < 0.1 else 0.0
    base = 90.0 + 0.2 * seed + rate
    if pipeline == "unpruned":
        return base
    ratio, above = point.get("prune.ratio", 0.5), ROUTES[pipeline][1][point["variant"]]
    if pipeline == "ticket" and rate == 0.0:
        above = ROUTES["scratch_e"][1][point["variant"]] - 0.1  # the ticket helps at the small rate only
    return round(base - 0.5 - 6 * max(0.0, ratio - 0.5) + above + 0.05 * ((seed + len(pipeline)) % 3), 3)


def _chain(pipeline: str, point: Mapping[str, Any], seed: int) -> list[dict]:
    dense = _step(
        "classify", "train_classifier", _dense_point({k: v for k, v in point.items() if k != "variant"}), seed
    )
    if pipeline == "unpruned":
        return [dense]
    prune = _step("prune", "prune", point, seed)
    last, _, epochs = ROUTES[pipeline]
    if last is None:
        return [dense, prune]
    training = _step(last, "train_classifier", {**point, "route": pipeline}, seed)
    training["train_macs"] = 3 * _macs(point) * IMAGES * epochs
    return [dense, prune, {**training, "shared": False}]


def _step(step: str, kind: str, defines: Mapping[str, Any], seed: int) -> dict:
    digest = sha256(json.dumps([step, dict(defines)], sort_keys=True).encode()).hexdigest()[:12]
    macs = 3 * DENSE_MACS * IMAGES * EPOCHS if kind == "train_classifier" else 0
    run = f"{kind}-{digest}/seed{seed}"
    return {"step": step, "kind": kind, "run": run, "train_macs": macs, "seconds": 5.0 + macs / 1e12, "shared": True}


def _macs(point: Mapping[str, Any]) -> int:
    return int(
        DENSE_MACS * (1 - point.get("prune.ratio", 0.5) * {"l1": 0.5, "slim": 0.7, "weights": 1.0}[point["variant"]])
    )


def _row(pipeline: str, point: Mapping[str, Any], seed: int, chain: list[dict]) -> dict:
    dense = pipeline == "unpruned"
    macs = DENSE_MACS if dense else _macs(point)
    top1 = top1_of(pipeline, point, seed)
    train_macs = sum(step["train_macs"] for step in chain)
    row = {
        "pipeline": pipeline,
        "point": dict(point),
        "seed": seed,
        "top1": top1,
        "top5": 99.0,
        "val_top1": top1 + 0.3,
        "params": DENSE_PARAMS * macs // DENSE_MACS,
        "macs": macs,
        "dense_params": DENSE_PARAMS,
        "dense_macs": DENSE_MACS,
        "epochs": EPOCHS if dense else ROUTES[pipeline][2],
        "latency_ms": 2.0 if dense else 1.5,
        "train_macs": train_macs,
        "train_macs_by_kind": {"train_classifier": train_macs},
        "seconds": sum(step["seconds"] for step in chain),
        "chain": chain,
    }
    if pipeline in ("pruned", "fine_tune"):
        row |= {"pruned_top1": 40.0 + seed, "recalibrated_top1": 60.0 + 2 * seed}
    return row


def _result(step: Mapping[str, Any], point: Mapping[str, Any]) -> dict:
    settings: dict[str, Any] = {"arch": ARCH} if step["step"] == "classify" else {}
    if step["kind"] == "prune":
        selection = {"ratio": [point.get("prune.ratio", 0.5)], "level": "layer"}
        settings = {"method": METHODS[point["variant"]], "options": {}, "target": None, "selection": selection}
    return {
        "settings": settings,
        "metrics": {"test_top1": 90.0},
        "network": NETWORK,
        "versions": {"torch": "2.14.1"},
        "device": {"type": "cpu", "name": "Fabricated CPU", "threads": 1},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "seconds": 12.0,
        "train_macs": step["train_macs"],
    }


def _write_run(folder: Path, step: Mapping[str, Any], point: Mapping[str, Any]) -> None:
    """plan.json, weights, masks where single weights were removed, and the curve of a training."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    variant, ratio = point.get("variant"), point.get("prune.ratio", 0.5)
    dense = step["step"] == "classify"
    left = {name: max(1, round(width * (1 - ratio))) for name, width in LAYERS.items()}
    narrowed = {} if dense or variant == "weights" else LAYERS
    plan = {"format": 1, "arch": ARCH, "options": OPTIONS, "widths": narrowed}
    plan["keep"] = {name: list(range(left[name])) for name in narrowed}
    (folder / "plan.json").write_text(json.dumps(plan))
    state = dict(_weights())
    if variant == "weights" and not dense:
        generator = torch.Generator().manual_seed(len(str(step)))
        convs = [name for name, tensor in state.items() if tensor.dim() == 4]
        masks = Masks({name: torch.rand(state[name].shape, generator=generator) >= ratio for name in convs})
        state |= {name: state[name] * masks[name] for name in convs}
        (folder / "masks.safetensors").write_bytes(masks.to_bytes())
    save_file(state, folder / "weights.safetensors")
    if step["kind"] == "train_classifier":
        lines = [{"step": s, "loss": 2.3 / (1 + s / 100)} for s in range(10, 400, 10)]
        lines += [{"step": 400, "loss": 0.4, "val_accuracy": 90.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@cache
def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build(ARCH, CLASSES, OPTIONS).state_dict()
