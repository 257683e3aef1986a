"""What becomes of Slurm jobs, with a queue that the test writes: no cluster is needed."""

import os
from concurrent.futures import Future
from dataclasses import replace
from time import time_ns
from types import SimpleNamespace

import pytest
from submitit.slurm.slurm import _make_sbatch_string
from support.trivial_stages import stage

from pruning.errors import Failure
from study.config.sections import Machine, Slurm
from study.run.executors import slurm
from study.run.stage import sentence
from study.stages.stage import Task
from training.checkpoint import damaged_checkpoint
from training.files import write_json
from training.options import validated


@pytest.fixture
def task(tmp_path):
    found = Task(stage(0), "number 0", tmp_path, Machine())
    found.run.path.mkdir(parents=True)
    return found


class FullQueue:
    """In the place of submitit's executor: sbatch takes no job."""

    def __init__(self, folder):
        pass

    def update_parameters(self, **parameters):
        pass

    def submit(self, *work):
        raise RuntimeError("sbatch: error:\n  Job violates accounting policy")


def test_a_failure_is_told_as_the_job_wrote_it_and_once_it_left_the_queue(task):
    words = "ValueError: 3 is too many (the traceback is in log.txt)"
    write_json(task.run.failure, {"error": words})
    write_json(task.run.job, {"job": "7"})
    jobs, future = slurm._Jobs(Slurm()), Future()
    job = slurm._Job(task, future, "7", set())
    jobs.jobs.append(job)
    jobs._look(job, {"7"})
    assert not future.done()
    jobs._look(job, set())
    assert sentence(future.exception()) == words
    assert jobs.jobs == [] and not task.run.job.exists()


def test_a_queue_that_takes_no_job_is_one_sentence_of_the_stage(task, monkeypatch):
    monkeypatch.setattr(slurm, "SlurmExecutor", FullQueue)
    error = slurm._Jobs(Slurm()).submit(task).exception()
    assert isinstance(error, Failure)
    assert sentence(error) == "sbatch failed: sbatch: error: Job violates accounting policy"


def test_a_job_in_the_queue_is_taken_over_and_one_that_left_it_is_not(task, monkeypatch):
    monkeypatch.setattr(slurm, "SlurmExecutor", FullQueue)
    monkeypatch.setattr(slurm, "_queue", lambda: {"7"})
    write_json(task.run.job, {"job": "7"})
    jobs = slurm._Jobs(Slurm())
    assert not jobs.submit(task).done()
    assert [job.number for job in jobs.jobs] == ["7"]
    write_json(task.run.job, {"job": "6"})
    assert isinstance(jobs.submit(task).exception(), Failure)  # it wanted another job


EVIL = [
    "mine\ntouch evil",
    "mine\rtouch evil",
    "mine\x0btouch evil",
    "mine\x85touch evil",
    "mine\u2028touch",
    "a\x1b[2J",
]


@pytest.mark.parametrize("value", EVIL)
def test_a_control_character_in_an_option_of_a_job_is_refused_in_one_sentence(value):
    with pytest.raises(ValueError, match=r"^slurm\.partition: '.* does not fit; expected: name of") as refused:
        validated(Slurm, {"partition": value}, "slurm")
    assert str(refused.value).isprintable()
    for option in ("account", "qos", "comment"):
        with pytest.raises(ValueError, match=rf"^slurm\.extra: {option}: .* has a line break or another") as refused:
            validated(Slurm, {"extra": {option: value}}, "slurm")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("option", ["account=a\ntouch evil #", "qos\n", "a b", "Account", "-x", "", "x=1;touch"])
def test_what_is_no_option_of_sbatch_is_refused(option):
    with pytest.raises(ValueError, match=r"^slurm\.extra: .* is no long option of sbatch: lower-case"):
        validated(Slurm, {"extra": {option: "mine"}}, "slurm")


@pytest.mark.parametrize(
    "name", ["gpu;touch evil", "gpu long", "$(touch evil)", "gpu'", "gpu --wrap=x", "", "gpu,", "gpu\n"]
)
def test_a_partition_is_a_name(name):
    with pytest.raises(ValueError, match=r"^slurm\.partition: .* does not fit; expected: name of letters"):
        validated(Slurm, {"partition": name}, "slurm")
    assert Slurm(partition="gpu_a100,long-2.x").partition == "gpu_a100,long-2.x"


@pytest.mark.parametrize(
    "value", ["$(touch evil)", "`touch evil`", "x; touch evil", "it's; touch evil", "a\\", '" && x']
)
def test_options_stand_in_lines_of_their_own_before_the_command_of_a_job(task, tmp_path, value):
    settings = Slurm(partition="gpu", memory_gb=3.5, gpus=1, extra={"comment": value, "account": "mine", "nice": 5})
    script = _make_sbatch_string("COMMAND", tmp_path, **slurm.parameters(settings, task))
    options, command = script.split("\n# command\n")
    assert all(line.startswith("#") for line in options.splitlines() if line)
    assert sum(line.startswith("#SBATCH --comment=") for line in options.splitlines()) == 1
    assert command.count("\n") == 2 and "evil" not in command


def test_no_job_is_given_from_a_folder_with_a_line_break_in_its_name(task, monkeypatch):
    monkeypatch.setattr(slurm, "SlurmExecutor", FullQueue)
    elsewhere = replace(task, runs=task.runs / "a\ntouch evil")
    elsewhere.run.path.mkdir(parents=True)
    error = slurm._Jobs(Slurm()).submit(elsewhere).exception()
    assert isinstance(error, Failure)
    assert "a\\ntouch evil/.slurm': no job is given from a folder" in sentence(error)


class Queue(FullQueue):
    """It takes each job, under the next number."""

    given = 100

    def submit(self, *work):
        Queue.given += 1
        return SimpleNamespace(job_id=str(Queue.given))


def lose_job(jobs):
    """Two looks in which the only job is neither in the queue nor has left a file."""
    for _ in range(2):
        jobs._look(jobs.jobs[0], set())


@pytest.mark.parametrize("skew", [-86400, 0, 86400])  # seconds by which the disk's clock is ahead of ours
@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint_3.pt"])
def test_retries_are_counted_without_comparing_clocks(task, monkeypatch, skew, name):
    monkeypatch.setattr(slurm, "SlurmExecutor", Queue)
    now = time_ns() + skew * 10**9
    file = task.run.path / name

    def save(later):
        file.write_bytes(b"checkpoint")
        os.utime(file, ns=(now + later, now + later))

    save(0)  # by a job of an earlier study: no progress of this one
    jobs = slurm._Jobs(Slurm(retries=2))
    jobs.submit(task)
    (job,) = jobs.jobs
    lose_job(jobs)
    assert job.attempts == 1
    for k in range(5):  # preempted again and again
        save(10**9 * (k + 1))
        lose_job(jobs)
        assert job.attempts == 0
    for attempts in (1, 2):
        lose_job(jobs)
        assert job.attempts == attempts
    with pytest.raises(Failure, match="its jobs ended 3 times without a result"):
        lose_job(jobs)


def test_a_checkpoint_put_aside_is_no_progress(task, monkeypatch):
    monkeypatch.setattr(slurm, "SlurmExecutor", Queue)
    task.run.checkpoint.write_bytes(b"damaged")
    jobs = slurm._Jobs(Slurm())
    jobs.submit(task)
    task.run.checkpoint.replace(damaged_checkpoint(task.run.checkpoint))
    lose_job(jobs)
    assert jobs.jobs[0].attempts == 1
