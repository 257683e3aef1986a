"""Run stages: each in its directory, finished ones skipped, unfinished ones resumed, independent ones side by side."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from filelock import FileLock

from study.classifier_stages import run_train_classifier
from study.context import Context
from study.progress import Monitor, Recorder, Watched
from study.provenance import environment
from study.prune_stage import run_prune
from study.sections import Machine
from study.stages import Stage
from study.store import RunDir, write_json, write_text


def _train_detector(context: Context) -> dict[str, Any]:
    from study.detector_stages import run_train_detector  # Detectron2, which classification works without

    return run_train_detector(context)


def _prune_detector(context: Context) -> dict[str, Any]:
    from study.detector_stages import run_prune_detector

    return run_prune_detector(context)


def _evaluate(context: Context) -> dict[str, Any]:
    from study.detector_stages import run_evaluate

    return run_evaluate(context)


KINDS: dict[str, Callable[[Context], dict[str, Any]]] = {
    "train_classifier": run_train_classifier,
    "prune": run_prune,
    "train_detector": _train_detector,
    "prune_detector": _prune_detector,
    "evaluate": _evaluate,
}


@dataclass
class Outcome:
    """What became of a study's stages; `failed` and `blocked` map a stage's id to a sentence."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.failed and not self.blocked


def run_stages(stages: Sequence[Stage], labels: dict[str, str], runs: Path, machine: Machine) -> Outcome:
    """Run every stage that is not done, parents first; a failure stops only what depends on it."""
    outcome = Outcome(done=[s.id for s in stages if s.run(runs).done])
    waiting = [s for s in stages if s.id not in outcome.done]
    with Monitor(len(stages), len(outcome.done)) as monitor, _executor(machine) as submit:
        running: dict[Future[str], Stage] = {}
        while waiting or running:
            waiting = _settle(waiting, outcome)
            for stage in [s for s in waiting if _ready(s, outcome)][: machine.jobs - len(running)]:
                waiting.remove(stage)
                monitor.start(Watched(labels[stage.id], stage.run(runs)))
                running[submit(stage, labels[stage.id], runs, machine)] = stage
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                _collect(future, stage, outcome, monitor, Watched(labels[stage.id], stage.run(runs)))
    return outcome


def run_stage(stage: Stage, label: str, runs: Path, machine: Machine) -> str:
    """Run one stage in its directory and write `result.json` last; returns one line about it.

    A lock keeps two processes out of one directory. Whoever comes second finds the result.
    """
    run = stage.run(runs)
    run.path.mkdir(parents=True, exist_ok=True)
    with FileLock(run.lock), _logged(run):
        if run.done:
            return "done already"
        start = perf_counter()
        config = {"kind": stage.kind, "seed": stage.seed, "parents": [p.id for p in stage.parents]}
        write_text(run.config, yaml.safe_dump({**config, "settings": _plain(stage.settings)}, sort_keys=False))
        recorder = Recorder(run, label)
        try:
            found = KINDS[stage.kind](Context(stage, runs, machine, recorder))
        finally:
            recorder.close()
        # a resumed training reports the seconds of all its processes
        seconds = max(perf_counter() - start, found.pop("train_seconds", 0.0))
        result = {**config, "settings": _plain(stage.settings), **found, "seconds": round(seconds, 3), **environment()}
        write_json(run.result, result)
        run.checkpoint.unlink(missing_ok=True)
        run.status.unlink(missing_ok=True)
    return "  ".join(f"{k} {v:.4g}" for k, v in list(found["metrics"].items())[:3] if isinstance(v, float))


def set_threads(machine: Machine) -> None:
    """PyTorch's threads in this process: as asked, or the cores shared among the jobs."""
    torch.set_num_threads(machine.threads or max(1, (os.cpu_count() or 1) // machine.jobs))


@contextmanager
def _executor(machine: Machine) -> Iterator[Callable[..., Future[str]]]:
    """A function that runs a stage now in this process, or soon in a worker."""
    if machine.jobs == 1:
        set_threads(machine)
        yield _run_now
        return
    with ProcessPoolExecutor(
        machine.jobs, mp_context=get_context("spawn"), initializer=_prepare_worker, initargs=(machine,)
    ) as pool:
        try:
            yield lambda *arguments: pool.submit(run_stage, *arguments)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in (pool._processes or {}).values():
                process.terminate()
            raise


def _run_now(*arguments: Any) -> Future[str]:
    future: Future[str] = Future()
    try:
        future.set_result(run_stage(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _prepare_worker(machine: Machine) -> None:
    warnings.simplefilter("ignore")
    set_threads(machine)


def _ready(stage: Stage, outcome: Outcome) -> bool:
    return all(parent.id in outcome.done for parent in stage.parents)


def _settle(waiting: Sequence[Stage], outcome: Outcome) -> list[Stage]:
    """Mark the stages behind a failed one as blocked; returns those that still can run."""
    left = []
    for stage in waiting:
        lost = [p.id for p in stage.parents if p.id in outcome.failed or p.id in outcome.blocked]
        if lost:
            outcome.blocked[stage.id] = f"needs {lost[0]}"
        else:
            left.append(stage)
    return left


def _collect(future: Future[str], stage: Stage, outcome: Outcome, monitor: Monitor, watched: Watched) -> None:
    try:
        line = future.result()
    except BrokenProcessPool:
        raise RuntimeError("a worker process died (killed, or out of memory); run the same command to go on") from None
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        outcome.failed[stage.id] = sentence
        monitor.finish(watched, f"FAILED: {sentence} (log: {watched.run.log})")
        return
    outcome.done.append(stage.id)
    monitor.finish(watched, line)


@contextmanager
def _logged(run: RunDir) -> Iterator[None]:
    """Send log records and the traceback of a failure to the run's log.txt."""
    handler = logging.FileHandler(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    try:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield
    except Exception:
        logging.getLogger("study").exception("the stage failed")
        raise
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def _plain(data: Any) -> Any:
    """Tuples as lists, mappings as dicts: what YAML and JSON can write safely."""
    if isinstance(data, dict) or hasattr(data, "items"):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data
