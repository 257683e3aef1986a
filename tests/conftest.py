"""One thread: the tests check numbers, and small tensors are faster so. The processor's answer, forced.

The tests compute on the CPU, so that they say the same on every machine. `make test-gpu` shows them the GPU: what is
left to the machine then runs there.
"""

import gc
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # before PyTorch looks for GPUs

import pytest
import torch
from support.pretended_clock import a_minute_a_step

from training.device import give_back_freed_memory

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Neither modules nor collected tests become garbage: looking for it among them takes a third of the start."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000)  # as a command has it (`study.run.launch`)


def pytest_runtest_setup(item):
    """What is about the CPU, or forks processes, which CUDA does not survive, has no place where a GPU is visible."""
    if torch.cuda.is_available() and item.get_closest_marker("cpu_only"):
        pytest.skip("for the CPU alone, and a GPU is visible")


@pytest.fixture(autouse=True, scope="module")
def small_process():
    """What the networks of one file have left free goes back before the next file's."""
    yield
    give_back_freed_memory()


@pytest.fixture(params=["float32", "bfloat16"])
def auto_is(request, monkeypatch):
    """What `precision: auto` comes to, as if that had been measured; forked processes find it too."""
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: {"float32": 0.5, "bfloat16": 2.0}[request.param])
    return request.param


@pytest.fixture
def minute_a_step():
    """`checkpoint_minutes` counts steps; forked processes find it too."""
    with a_minute_a_step():
        yield
