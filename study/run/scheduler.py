"""Run a study's stages: finished ones skipped, unfinished ones resumed, independent ones side by side."""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from pathlib import Path

from study.config.sections import Machine
from study.plan.pace import Pace
from study.run.executors import open_executor
from study.run.monitor import Monitor
from study.run.precision import settle_here
from study.run.stage import StorageError, sentence
from study.stages.stage import Stage, Task
from study.stages.store import RunDir
from training.device import Precision
from training.stopping import Stopped


@dataclass
class Outcome:
    """What became of a study's stages; `failed` and `blocked` map a stage's id to a sentence."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.failed and not self.blocked

    def __add__(self, later: "Outcome") -> "Outcome":
        """Of a phase and a later one."""
        failed, blocked = {**self.failed, **later.failed}, {**self.blocked, **later.blocked}
        return Outcome([*self.done, *later.done], failed, blocked)


def run_stages(
    stages: Sequence[Stage],
    labels: dict[str, str],
    runs: Path,
    machine: Machine,
    precision: Precision | None = None,
    pace: Pace | None = None,
) -> Outcome:
    """Run every stage that is not done, parents first; a failure stops only what depends on it.

    `precision`: what `machine.precision` was settled to; None: that is done here, once for all stages. `pace` tells how
    long it all takes.

    Raises StorageError when results cannot be written any more, Stopped when a signal asks to end; the stages under
    way have then written their checkpoints.
    """
    queue = _Queue(stages, runs)
    precision = precision or settle_here(stages, runs, machine)
    tasks = {stage.id: Task(stage, labels[stage.id], runs, machine, precision) for stage in stages}
    left = partial(_left, pace, tasks, queue)
    with Monitor(len(stages), len(queue.outcome.done), left) as monitor, open_executor(machine) as executor:
        for key, why in queue.outcome.failed.items():
            monitor.say(f"FAILED {labels[key]}  {why}")
        running: dict[Future[str], Task] = {}
        while running or queue.ready:
            # no more than there are slots: who is submitted late is chosen late, the first in the study's order
            while queue.ready and len(running) < executor.slots:
                task = tasks[queue.take().id]
                monitor.start(task.label, task.run)
                running[executor.submit(task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                if pace is not None and future.exception() is None:
                    pace.learn(task.stage, monitor.seconds(task.run))
                _collect(future, task, queue, monitor)
    return queue.outcome


def _left(pace: Pace | None, tasks: dict[str, Task], queue: "_Queue", spent: Mapping[RunDir, float]) -> float | None:
    """Seconds until all stages are done that can be, of which those under way have had `spent`."""
    ended = {*queue.outcome.done, *queue.outcome.failed, *queue.outcome.blocked}
    open_stages = [task.stage for key, task in tasks.items() if key not in ended]
    return None if pace is None else pace.left(open_stages, sum(spent.values()))


class _Queue:
    """The stages that can run now, and what the end of each one means for the others."""

    # `stages` lists parents before children, so when a stage is looked at all its parents have been. A stage comes to
    # `ready` once: here, or when the last parent that it waits for is done.

    def __init__(self, stages: Sequence[Stage], runs: Path):
        self.outcome = Outcome()
        self.stages = stages
        self.ready: list[int] = []  # a heap of positions in `stages`: earlier ones first
        self._position = {stage.id: i for i, stage in enumerate(stages)}
        self._children: dict[str, list[int]] = {}
        self._missing: dict[int, int] = {}  # position -> parents that are not done
        for i, stage in enumerate(stages):
            if stage.run(runs).done:
                self._take_over(stage, runs)
                continue
            # a parent with a damaged result counts as missing: it is in `failed` and blocks what is behind it
            waits_for = {p.id for p in stage.parents if not p.run(runs).done or p.id in self.outcome.failed}
            for parent in waits_for:
                self._children.setdefault(parent, []).append(i)
            self._missing[i] = len(waits_for)
        self.ready = [i for i, missing in self._missing.items() if missing == 0]
        heapify(self.ready)
        # parents that failed already, or that are neither done nor among the stages to run
        for lost in {p for p in self._children if p in self.outcome.failed or p not in self._position}:
            self._block_behind(lost)

    def take(self) -> Stage:
        """The first of the stages that can run."""
        return self.stages[heappop(self.ready)]

    def done(self, stage: Stage) -> None:
        """Stages that waited only for this one can run."""
        self.outcome.done.append(stage.id)
        for child in self._children.get(stage.id, ()):
            self._missing[child] -= 1
            if self._missing[child] == 0:
                heappush(self.ready, child)

    def failed(self, stage: Stage, why: str) -> None:
        """Stages behind this one cannot run."""
        self.outcome.failed[stage.id] = why
        self._block_behind(stage.id)

    def _take_over(self, stage: Stage, runs: Path) -> None:
        """Count a stage as done that has a result, if that is as it was written."""
        try:
            stage.run(runs).read_result()
        except ValueError as error:
            # not run again by itself: someone changed a finished result, and should know it before it is gone
            self.outcome.failed[stage.id] = sentence(error)
        else:
            self.outcome.done.append(stage.id)

    def _block_behind(self, lost: str) -> None:
        # A child that waits for two lost stages is blocked by the first. Its count never reaches zero, since a stage
        # that failed or is blocked is never done.
        for child in self._children.get(lost, ()):
            key = self.stages[child].id
            if key not in self.outcome.blocked:
                self.outcome.blocked[key] = f"needs {lost}"
                self._block_behind(key)


def _collect(future: Future[str], task: Task, queue: _Queue, monitor: Monitor) -> None:
    error = future.exception()
    if error is None:
        queue.done(task.stage)
        monitor.finish(task.label, task.run, future.result())
        return
    # what ends one stage is its failure, a signal to its process included; an unwritable disk ends the study
    if isinstance(error, StorageError) or not isinstance(error, Exception | Stopped):
        raise error
    queue.failed(task.stage, sentence(error))
    monitor.fail(task.label, task.run, sentence(error))
