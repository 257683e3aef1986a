"""What becomes of Slurm jobs, with a queue that the test writes: no cluster is needed."""

import time
from concurrent.futures import Future

import pytest
from support.trivial_stages import stage

from pruning.errors import Failure
from study.config.sections import Machine, Slurm
from study.run.executors import slurm
from study.run.stage import sentence
from study.stages.stage import Task
from training.files import write_json


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
    job = slurm._Job(task, future, "7", time.time())
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
