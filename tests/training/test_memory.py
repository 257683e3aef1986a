"""Memory that a training freed is kept for its next step, and goes back to the system after it."""

from pathlib import Path

import pytest
import torch

from training.device import give_back_freed_memory, set_threads

STATM = Path("/proc/self/statm")  # pages; the second number is of those in memory
MEGABYTE = 2**18  # numbers in float32


def resident():
    return int(STATM.read_text().split()[1]) * 4096 / 2**20


@pytest.mark.cpu_only
@pytest.mark.skipif(not STATM.is_file(), reason="this system does not say how much memory a process holds")
def test_what_a_training_freed_goes_back_with_its_holes():
    set_threads(1, jobs=1)
    give_back_freed_memory()
    before = resident()
    blocks = [torch.ones(MEGABYTE) for _ in range(200)]
    few = blocks[::10]
    del blocks
    assert resident() > before + 150  # kept for the next step
    give_back_freed_memory()
    assert resident() < before + 60 and len(few) == 20
