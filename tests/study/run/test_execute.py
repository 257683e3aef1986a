"""Order, failures and what they block, retries: with stages that do nothing."""

import errno
import json
import multiprocessing
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from support.trivial_stages import Doing, run, stage

from pruning.errors import Failure
from study.config.sections import Machine
from study.run.executors.workers import visible_devices
from study.run.stage import StorageError, run_stage
from study.stages.stage import KINDS, Task
from training.stopping import Stopped, stop_on_signals


@pytest.fixture
def work(monkeypatch):
    """What a stage does, by its number; the numbers that ran are noted."""
    done: list[int] = []
    actions: dict = {}

    def act(context):
        number = context.stage.settings["number"]
        done.append(number)
        actions.get(number, lambda _: None)(context)
        (context.run.plan).write_text(f"number {number}")
        return {"metrics": {"number": float(number)}, "train_macs": 0}

    monkeypatch.setitem(KINDS, "prune", Doing("prune", act))
    return done, actions


def diamond():
    """0 -> 1, 2 -> 3, and 4 alone."""
    top = stage(0)
    left, right = stage(1, top), stage(2, top)
    return [top, left, right, stage(3, left, right), stage(4)]


def test_parents_come_first_and_finished_stages_are_left_alone(tmp_path, work):
    done, _ = work
    stages = diamond()
    outcome = run(stages, tmp_path)
    assert done == [0, 1, 2, 3, 4]
    assert outcome.complete and outcome.done == [s.id for s in stages]
    assert run(stages, tmp_path).complete
    assert done == [0, 1, 2, 3, 4]


def test_a_failure_blocks_what_is_behind_it_and_nothing_else(tmp_path, work, capsys):
    done, actions = work

    def fail(_):
        raise Failure("the moon\nis full")

    actions[1] = fail
    stages = diamond()
    outcome = run(stages, tmp_path)
    assert done == [0, 1, 2, 4]
    assert outcome.failed == {stages[1].id: "the moon is full"}
    assert outcome.blocked == {stages[3].id: f"needs {stages[1].id}"}
    shown = capsys.readouterr().out
    assert "FAILED number 1  the moon is full" in shown
    assert "Failure: the moon" in shown  # the end of its log
    failure = json.loads(stages[1].run(tmp_path).failure.read_text())
    assert failure["error"] == "the moon is full"
    del actions[1]
    assert run(stages, tmp_path).complete  # only what is not done
    assert done == [0, 1, 2, 4, 1, 3]
    assert not stages[1].run(tmp_path).failure.exists()


def test_a_parent_outside_of_the_study_must_be_there(tmp_path, work):
    parent = stage(0)
    child = stage(1, parent)
    assert run([child], tmp_path).blocked == {child.id: f"needs {parent.id}"}
    run([parent], tmp_path)
    assert run([child], tmp_path).complete


def test_a_tampered_result_is_named_and_kept_and_its_children_wait(tmp_path, work):
    _, actions = work
    actions[3] = lambda _: pytest.fail("ran on a tampered parent")
    stages = diamond()
    run(stages[:3], tmp_path)
    result = stages[1].run(tmp_path).result
    tampered = result.read_text().replace('"number": 1.0', '"number": 99.0')
    assert tampered != result.read_text()
    result.write_text(tampered)
    outcome = run(stages, tmp_path)
    assert "its content does not have its checksum" in outcome.failed[stages[1].id]
    assert str(result) in outcome.failed[stages[1].id]
    assert list(outcome.blocked) == [stages[3].id]
    assert result.read_text() == tampered


def test_a_full_disk_ends_the_study_with_a_sentence(tmp_path, work):
    done, actions = work

    def full(context):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(context.run.weights))

    actions[1] = full
    with pytest.raises(StorageError, match=r"weights.safetensors: No space left on device; nothing .* is lost"):
        run(diamond(), tmp_path)
    assert done == [0, 1]


def test_a_signal_ends_the_study_with_its_name(tmp_path, work):
    done, actions = work
    actions[1] = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    with stop_on_signals(), pytest.raises(Stopped, match="stopped by SIGTERM"):
        run(diamond(), tmp_path)
    assert done == [0, 1]
    assert "stopped by SIGTERM" in diamond()[1].run(tmp_path).log.read_text()


