"""A study from its config to its report: what the launchers call."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from pruning.errors import Refusal
from study.config.schema import StudyConfig
from study.plan.checks import check_detection_data, check_writable
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.latency import plan_timing
from study.plan.pace import Pace, pace_of
from study.plan.pipelines import Route, all_stages, expand, labels
from study.plan.tune import StudyPlan, plan_study
from study.report.comparison import collect
from study.report.write import write_report
from study.run.executors import check_executor
from study.run.precision import settle_study
from study.run.scheduler import Outcome, run_stages
from study.stages.contents import Contents, check_there
from study.stages.progress import time_in_words
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.device import set_threads
from training.files import canonical, read_json, remove_partial, write_json
from training.locks import locked

FOLDER = "tensorboard"


def name_runs(out: Path, stages: Sequence[Stage], labels: dict[str, str], runs: Path) -> None:
    """Make `out/tensorboard/<label>` for every stage that trains; where labels are equal the hash tells them apart."""
    trained = [stage for stage in stages if stage.kind.startswith("train_")]
    names = {stage.id: re.sub(r"[^\w.,=+-]+", "_", labels[stage.id]).strip("_") for stage in trained}
    count = Counter(names.values())
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for stage in trained:
        name = names[stage.id]
        # a hash is the same for all seeds, but a label names the seed, so name and hash together are unique
        link = folder / (name if count[name] == 1 else f"{name}-{stage.hash}")
        # relative, so that the folder of runs can be moved or mounted elsewhere as a whole
        target = os.path.relpath(stage.run(runs).path, folder)
        if not link.is_symlink():
            link.symlink_to(target)


STUDY_FILE = "study.json"
_PEEK_SECONDS = 1.0  # far longer than who looks whether a lock is held holds it


def run_study(
    config: StudyConfig,
    config_file: Path,
    routes: Sequence[Route],
    runs: Path,
    contents: Contents | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Path, Outcome]:
    """Run what is not done, then write the report; returns the study's directory and what became of the stages.

    `contents`: with which the routes were made; `overrides`: with which the config was read.
    """
    out = runs / config.name
    check_executor(config.machine)
    check_there(all_stages(routes))
    check_writable(runs)
    if contents is None:
        contents = Contents(runs)
        expand(config, source=str(config_file), contents=contents)
    plan = plan_study(config, routes, source=str(config_file), contents=contents)
    with _seen_at_work(out):
        return out, _run_study(config, config_file, plan, runs, overrides)


def _run_study(
    config: StudyConfig, config_file: Path, plan: StudyPlan, runs: Path, overrides: Sequence[str]
) -> Outcome:
    out = runs / config.name
    # rates change no network and no cost
    estimator = Estimator(runs, config.machine)
    foresee(all_stages(plan.recipe), estimator, config_file, overrides)
    check_detection_data(all_stages([*plan.tried, *plan.recipe]), runs)
    study = {
        "config": config.model_dump(mode="json", exclude_unset=True),
        "config_file": str(config_file),
        "overrides": list(overrides),
        "contents": plan.contents.known,
    }
    # Two processes may run one study: both come through here, one after the other, and then share its stages, which
    # have locks of their own.
    with _alone_in(out):
        write_json(out / STUDY_FILE, study)
    tuning = _choose_rates(config, plan, estimator)
    # what the first phase left on the disk decides, whoever ran it
    routes = plan.routes(plan.decide(runs))
    outcome = tuning + _run_routes(config, routes, estimator)
    outcome += _time_networks(config, routes, runs)
    set_threads(config.machine.threads, jobs=1)
    report(config, str(config_file), plan, runs, {**outcome.failed, **outcome.blocked})
    return outcome


def _choose_rates(config: StudyConfig, plan: StudyPlan, estimator: Estimator) -> Outcome:
    """The first phase, if there is one: what it leaves is read from its results.

    A training that diverged is an answer about its rates, and neither tried again nor a failure of the study.
    """
    runs = estimator.runs
    left = [route for decision in plan.decide(runs) for c in decision.open for route in c.routes]
    if not left:
        return Outcome()
    outcome = _run_routes(config, left, estimator, "choosing rates: ")
    # a failure counts only if a choice still waits for it: a candidate that diverged has its answer
    still = [route for decision in plan.decide(runs) for c in decision.open for route in c.routes]
    lost = {stage.id for stage in all_stages(still)}
    failed, blocked = ({k: why for k, why in found.items() if k in lost} for found in (outcome.failed, outcome.blocked))
    return Outcome(outcome.done, failed, blocked)


def _run_routes(config: StudyConfig, routes: Sequence[Route], estimator: Estimator, phase: str = "") -> Outcome:
    runs = estimator.runs
    out, stages, names = runs / config.name, all_stages(routes), labels(routes)
    with _alone_in(out):
        name_runs(out, stages, names, runs)
        precision = settle_study(stages, runs, config.machine, RunDir(out).precision)
    pace = pace_of(stages, estimator)
    print(f"{config.name}: {phase}{_opening(routes, stages, pace, runs)}", flush=True)
    return run_stages(stages, names, runs, config.machine, precision, pace)


def _time_networks(config: StudyConfig, routes: Sequence[Route], runs: Path) -> Outcome:
    """The last phase: what was trained is timed when nothing else of the study is at work, whatever `machine.jobs`."""
    study = RunDir(runs / config.name)
    timing = plan_timing(config, routes, study)
    if timing is None:
        return Outcome()
    with _alone_in(study.path):
        timing.write(study)
    # one at a time, in this process or in one job: what runs beside it would be in the times
    machine = config.machine.model_copy(update={"jobs": 1})
    return run_stages([timing.stage], {timing.stage.id: timing.label}, runs, machine)


def _opening(routes: Sequence[Route], stages: Sequence[Stage], pace: Pace, runs: Path) -> str:
    """What lies ahead: "5 routes of 2 seeds, 40 stages, 10 of them done, about 3 min left"."""
    left = [stage for stage in stages if not stage.run(runs).done]
    names = len({(route.pipeline, canonical(dict(route.point))) for route in routes})
    seeds = len({route.seed for route in routes})
    done = f", {len(stages) - len(left)} of them done" if len(left) < len(stages) else ""
    time = f", about {time_in_words(pace.left(left))} left" if left else ""
    return f"{names} routes, {seeds} seed{'' if seeds == 1 else 's'}, {len(stages)} stages{done}{time}"


def report(
    config: StudyConfig,
    config_file: str,
    plan: StudyPlan,
    runs: Path,
    why: dict[str, str] | None = None,
    paper: Path | None = None,
) -> Path:
    """Write the report from what is on disk, and into `paper` what a paper needs of it."""
    out, decisions = runs / config.name, plan.decide(runs)
    with _alone_in(out):
        comparison = collect(config, config_file, plan.routes(decisions), runs, why or {}, decisions)
        overrides = read_json(out / STUDY_FILE).get("overrides", ())  # versions of before kept none
        comparison = replace(comparison, overrides=tuple(overrides))
        return write_report(comparison, runs, out, paper)


def report_again(out: Path, paper: Path | None = None) -> Path:
    """Rebuild the report of a study's directory, with what a paper needs in `paper`; ValueError if it is none."""
    config, config_file, plan = load_written_study(out)
    return report(config, config_file, plan, out.parent, paper=paper)


