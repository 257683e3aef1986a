"""A study from its config to its report: what the launchers call."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from classify.atomic_file import remove_partial
from study.budget import Budget
from study.collect import collect
from study.config import StudyConfig
from study.data import open_detection
from study.execute import Outcome, run_stages, set_threads
from study.load import ConfigError, load_config
from study.pipelines import Route, expand
from study.report.write import write_report
from study.stages import Stage
from study.store import RunDir, canonical, read_json, write_json
from study.tensorboard_names import name_runs

STUDY_FILE = "study.json"
# what one GPU keeps up in mixed precision, for the dry run's estimate: large networks reach several times as much, a
# CIFAR network at batch 64 less
GPU_FLOPS = 10e12


def load_study(path: Path, overrides: Sequence[str] = ()) -> tuple[StudyConfig, list[Route]]:
    """The config and its routes; ConfigError in one sentence if anything does not fit."""
    config = load_config(StudyConfig, path, overrides)
    try:
        return config, expand(config, source=str(path))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def run_study(config: StudyConfig, config_file: Path, routes: Sequence[Route], runs: Path) -> tuple[Path, Outcome]:
    """Run what is not done, then write the report; returns the study's directory and what became of the stages."""
    out = runs / config.name
    check_writable(runs)
    with _seen_at_work(out):
        return out, _run_study(config, config_file, routes, runs)


def _run_study(config: StudyConfig, config_file: Path, routes: Sequence[Route], runs: Path) -> Outcome:
    stages, out = all_stages(routes), runs / config.name
    check_prunable(stages, Budget(runs, config.machine), config_file)
    check_detection_data(stages, runs)
    study = {"config": config.model_dump(mode="json", exclude_unset=True), "config_file": str(config_file)}
    names = labels(routes)
    with _alone_in(out):
        write_json(out / STUDY_FILE, study)
        name_runs(out, stages, names, runs)
    outcome = run_stages(stages, names, runs, config.machine)
    set_threads(config.machine.model_copy(update={"jobs": 1}))
    report(config, str(config_file), routes, runs, {**outcome.failed, **outcome.blocked})
    return outcome


def report(
    config: StudyConfig, config_file: str, routes: Sequence[Route], runs: Path, why: dict[str, str] | None = None
) -> Path:
    """Write comparison.csv, comparison.json, report.md and report.html from what is on disk."""
    out = runs / config.name
    with _alone_in(out):
        return write_report(collect(config, config_file, routes, runs, why or {}), runs, out)


def report_again(out: Path) -> Path:
    """Rebuild the report of a study's directory; ValueError if it is none."""
    config, config_file, routes = load_written_study(out)
    return report(config, config_file, routes, out.parent)


def load_written_study(out: Path) -> tuple[StudyConfig, str, list[Route]]:
    """The config of a study's directory, the file it came from, and its routes; ValueError if it is none."""
    if not (out / STUDY_FILE).is_file():
        raise ValueError(f"{out}: not the directory of a study (it has no {STUDY_FILE})")
    data = read_json(out / STUDY_FILE)
    config = StudyConfig.model_validate(data["config"])
    return config, data["config_file"], expand(config, source=data["config_file"])


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """No other process that runs this study writes in its directory meanwhile; nothing half-written is left there."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(RunDir(out).lock):
        remove_partial(out)
        yield


@contextmanager
def _seen_at_work(out: Path) -> Iterator[None]:
    """Whoever watches the study sees that it runs, between its stages too; of two processes that run it the first."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(RunDir(out).at_work)
    with suppress(Timeout):
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        lock.release()


def all_stages(routes: Sequence[Route]) -> list[Stage]:
    """Every stage once, parents first."""
    found: dict[str, Stage] = {}
    for route in routes:
        found |= {s.id: s for s in route.stages}
    return list(found.values())


