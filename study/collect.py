"""Results on disk into the comparison: one row a route, one dictionary that every report is made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pruning.cost import measure_latency
from study.config import StudyConfig
from study.context import device_of
from study.pipelines import Route, grid_fields
from study.scores import TASKS, Task
from study.stages import Stage
from study.store import canonical, content_hash, read_json, write_json


def collect(
    config: StudyConfig, config_file: str, routes: Sequence[Route], runs: Path, why: Mapping[str, str]
) -> dict[str, Any]:
    """The content of comparison.json. `why`: sentences by stage id for what is not there."""
    finished = [r for r in routes if all(s.run(runs).done and s.id not in why for s in r.stages)]
    task = "detection" if config.detector else "classification"
    scores, device = TASKS[task], device_of(config.machine)
    file = runs / config.name / "latency.json"
    latency = _latencies(scores, finished, runs, config.evaluate.latency_rounds, file, device)
    users: dict[str, set[tuple[str, str]]] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, set()).add((route.pipeline, canonical(dict(route.point))))
    rows = [_row(scores, route, runs, latency, users) for route in finished]
    missing = [_missing(route, runs, why) for route in routes if route not in finished]
    stages = {s.id: s for route in finished for s in route.stages}
    first = next((r.evaluation.run(runs).read_result() for r in finished), None)
    return {
        "study": config.name,
        "task": task,
        "title": config.title or config.name,
        "config_file": config_file,
        "config": config.model_dump(mode="json", exclude_unset=True),
        "config_yaml": yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False),
        "seeds": list(config.seeds),
        "evaluation": scores.evaluation(config, first),
        "grid": grid_fields(config),
        "rows": rows,
        "missing": missing,
        "stages": {
            key: {"kind": s.kind, "step": _step_of(key, routes), "result": s.run(runs).read_result()}
            for key, s in stages.items()
        },
    }


def _row(
    scores: Task, route: Route, runs: Path, latency: Mapping[str, float], users: Mapping[str, set[tuple[str, str]]]
) -> dict[str, Any]:
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
        **scores.measures(route, runs),
        "latency_ms": latency[route.evaluation.id],
        "train_macs": sum(by_kind.values()),
        "train_macs_by_kind": {kind: macs for kind, macs in by_kind.items() if macs},
        "seconds": round(sum(step["seconds"] for step in chain), 1),
        "chain": chain,
    }


def _missing(route: Route, runs: Path, why: Mapping[str, str]) -> dict[str, Any]:
    lost = [s for s in route.stages if s.id in why or not s.run(runs).done]
    reason = next((f"{s.kind} failed: {why[s.id]}" for s in lost if s.id in why), f"{lost[0].id} has not run")
    return {"pipeline": route.pipeline, "seed": route.seed, "point": dict(route.point), "why": reason}


def _latencies(
    scores: Task, routes: Sequence[Route], runs: Path, rounds: int, file: Path, device: str
) -> dict[str, float]:
    """Median milliseconds of each route's whole network on one test-sized image, all measured in turn in one process.

    Measured once for a finished study: the numbers are kept beside the report.
    """
    wanted = sorted({r.evaluation.id for r in routes})
    key = content_hash([wanted, rounds, device])
    if file.is_file() and (kept := read_json(file))["key"] == key:
        return kept["latency_ms"]
    if not routes:
        return {}
    networks = {r.evaluation.id: scores.network(r, runs, device) for r in routes}
    measured = measure_latency(networks, scores.example(routes[0], runs).to(device), rounds=rounds)
    write_json(file, {"key": key, "device": device, "threads": torch.get_num_threads(), "latency_ms": measured})
    return measured


def _name(route: Route, stage: Stage) -> str:
    """The step of the route that made this stage; stages behind `shape` have none of their own."""
    return next((step for step, s in route.steps if s.id == stage.id), stage.kind)


def _step_of(key: str, routes: Sequence[Route]) -> str:
    return next((step for route in routes for step, s in route.steps if s.id == key), key.split("-")[0])
