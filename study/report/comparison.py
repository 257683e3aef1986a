"""Results on disk into the comparison: one row a route, all that a report is made from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pruning.cost import measure_latency
from pruning.plan import PruningPlan
from study.config.schema import StudyConfig
from study.plan.pipelines import Route, grid_fields
from study.report.provenance import precision_of
from study.report.rows import Comparison, Evaluation, Json, Measured, Missing, Row, StageResult, Step
from study.report.statistics.summary import summarize
from study.report.topic import topic_of
from study.stages.network import Network, load_model
from study.stages.stage import Stage, device_of
from training.files import canonical, content_hash, read_json, write_json


def summary(comparison: Comparison) -> list[str]:
    """One line a route: its mean score over the seeds, for the end of a log."""
    score = topic_of(comparison).primary.key
    found: dict[str, list[float | None]] = {}
    for row in comparison.rows:
        point = ", ".join(f"{k}={v}" for k, v in row.point.items())
        name = f"{row.pipeline}{f' ({point})' if point else ''}"
        found.setdefault(name, []).append(row.number(score))
    means = {name: summarize(values) for name, values in found.items()}
    return [
        f"{name:40s} {score} {mean.mean:5.1f}  (n = {mean.n})" if mean else f"{name:40s} no {score}"
        for name, mean in means.items()
    ]


_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Reader:
    """How the results of a task are read.

    `measures(route, runs)`: quality and size, for one row. `evaluation(config, result)`: what was measured on what;
    `result` None: nothing is finished. `network(route, runs, device)` and `example(route, runs)`: what latency is
    measured of, a function of one image.
    """

    measures: Callable[[Route, Path], Measured]
    evaluation: Callable[[StudyConfig, Json | None], Evaluation]
    network: Callable[[Route, Path, str], nn.Module]
    example: Callable[[Route, Path], Tensor]


def _detector_measures(route: Route, runs: Path) -> Measured:
    result = route.evaluation.run(runs).read_result()
    costs = {**result["costs"], **_removed(route.evaluation, runs)}
    return Measured({name: result["metrics"][name] for name in _AP}, costs, result["per_class"])


def _detector_evaluation(config: StudyConfig, first: Json | None) -> Evaluation:
    assert config.detector is not None
    name = config.detector.dataset.title
    if first is None:
        return Evaluation(name)
    height, width = first["evaluation"]["image_size"]
    return Evaluation(name, **{**first["evaluation"], "image_size": f"{width} x {height}"})


def _detector(route: Route, runs: Path, device: str) -> nn.Module:
    from study.stages.detector import load_detector  # Detectron2, which classification works without

    classes = len(route.evaluation.run(runs).read_result()["per_class"])
    _, detector, _ = load_detector(route.evaluation.parents[0], runs, classes, device=device)
    return _OneImage(detector.eval())


def _detector_example(route: Route, runs: Path) -> Tensor:
    size = route.evaluation.run(runs).read_result()["evaluation"]["image_size"]
    return torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(0)).float()


class _OneImage(nn.Module):
    """A detector as a function of one image (3, H, W)."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> Any:
        return self.detector([{"image": image}])


def _classifier_measures(route: Route, runs: Path) -> Measured:
    result = route.evaluation.run(runs).read_result()
    metrics, network = result["metrics"], result["network"]
    dense = _dense(route, result).costs()
    costs = {
        "params": network["params"],
        "macs": network["macs"],
        "dense_params": dense["params"],
        "dense_macs": dense["macs"],
        "epochs": result.get("epochs", 0),
        **_removed(route.evaluation, runs),
    }
    scores = {"top1": metrics["test_top1"], "top5": metrics["test_top5"], "val_top1": metrics["val_top1"]}
    return Measured(scores, costs, after_pruning=_after_pruning(route.evaluation, runs))


def _removed(stage: Stage, runs: Path) -> dict[str, float]:
    """What the last pruning of a route removed, in percent of what was asked."""
    pruning = [s for s in stage.with_ancestors() if s.kind in ("prune", "prune_detector")]
    found = pruning[-1].run(runs).read_result().get("achieved") if pruning else None
    if not found or not found["asked"]:
        return {}
    return {"removed_of_asked_percent": 100 * found["removed"] / found["asked"]}


def _after_pruning(stage: Stage, runs: Path) -> dict[str, float]:
    """Test accuracy right after the last pruning of trained weights, BatchNorm's statistics as they were and anew."""
    while stage.kind != "prune" and stage.parents:
        stage = stage.parents[0]
    metrics = stage.run(runs).read_result()["metrics"] if stage.kind == "prune" else {}
    if "recalibrated_top1" not in metrics:
        return {}
    return {"pruned_top1": metrics["test_top1"], "recalibrated_top1": metrics["recalibrated_top1"]}


def _classifier_evaluation(config: StudyConfig, first: Json | None) -> Evaluation:
    found = Evaluation(config.classifier.dataset.name, "test", "top-1 accuracy (%)")
    if first is None:
        return found
    side = first["network"]["image_size"]
    return replace(found, images=first["metrics"]["test_images"], image_size=f"{side} x {side}")


def _classifier(route: Route, runs: Path, device: str) -> nn.Module:
    return load_model(route.evaluation.run(runs)).to(device).eval()


def _classifier_example(route: Route, runs: Path) -> Tensor:
    return _dense(route, route.evaluation.run(runs).read_result()).example()