def test_a_result_says_when_it_was_made(tmp_path, work):
    before = datetime.now(UTC).replace(microsecond=0)
    target = stage(0)
    run_stage(Task(target, "number 0", tmp_path, Machine(threads=1)))
    result = target.run(tmp_path).read_result()
    started, finished = (datetime.fromisoformat(result[name]) for name in ("started", "finished"))
    assert before <= started <= finished <= datetime.now(UTC)
    assert started.utcoffset() == timedelta(0)


@pytest.mark.cpu_only
def test_the_lock_of_a_killed_process_is_free_and_that_of_a_live_one_is_waited_for(tmp_path, work):
    """flock belongs to the process: the system releases it with a SIGKILL."""
    done, actions = work
    target = stage(0)
    actions[0] = lambda _: signal.pause()  # until it is killed
    context = multiprocessing.get_context("fork")
    task = Task(target, "number 0", tmp_path, Machine(threads=1))
    killed = context.Process(target=run_stage, args=(task,))
    killed.start()
    log = target.run(tmp_path).log
    while not (log.exists() and "started by" in log.read_text()):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    actions[0] = lambda _: time.sleep(1)
    first = context.Process(target=run_stage, args=(task,))
    first.start()
    while log.read_text().count("started by") < 2:
        time.sleep(0.02)
    assert run_stage(task) == "done already"
    first.join()
    assert done == []  # both others ran it, not this process
    assert log.read_text().count("started by") == 3


@pytest.mark.cpu_only
def test_two_studies_at_once_run_each_shared_stage_once(tmp_path, work):
    stages = [stage(n) for n in range(6)]
    _, actions = work

    def count(context):
        time.sleep(0.05)
        with (tmp_path / "ran").open("a") as file:
            file.write(f"{context.stage.settings['number']}\n")

    actions.update(dict.fromkeys(range(6), count))
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=run, args=(order, tmp_path)) for order in (stages, stages[::-1])]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert sorted((tmp_path / "ran").read_text().split()) == list("012345")
    assert all(s.run(tmp_path).done for s in stages)


def test_gpus_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_devices() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("named", "there", "jobs", "expected"),
    [
        ("2,5", 8, 2, {"2", "5"}),
        (None, 3, 2, {"0", "1"}),
        (None, 2, 3, {"0", "1"}),  # more jobs than GPUs: the third shares
        ("7", 8, 2, {"7"}),
        (None, 0, 2, {"all"}),
    ],
)
def test_each_worker_sees_one_gpu(tmp_path, work, monkeypatch, named, there, jobs, expected):
    _, actions = work

    def note(context):
        time.sleep(0.2)
        with (tmp_path / "seen").open("a") as file:
            file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "all") + "\n")

    actions.update(dict.fromkeys(range(4), note))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    module_of_workers = sys.modules[visible_devices.__module__]  # a function of the package has its name
    fork = multiprocessing.get_context("fork")  # keeps the stages above
    monkeypatch.setattr(module_of_workers, "get_context", lambda _: fork)
    assert run([stage(n) for n in range(4)], tmp_path, jobs=jobs).complete
    seen = (tmp_path / "seen").read_text().split()
    assert len(seen) == 4 and set(seen) == expected


@pytest.mark.parametrize(("threads", "cores", "expected"), [(1, 8, 8), (0, 8, 8), (4, 8, 2), (3, 8, 2), (16, 8, 1)])
def test_automatic_jobs_fill_the_cores(threads, cores, expected, monkeypatch):
    monkeypatch.setattr("training.device.usable_cores", lambda: cores)
    monkeypatch.setattr("training.device.os.sysconf", lambda name: 2**20)  # memory enough
    assert Machine(jobs="auto", threads=threads, device="cpu").n_jobs == expected


def test_automatic_jobs_leave_each_its_memory_and_its_gpu(monkeypatch):
    monkeypatch.setattr("training.device.usable_cores", lambda: 8)
    monkeypatch.setattr("training.device.os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}.get)  # 4 GiB
    assert Machine(jobs="auto", threads=1, device="cpu").n_jobs == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert Machine(jobs="auto").n_jobs == 3
    assert Machine(jobs=5).n_jobs == 5
