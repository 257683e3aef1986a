"""Activations are summed up as they come: beyond what may be held, eight times the images take no more memory."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import resource, sys
import torch
from classify.models import arch, build, channel_groups, example_input
from pruning.cut import prune
from pruning.reconstruct import passes
from pruning.select import Selection

passes.MOST_HELD = 0  # the images themselves are, 5.5 MB for each of the networks that are run on them
torch.set_num_threads(1)
torch.manual_seed(0)
model = build("resnet20", 10)
groups = channel_groups("resnet20", model)
batch = torch.randn(2, 3, 32, 32)

def peak(n_images):
    def calibration(network):
        network.eval()
        generator = torch.Generator().manual_seed(0)
        for _ in range(n_images // 16):
            yield network(torch.randn(16, 3, 32, 32, generator=generator)).square().mean()

    prune(model, arch("resnet20"), groups, sys.argv[1], Selection(0.5), batch=batch, seed=0, calibration=calibration)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(64)
print(peak(512) - few)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["thinet", "reconstruction", "taylor", "group_fisher"])
def test_peak_memory_does_not_grow_with_the_calibration_images(method):
    """One layer's activations of 512 images alone would be 512 * 16 * 32 * 32 * 4 bytes, 33 MB; all of them 385 MB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, method], cwd=ROOT, capture_output=True, text=True, timeout=900, check=True
    )
    kilobytes = int(done.stdout.split()[-1])
    assert kilobytes < 12_000