def load_written_study(out: Path) -> tuple[StudyConfig, str, StudyPlan]:
    """The config of a study's directory, the file it came from, and its plan; ValueError if it is none."""
    if not (out / STUDY_FILE).is_file():
        raise Refusal(f"{out}: not the directory of a study (it has no {STUDY_FILE})")
    data = read_json(out / STUDY_FILE)
    config, source = StudyConfig.model_validate(data["config"]), data["config_file"]
    contents = Contents(out.parent, known=data.get("contents", {}))  # as it was: the files may be gone
    recipe = expand(config, source=source, contents=contents)
    return config, source, plan_study(config, recipe, source=source, contents=contents)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Within the block no other process writes in the study's directory; what one left half-written is removed."""
    out.mkdir(parents=True, exist_ok=True)
    with locked(RunDir(out).lock):
        remove_partial(out)
        yield


@contextmanager
def _seen_at_work(out: Path) -> Iterator[None]:
    """Within the block whoever watches the study sees that it runs, between two stages as well.

    Of two processes that run one study the first is seen.
    """
    # A lock of its own: the other one is held for moments, and this one as long as the process lives, however it ends.
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(RunDir(out).at_work)
    # a second process that runs the study goes on without this lock: stages have their own
    with suppress(Timeout):
        lock.acquire(timeout=_PEEK_SECONDS)
    try:
        yield
    finally:
        # of a lock that another process has, this does nothing
        lock.release()
