"""One Slurm job a stage, through submitit: stopped, preempted and cancelled jobs go on where they were."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from submitit import SlurmExecutor

from pruning.errors import Failure, Refusal
from study.config.sections import Machine, Slurm
from study.run.executors.executor import Executor
from study.run.stage import run_stage
from study.stages.stage import Task, processes_of
from study.stages.store import RunDir
from training.device import set_threads
from training.files import read_json, write_json
from training.stopping import Stopped, stop_on_signals

_FOLDER = ".slurm"  # below the runs: the jobs' scripts and output
_SETTLE_POLLS = 2  # a file system shared by many machines shows a new file late
# of a job that is, or will be, at work
_ALIVE = set("PENDING RUNNING SUSPENDED COMPLETING CONFIGURING REQUEUED REQUEUE_HOLD RESIZING SIGNALING".split())


def check_cluster() -> None:
    """ValueError where no job could be given to a Slurm cluster."""
    missing = [name for name in ("sbatch", "squeue", "scontrol") if shutil.which(name) is None]
    reason = f"there is no {', '.join(missing)} here" if missing else ""
    try:
        if not missing:
            _queue()
    except Failure as error:
        reason = str(error)
    if reason:
        raise Refusal(
            f"machine.executor: slurm: {reason}; run this on a machine that gives jobs to a cluster, or set"
            " machine.executor: local"
        )


@contextmanager
def slurm(machine: Machine) -> Iterator[Executor]:
    """Jobs that are in the queue when the block ends stay there, whatever ends it: the next study takes them over."""
    jobs = _Jobs(machine.slurm)
    jobs.thread.start()
    try:
        yield Executor(machine.slurm.jobs, jobs.submit)
    finally:
        jobs.ended.set()
        jobs.thread.join()


@dataclass
class _Job:
    """A stage's job: its number, how often it was given one, and the polls since it was last seen in the queue.

    `saved`: the times of the checkpoints that were there when it was given its number.
    """

    task: Task
    future: Future[str]
    number: str
    saved: set[int]
    attempts: int = 0
    unseen: int = 0


class _Jobs:
    """Submits, and looks at the queue and at what is on the disk every few seconds."""

    def __init__(self, settings: Slurm):
        self.settings = settings
        self.jobs: list[_Job] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def submit(self, task: Task) -> Future[str]:
        """Give the stage to the queue, or take over the job that an earlier process gave it."""
        # a job runs elsewhere: nothing may depend on where this process is
        machine = task.machine.model_copy(update={"data_root": task.machine.data_root.resolve()})
        task = replace(task, runs=task.runs.resolve(), machine=machine)
        future: Future[str] = Future()
        saved = task.run.checkpoint_times()
        # A job that an earlier process gave and that is still in the queue is the stage's job: a second one would wait
        # for its lock. One that is not in the queue any more has ended without a result, or the stage would be done.
        try:
            number = _number_of(task.run)
            if number is None or number not in _queue():
                number = self._give(task)
        except Failure as error:  # other stages may still get in
            future.set_exception(error)
            return future
        self.jobs.append(_Job(task, future, number, saved))
        return future

    def _give(self, task: Task) -> str:
        # whatever failure is found from now on is this job's
        task.run.failure.unlink(missing_ok=True)
        folder = task.runs / _FOLDER
        if not str(folder).isprintable():  # the name stands in a line of the job's script; the next line is a command
            raise Failure(f"{str(folder)!r}: no job is given from a folder whose name has a control character")
        folder.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(folder)
        executor.update_parameters(**parameters(self.settings, task))
        try:
            number = executor.submit(_run, task).job_id
        except RuntimeError as error:  # the queue is full, say
            raise Failure(f"sbatch failed: {' '.join(str(error).split())}") from error
        # from now on another process can take the job over, and `prune-transfer runs list` shows it as queued
        write_json(task.run.job, {"job": number})
        return number

    def _watch(self) -> None:
        while not self.ended.wait(self.settings.poll_seconds):
            try:
                alive = _queue()
            except Failure:
                continue  # the controller does not answer; jobs run on without it
            # a copy: this is another thread than the one that submits, and jobs that end are removed
            for job in list(self.jobs):
                try:
                    self._look(job, alive)
                except Exception as error:  # of one job, a retry that the queue refused, say; the others go on
                    self._finish(job, error)

    def _look(self, job: _Job, alive: set[str]) -> None:
        # Files say more than the queue: a result counts while the job is still completing. A failure counts only once
        # the job has left, since one that is queued again removes it and goes on. Neither file nor job: that may be the
        # file system, which shows a file late, so it takes several looks in a row to call a job lost.
        run = job.task.run
        if run.done:
            self._finish(job, "")
        elif job.number in alive:
            job.unseen = 0
        elif run.failure.is_file():
            self._finish(job, Failure(read_json(run.failure)["error"]))
        elif (unseen := job.unseen + 1) < _SETTLE_POLLS:
            job.unseen = unseen
        else:
            self._again(job)

    def _again(self, job: _Job) -> None:
        """A job that was cancelled or killed: submit it again, unless that helped nothing several times."""
        saved = job.task.run.checkpoint_times()
        # a job that saved a checkpoint was preempted or ran out of time, and goes on; no count of retries bounds that
        job.attempts = 0 if saved - job.saved else job.attempts + 1
        if job.attempts > self.settings.retries:
            raise Failure(
                f"its jobs ended {job.attempts} times without a result, the last was {job.number}{_output_of(job)}"
            )
        job.unseen, job.saved = 0, saved
        job.number = self._give(job.task)

    def _finish(self, job: _Job, outcome: str | Exception) -> None:
        self.jobs.remove(job)
        job.task.run.job.unlink(missing_ok=True)  # or the next study would look for it in the queue
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)


def parameters(settings: Slurm, task: Task) -> dict[str, object]:
    """What submitit is told about a job."""
    wanted: dict[str, object] = {
        "job_name": f"{task.stage.kind}-{task.stage.hash}-seed{task.stage.seed}",
        "time": settings.time_minutes,
        "cpus_per_task": settings.cpus,
        "signal_delay_s": settings.signal_seconds,
        # a job that is preempted, or whose node fails, is put back by Slurm under the same number
        "additional_parameters": {"requeue": True, **settings.extra},
    }
    if settings.partition is not None:
        wanted["partition"] = settings.partition
    # a GPU for each process of a stage that runs in several
    if settings.gpus:
        processes = processes_of(task.stage, task.machine)
        wanted["gpus_per_node"] = processes if processes > 1 else settings.gpus
    if settings.memory_gb is not None:
        wanted["mem"] = f"{round(settings.memory_gb * 1024)}MB"
    return wanted


def _run(task: Task) -> str:
    """In the job. At the end of its time it queues itself again, and then goes on from its checkpoint."""
    set_threads(task.machine.threads, jobs=1)
    with stop_on_signals():  # instead of submitit's handlers, which cannot wait for the end of a step
        try:
            return run_stage(task)
        except Stopped as stopped:
            if stopped.is_time_limit:
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            raise


def _queue() -> set[str]:
    """The numbers of this user's jobs that are, or will be, at work; Failure if the cluster does not answer."""
    command = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise Failure(f"squeue failed: {' '.join(error.stderr.split())}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"squeue failed: {error}") from error
    # --states=all lists jobs that ended a short while ago as well, which are not alive
    return {number for number, state in map(str.split, found.splitlines()) if state in _ALIVE}


def _number_of(run: RunDir) -> str | None:
    with suppress(OSError, ValueError, KeyError):
        return str(read_json(run.job)["job"])
    return None


def _output_of(job: _Job) -> str:
    """The last line that the job wrote, which a job says that could not even begin."""
    with suppress(OSError):
        lines = (job.task.runs / _FOLDER / f"{job.number}_0_log.err").read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last}" if last else ""
    return ""