def _dense(route: Route, result: Json) -> Network:
    """The unpruned network of a route, from its result: a report needs no plan for it, which may be gone."""
    first = next(s.settings for s in reversed(route.evaluation.with_ancestors()) if "arch" in s.settings)
    found = result["network"]
    plan = PruningPlan(first["arch"], first["arch_options"])
    return Network(plan, found["num_classes"], found["image_size"], tuple(found["mean"]), tuple(found["std"]))


READERS: dict[str, Reader] = {
    "detection": Reader(_detector_measures, _detector_evaluation, _detector, _detector_example),
    "classification": Reader(_classifier_measures, _classifier_evaluation, _classifier, _classifier_example),
}


_SHOWN_GAPS = 3  # the others are counted


def collect(
    config: StudyConfig, config_file: str, routes: Sequence[Route], runs: Path, why: Mapping[str, str]
) -> Comparison:
    """What is on disk of these routes. `why`: sentences by stage id for what is not there."""
    stages = {s.id: s for route in routes for s in route.stages}
    why = {**_damaged(stages.values(), runs), **why}
    finished = [r for r in routes if all(s.run(runs).done and s.id not in why for s in r.stages)]
    task = "detection" if config.detector else "classification"
    reader, device = READERS[task], device_of(config.machine)
    file = runs / config.name / "latency.json"
    latency, gaps = _latencies(reader, finished, runs, config.evaluate.latency_rounds, file, device)
    users: dict[str, set[tuple[str, str]]] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, set()).add((route.pipeline, canonical(dict(route.point))))
    used = {s.id: s for route in finished for s in route.stages}
    results = {key: StageResult(s.kind, _step_of(s, routes), s.run(runs).read_result()) for key, s in used.items()}
    first = next((r.evaluation.run(runs).read_result() for r in finished), None)
    written = config.model_dump(mode="json", exclude_unset=True)
    return Comparison(
        study=config.name,
        task=task,
        title=config.title or config.name,
        config_file=config_file,
        config=written,
        config_yaml=yaml.safe_dump(written, sort_keys=False),
        seeds=tuple(config.seeds),
        evaluation=reader.evaluation(config, first),
        grid=grid_fields(config),
        rows=tuple(_row(reader, route, runs, latency, users, results) for route in finished),
        missing=tuple(_missing(route, runs, why) for route in routes if route not in finished),
        gaps=tuple(gaps),
        stages=results,
    )


def _damaged(stages: Iterable[Stage], runs: Path) -> dict[str, str]:
    """What is wrong with results that are there, by stage id."""
    found = {}
    for stage in stages:
        try:
            if stage.run(runs).done:
                stage.run(runs).read_result()
        except ValueError as error:
            found[stage.id] = str(error)
    return found


def _row(
    reader: Reader,
    route: Route,
    runs: Path,
    latency: Mapping[str, float],
    users: Mapping[str, set[tuple[str, str]]],
    results: Mapping[str, StageResult],
) -> Row:
    chain = tuple(
        Step(
            step=_step_of(stage, [route]),
            kind=stage.kind,
            run=stage.id,
            train_macs=results[stage.id].result["train_macs"],
            seconds=results[stage.id].result["seconds"],
            shared=len(users[stage.id]) > 1,
        )
        for stage in route.stages
    )
    return Row(
        pipeline=route.pipeline,
        point=dict(route.point),
        seed=route.seed,
        measured=reader.measures(route, runs),
        latency_ms=latency.get(route.evaluation.id),
        precision=precision_of(results[step.run] for step in chain),
        chain=chain,
    )


def _missing(route: Route, runs: Path, why: Mapping[str, str]) -> Missing:
    lost = [s for s in route.stages if s.id in why or not s.run(runs).done]
    reason = next((f"{s.kind} failed: {why[s.id]}" for s in lost if s.id in why), f"{lost[0].id} has not run")
    return Missing(route.pipeline, route.seed, dict(route.point), reason)


def _latencies(
    reader: Reader, routes: Sequence[Route], runs: Path, rounds: int, file: Path, device: str
) -> tuple[dict[str, float], list[str]]:
    """Median milliseconds of each route's whole network on one test-sized image, all measured in turn in one process.

    Measured once for a finished study: the numbers are kept beside the report. Nothing else in a report needs the
    networks themselves: a sentence for each one that is gone, and no number.
    """
    wanted = sorted({r.evaluation.id for r in routes})
    key = content_hash([wanted, rounds, device])
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent, damaged, or of another version
        kept = read_json(file)
        if kept["key"] == key:
            return dict(kept["latency_ms"]), []
    networks: dict[str, nn.Module] = {}
    gone: dict[str, str] = {}
    for route in routes:
        try:
            networks[route.evaluation.id] = reader.network(route, runs, device)
        except (ValueError, RuntimeError, OSError) as error:
            gone[route.evaluation.id] = f"No latency of {route.pipeline} (seed {route.seed}): {error}"
    gaps = [*gone.values()][:_SHOWN_GAPS]
    if len(gone) > _SHOWN_GAPS:
        gaps.append(f"No latency of {len(gone) - _SHOWN_GAPS} more networks, for such reasons.")
    if not networks:
        return {}, gaps
    measured = measure_latency(networks, reader.example(routes[0], runs).to(device), rounds=rounds)
    if not gone:
        write_json(file, {"key": key, "device": device, "threads": torch.get_num_threads(), "latency_ms": measured})
    return measured, gaps


def _step_of(stage: Stage, routes: Sequence[Route]) -> str:
    """The step that made this stage, in the first route that names it; stages behind `shape` have no name of theirs."""
    return next((step for route in routes for step, s in route.steps if s.id == stage.id), stage.kind)
