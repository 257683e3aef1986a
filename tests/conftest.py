"""One thread: the tests check numbers, and small tensors are faster so. The processor's answer, forced."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(params=["float32", "bfloat16"])
def auto_is(request, monkeypatch):
    """What `precision: auto` comes to, as if that had been measured; forked processes find it too."""
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: {"float32": 0.5, "bfloat16": 2.0}[request.param])
    return request.param
