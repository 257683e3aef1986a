"""The published L1 targets and the rule of equal compute. The numbers: Liu et al., ICLR 2019, released code."""

import pytest
import torch

from classify.models import arch, build, channel_groups
from pruning.cost import count_macs, count_params
from pruning.prune import prune
from pruning.targets import TARGETS, scratch_b_epochs

CIFAR = {
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
}
RESNET34 = (21_797_672, 3_663_761_408)

# target: params, MACs, Scratch-B epochs
L1 = {
    "resnet56-A": (773_336, 112_435_840, 178),
    "resnet56-B": (735_712, 90_907_264, 220),
    "resnet110-A": (1_688_522, 212_779_648, 190),
    "resnet110-B": (1_168_424, 155_124_352, 260),
    "resnet34-A": (20_151_764, 3_100_184_576, 106),
    "resnet34-B": (19_469_372, 2_782_269_440, 118),
}


def cost(model, side):
    return count_params(model), count_macs(model, torch.zeros(1, 3, side, side))


@pytest.mark.parametrize("name", CIFAR)
def test_dense_cifar_resnets(name):
    assert cost(build(name, 10), 32) == CIFAR[name]


def test_dense_resnet34():
    assert cost(build("resnet34", 1000), 224) == RESNET34


@pytest.mark.parametrize("name", L1)
def test_l1_targets(name):
    target = TARGETS[name]
    imagenet = target.input_size == 224
    model = build(target.arch, 1000 if imagenet else 10)
    example = torch.zeros(1, 3, 64 if imagenet else 32, 64 if imagenet else 32)
    groups = channel_groups(target.arch, model, example)
    pruned = prune(model, arch(target.arch), groups, "l1_filter", target.selection, batch=example, seed=0)
    params, macs = cost(pruned.model, target.input_size)
    dense_macs = (RESNET34 if imagenet else CIFAR[target.arch])[1]
    epochs = scratch_b_epochs(target.base_epochs, dense_macs, macs, cap=target.cap)
    assert (params, macs, epochs) == L1[name]


@pytest.mark.parametrize(
    ("base", "dense", "pruned", "cap", "epochs"),
    [
        (160, 100, 100, None, 160),
        (160, 3, 2, None, 240),
        (160, 100, 61, None, 262),  # 262.29...
        (160, 10, 1, None, 1600),
        (90, 10, 1, 2, 180),
        (90, 2, 1, 2, 180),
        (90, 199, 100, 2, 179),  # 179.1: below the cap
        (100, 3, 3, 2, 100),
        (49, 49, 49, None, 49),
    ],
)
def test_equal_compute_stretches_and_truncates_the_epochs(base, dense, pruned, cap, epochs):
    assert scratch_b_epochs(base, dense, pruned, cap=cap) == epochs


@pytest.mark.parametrize(("dense", "pruned"), [(100, 0), (100, 101), (0, 0), (-1, -2)])
def test_impossible_costs_are_refused(dense, pruned):
    with pytest.raises(ValueError, match=f"dense_macs={dense} must be at least pruned_macs={pruned}"):
        scratch_b_epochs(160, dense, pruned)
