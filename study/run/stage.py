"""Run one stage in its directory: locked, logged, its result written last."""

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import perf_counter, time

import yaml

from pruning.errors import Diverged, Failure, Refusal
from study.run.log import log_into
from study.run.together import run_here, run_together
from study.stages.contents import check_unchanged
from study.stages.progress import Recorder
from study.stages.provenance import environment
from study.stages.stage import Task, device_of, processes_of
from study.stages.store import RunDir
from training.checkpoint import remove_checkpoints
from training.device import give_back_freed_memory
from training.distributed import world_size
from training.files import remove_partial, write_json, write_text
from training.locks import locked
from training.stopping import Stopped

_log = logging.getLogger(__name__)
# what no other stage on this disk would be spared
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class StorageError(Failure, OSError):
    """Results cannot be written: no stage can go on. What is on the disk is whole."""


def run_stage(task: Task) -> str:
    """Run one stage in its directory and write `result.json` last; returns one line about it.

    A lock keeps two processes out of one directory. Whoever comes second waits and finds the result. The system
    releases the lock of a process that dies. An error is left as a sentence in `failure.json`; StorageError stands
    for one that no stage on this disk could go on after.
    """
    run = task.run
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        with locked(run.lock), _logged(run):
            if run.done:  # only now: another process may have finished it while this one waited for the lock
                return "done already"
            # under the lock, so these are left by a process that died, not in use by one that runs
            remove_partial(run.path)
            run.failure.unlink(missing_ok=True)
            try:
                return _run(task)
            finally:
                give_back_freed_memory()
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        # seen here, where every write of a stage passes: a full disk would fail each of the others after its training
        raise StorageError(
            f"{error.filename or run.path}: {error.strerror}; nothing that was saved is lost: when it can be written"
            " again, run the same command to go on"
        ) from error


def _run(task: Task) -> str:
    run, stage = task.run, task.stage
    start, started = perf_counter(), datetime.now(UTC)
    config = {"kind": stage.kind, "seed": stage.seed, "parents": [p.id for p in stage.parents]}
    # result.json repeats it, so it need not outlive a power failure
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C where PyYAML has it: ten times as fast
    settings = yaml.dump({**config, "settings": _plain(stage.settings)}, Dumper=dumper, sort_keys=False)
    write_text(run.config, settings, flush=False)
    processes = processes_of(stage, task.machine)
    check_unchanged(stage, task.runs, task.machine)
    found = run_together(task, processes) if processes > 1 else run_here(task, Recorder(run, task.label))
    check_unchanged(stage, task.runs, task.machine)  # a data set that changed meanwhile makes no result
    # A resumed training reports the seconds of all its processes; this one's clock has only seen the last.
    training, metrics = found.pop("train_seconds", 0.0), found["metrics"]
    assert isinstance(training, int | float) and isinstance(metrics, Mapping)
    seconds = max(perf_counter() - start, training)
    # of the process that finished it
    times = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    about = {"seconds": round(seconds, 3), **times, **environment(device_of(task.machine))}
    if (processes := max(processes, world_size())) > 1:
        about["processes"] = processes
    # the mark of a finished run; what is only of use to an unfinished one goes after it, never before
    run.write_result({**config, "settings": _plain(stage.settings), **found, **about})
    remove_checkpoints(run.checkpoint)
    run.status.unlink(missing_ok=True)
    run.job.unlink(missing_ok=True)
    return "  ".join(f"{k} {v:.4g}" for k, v in list(metrics.items())[:3] if isinstance(v, float))


@contextmanager
def _logged(run: RunDir) -> Iterator[None]:
    """Send log records and the traceback of a failure to the run's log.txt, its sentence to failure.json."""
    with log_into(run):
        try:
            _log.info("started by process %d", os.getpid())
            yield
        except Exception as error:
            _log.exception("the stage failed")
            failure = {"error": sentence(error), "time": time(), "diverged": isinstance(error, Diverged)}
            with suppress(OSError):
                write_json(run.failure, failure)
            raise
        except Stopped as stopped:  # no failure: the run goes on from its checkpoint, and its state is "stopped"
            _log.info("%s", stopped)
            raise


def sentence(error: BaseException) -> str:
    """An error in one line; with its type where it is not meant for the user, and log.txt has its traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, Refusal | Failure | OSError | Stopped):
        return text
    return f"{type(error).__name__}: {text} (the traceback is in log.txt)" if text else type(error).__name__


def _plain(data: object) -> object:
    """Tuples as lists, mappings as dicts: what YAML and JSON can write safely."""
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data