def labels(routes: Sequence[Route], *, seeds: bool = True) -> dict[str, str]:
    """What a person calls a stage: the step, its seed, the variant if it is of one, and the routes that use it."""
    users: dict[str, list[Route]] = {}
    steps: dict[str, str] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, []).append(route)
            steps.setdefault(stage.id, next((n for n, s in route.steps if s.id == stage.id), stage.kind))
    names = {}
    for stage in all_stages(routes):
        pipelines = list(dict.fromkeys(route.pipeline for route in users[stage.id]))
        variants = {route.point.get("variant") for route in users[stage.id]}
        variant = next(iter(variants)) if len(variants) == 1 else None
        used = pipelines[0] if len(pipelines) == 1 else f"{len(pipelines)} routes"
        parts = [*([f"seed {stage.seed}"] if seeds else []), *([str(variant)] if variant else []), used]
        names[stage.id] = f"{steps[stage.id]} ({', '.join(parts)})"
    return names


def check_writable(runs: Path) -> None:
    """ValueError if run directories cannot be made there."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise ValueError(f"{runs}: cannot write run directories there: {error.strerror or error}") from error


def check_prunable(stages: Sequence[Stage], budget: Budget, source: Path) -> None:
    """Work out every network before any is trained, so that a ratio that empties a layer is refused at once."""
    for stage in stages:
        try:
            budget.network(stage)
        except ValueError as error:
            raise ConfigError(f"{source}: {stage.kind}: {error}") from error


def check_detection_data(stages: Sequence[Stage], runs: Path) -> None:
    """Read every detection data set that a stage still needs, each image once, before anything is trained."""
    needed: dict[str, set[str]] = {}  # splits by data set
    for stage in stages:
        if stage.kind in ("train_detector", "evaluate") and not stage.run(runs).done:
            split = "train" if stage.kind == "train_detector" else stage.settings["split"]
            needed.setdefault(canonical(dict(stage.settings["data"])), set()).add(split)
    for data, splits in needed.items():
        _check_splits(json.loads(data), splits, runs)


def _check_splits(data: dict[str, Any], splits: set[str], runs: Path) -> None:
    from detect.data import check_apart, check_dataset  # Detectron2, which classification works without

    train_first = sorted(splits, key="train".__ne__)
    checked = {split: check_dataset(open_detection(data, split, runs / "data")) for split in train_first}
    if "train" in checked and not data.get("allow_shared"):
        for split in train_first[1:]:
            check_apart(checked["train"], checked[split])


def print_plan(config: StudyConfig, routes: Sequence[Route], runs: Path, console: Console) -> None:
    """The dry run: every stage with what it costs, who shares it, and what is done."""
    budget = Budget(runs, config.machine)
    stages = all_stages(routes)
    names = labels(routes)
    users = Counter(s.id for route in routes for s in route.stages)
    table = Table(title=f"{config.name}: {len(routes)} routes, {len(stages)} stages")
    for heading, justify in (("stage", "left"), ("length", "right"), ("params", "right"), ("MACs", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("training MACs", "routes", "state"):
        table.add_column(heading, justify="right")
    total = left = 0
    for stage in stages:
        cost = budget.estimate(stage)
        done = stage.run(runs).done
        total += cost.train_macs
        left += 0 if done else cost.train_macs
        limit = "<= " if cost.at_most else ""
        cells = [f"{limit if value else ''}{value:,}" for value in (cost.params, cost.macs, cost.train_macs)]
        table.add_row(names[stage.id], cost.length, *cells, str(users[stage.id]), "done" if done else stage.id)
    console.print(table)
    each = sum(budget.estimate(s).train_macs for route in routes for s in route.stages)
    console.print(f"training MACs: {total:.4g}, of which {left:.4g} are left; {each:.4g} if nothing were shared")
    hours, speed = 2 * left / (GPU_FLOPS * 3600), f"{GPU_FLOPS / 1e12:g} TFLOP/s sustained"
    console.print(f"about {hours:.3g} GPU hours are left at {speed}, which is assumed, not measured")


def summary(comparison: dict[str, Any]) -> list[str]:
    """One line a route: its mean score over the seeds, for the end of a log."""
    score = "AP" if comparison["task"] == "detection" else "top1"
    means: dict[str, list[float]] = {}
    for row in comparison["rows"]:
        point = ", ".join(f"{k}={v}" for k, v in row["point"].items())
        means.setdefault(f"{row['pipeline']}{f' ({point})' if point else ''}", []).append(row[score])
    return [f"{name:40s} {score} {sum(v) / len(v):5.1f}  (n = {len(v)})" for name, v in means.items()]
