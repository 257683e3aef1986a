"""The rule of equal compute."""

import pytest

from pruning.targets import scratch_b_epochs


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
