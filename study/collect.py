"""Results on disk into the comparison: one row a route, one dictionary that every report is made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pruning.cost import measure_latency
from study.config import StudyConfig
from study.context import device_of
from study.detector_stages import load_detector
from study.pipelines import Route
from study.stages import Stage
from study.store import canonical, content_hash, read_json, write_json

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def collect(
    config: StudyConfig, config_file: str, routes: Sequence[Route], runs: Path, why: Mapping[str, str]
) -> dict[str, Any]:
    """The content of comparison.json. `why`: sentences by stage id for what is not there."""
    finished = [r for r in routes if all(s.run(runs).done for s in r.stages)]
    device = device_of(config.machine)
    latency = _latencies(finished, runs, config.evaluate.latency_rounds, runs / config.name / "latency.json", device)
    users: dict[str, set[tuple[str, str]]] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, set()).add((route.pipeline, canonical(dict(route.point))))
    rows = [_row(route, runs, latency, users) for route in finished]
    missing = [_missing(route, runs, why) for route in routes if route not in finished]
    stages = {s.id: s for route in finished for s in route.stages}
    first = next((r.evaluation.run(runs).read_result() for r in finished), None)
    return {
        "study": config.name,
        "title": config.title or config.name,
        "config_file": config_file,
        "config": config.model_dump(mode="json", exclude_unset=True),
        "config_yaml": yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False),
        "seeds": list(config.seeds),
        "evaluation": _evaluation(config, first),
        "grid": config.grid,
        "rows": rows,
        "missing": missing,
        "stages": {
            key: {"kind": s.kind, "step": _step_of(key, routes), "result": s.run(runs).read_result()}
            for key, s in stages.items()
        },
    }


def _row(
    route: Route, runs: Path, latency: Mapping[str, float], users: Mapping[str, set[tuple[str, str]]]
) -> dict[str, Any]:
    result = route.evaluation.run(runs).read_result()
    chain: list[dict[str, Any]] = []
    by_kind: dict[str, int] = {}
    for stage in route.stages:
        found = stage.run(runs).read_result()
        by_kind[stage.kind] = by_kind.get(stage.kind, 0) + found["train_macs"]
        chain.append(
            {
                "step": _name(route, stage),
                "kind": stage.kind,
                "run": stage.id,
                "train_macs": found["train_macs"],
                "seconds": found["seconds"],
                "shared": len(users[stage.id]) > 1,
            }
        )
    return {
        "pipeline": route.pipeline,
        "point": dict(route.point),
        "seed": route.seed,
        **{name: result["metrics"][name] for name in _METRICS},
        "per_class": result["per_class"],
        **result["costs"],
        "latency_ms": latency[route.evaluation.id],
        "train_macs": sum(by_kind.values()),
        "train_macs_by_kind": {kind: macs for kind, macs in by_kind.items() if macs},
        "seconds": round(sum(step["seconds"] for step in chain), 1),
        "chain": chain,
    }


def _missing(route: Route, runs: Path, why: Mapping[str, str]) -> dict[str, Any]:
    unfinished = [s for s in route.stages if not s.run(runs).done]
    reason = next(
        (f"{s.kind} failed: {why[s.id]}" for s in unfinished if s.id in why), f"{unfinished[0].id} has not run"
    )
    return {"pipeline": route.pipeline, "seed": route.seed, "point": dict(route.point), "why": reason}


def _evaluation(config: StudyConfig, first: Mapping[str, Any] | None) -> dict[str, Any]:
    data = config.detector.dataset
    name = "digits" if data.digits else str(data.coco.test.annotations) if data.coco else ""
    if first is None:
        return {"dataset": name}
    height, width = first["evaluation"]["image_size"]
    return {"dataset": name, **first["evaluation"], "image_size": f"{width} x {height}"}


def _latencies(routes: Sequence[Route], runs: Path, rounds: int, file: Path, device: str) -> dict[str, float]:
    """Median milliseconds of the whole detector on one test-sized image, all routes measured in turn in one process.

    Measured once for a finished study: the numbers are kept beside the report.
    """
    wanted = sorted(r.evaluation.id for r in routes)
    key = content_hash([wanted, rounds, device])
    if file.is_file() and (kept := read_json(file))["key"] == key:
        return kept["latency_ms"]
    detectors: dict[str, torch.nn.Module] = {}
    example = None
    for route in routes:
        size = route.evaluation.run(runs).read_result()["evaluation"]["image_size"]
        parent = route.evaluation.parents[0]
        classes = len(route.evaluation.run(runs).read_result()["per_class"])
        _, detector, _ = load_detector(parent, runs, classes, device=device)
        detectors[route.evaluation.id] = _OneImage(detector.eval())
        generator = torch.Generator().manual_seed(0)
        example = torch.randint(256, (3, *size), generator=generator).float().to(device)
    if example is None:
        return {}
    measured = measure_latency(detectors, example, rounds=rounds)
    write_json(file, {"key": key, "device": device, "threads": torch.get_num_threads(), "latency_ms": measured})
    return measured


class _OneImage(torch.nn.Module):
    """A detector as a function of one image (3, H, W)."""

    def __init__(self, detector: torch.nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: torch.Tensor) -> Any:
        return self.detector([{"image": image}])


def _name(route: Route, stage: Stage) -> str:
    """The step of the route that made this stage; stages behind `shape` have none of their own."""
    return next((step for step, s in route.steps if s.id == stage.id), stage.kind)


def _step_of(key: str, routes: Sequence[Route]) -> str:
    return next((step for route in routes for step, s in route.steps if s.id == key), key.split("-")[0])
