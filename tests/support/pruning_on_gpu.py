"""Pruning, evaluation and calibration on the pretended GPU, as the tests there and their faults run them."""

import torch

import classify.evaluate
from classify.calibration import CalibrationImages
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.recalibrate import recalibrate
from pruning.select import Selection
from support.pretended_gpu import OnGpu, pretended_gpu
from support.processes_training import images
from support.small_networks import Plain, randomise

MEAN, STD = (0.5,) * 3, (0.25,) * 3
SEEN = CalibrationImages(images(18), MEAN, STD)


def network():
    torch.manual_seed(0)
    return randomise(Plain(3), torch.randn(12, 3, 8, 8))


def on_gpu(*tensors):
    return all(isinstance(tensor, OnGpu) for tensor in tensors)


def pruned_there(method, options=None):
    """What a method leaves of a network on the GPU, moved to the CPU; and of the same one on the CPU."""
    groups, batch = find_groups(network(), torch.zeros(1, 3, 8, 8)), SEEN.inputs(0, 4)

    def run(device):
        return prune(
            network().to(device), Arch("net", {}), groups, method, Selection(0.4), batch=batch.to(device), seed=0,
            options=options, calibration=SEEN.losses(8),
        )  # fmt: skip

    with pretended_gpu():
        there = run("cuda")
        assert on_gpu(*there.model.parameters(), *there.model.buffers(), *there.masks.values())
        here = there.cpu()
    tensors = [*here.model.parameters(), *here.model.buffers(), *here.masks.values()]
    assert not any(isinstance(tensor, OnGpu) for tensor in tensors)
    return here, run("cpu")


def scored_there():
    """Accuracy on the GPU, also with statistics that were estimated there, and the same on the CPU."""

    def run(device):
        model = network().to(device)
        scores = [classify.evaluate.evaluate_classifier(model, SEEN.images, mean=MEAN, std=STD)]
        recalibrate(model, (SEEN.inputs(i, i + 6).to(device) for i in (0, 6, 12)))
        assert device == "cpu" or on_gpu(*model.buffers())
        return [*scores, classify.evaluate.evaluate_classifier(model, SEEN.images, mean=MEAN, std=STD)]

    with pretended_gpu():
        there = run("cuda")
    assert not any(isinstance(scores.correct, OnGpu) for scores in there)
    return there, run("cpu")
