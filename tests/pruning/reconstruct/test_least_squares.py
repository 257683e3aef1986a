"""Least squares from sums, against the direct computation on the samples themselves."""

import pytest
import torch

from pruning.reconstruct import least_squares
from pruning.reconstruct.least_squares import ChannelSums, PatchSums, channel_factors, make_sums, ridge_solve


def a_layer(samples=60, channels=4, size=3, outputs=5):
    generator = torch.Generator().manual_seed(0)
    shapes = (outputs, channels, size), (samples, channels, size), (samples, outputs)
    return [torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.3 for shape in shapes]


@pytest.mark.parametrize("kind", [PatchSums, ChannelSums])
def test_contributions_of_two_channels_by_hand(kind):
    """One output, one weight a channel: x = (1*2, 3*1) and (2*2, 0*1), targets 5 + 1 and 4 + 0."""
    sums = kind(torch.tensor([[[2.0], [1.0]]]), torch.ones(1))
    sums.add(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[1.0]]))
    sums.add(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[0.0]]))
    gram, target = sums.contributions()
    assert gram.tolist() == [[20.0, 6.0], [6.0, 9.0]]  # 2*2 + 4*4, 2*3 + 4*0, 3*3
    assert target.tolist() == [28.0, 18.0]  # 2*6 + 4*4, 3*6 + 0*4
    assert sums.samples == 2


@pytest.mark.parametrize("kind", [PatchSums, ChannelSums])
def test_contributions_over_all_outputs(kind, monkeypatch):
    monkeypatch.setattr(least_squares, "_CHUNK", 70)  # several chunks of channels, and of outputs
    slices, patches, error = a_layer()
    importance = torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    sums = kind(slices, importance)
    sums.add(patches[:25], error[:25])
    sums.add(patches[25:], error[25:])
    x = torch.einsum("sck,ock->soc", patches, slices)
    wanted = (x.sum(2) + error) * importance
    x = (x * importance[:, None]).flatten(0, 1)
    gram, target = sums.contributions()
    torch.testing.assert_close(gram, x.T @ x)
    torch.testing.assert_close(target, x.T @ wanted.flatten())


def test_refit_is_the_least_squares_solution():
    slices, patches, error = a_layer()
    sums = PatchSums(slices, torch.ones(5))
    sums.add(patches, error)
    refitted = sums.refit((0, 2, 3), ridge=0.0)
    target = torch.einsum("sck,ock->so", patches, slices) + error
    wanted = torch.linalg.lstsq(patches[:, [0, 2, 3]].flatten(1), target).solution
    torch.testing.assert_close(refitted[:, [0, 2, 3]].flatten(1), wanted.T, rtol=1e-5, atol=1e-6)
    assert not refitted[:, 1].any()


def test_a_large_ridge_keeps_the_kernel():
    slices, patches, error = a_layer()
    sums = PatchSums(slices, torch.ones(5))
    sums.add(patches, error)
    torch.testing.assert_close(sums.refit((0, 2, 3), ridge=1e9)[:, [0, 2, 3]], slices[:, [0, 2, 3]])


def test_channel_factors_are_the_least_squares_solution():
    slices, patches, error = a_layer()
    sums = ChannelSums(slices, torch.ones(5))
    sums.add(patches, error)
    x = torch.einsum("sck,ock->soc", patches, slices)
    wanted = torch.linalg.lstsq(x[..., [1, 3]].flatten(0, 1), (x.sum(2) + error).reshape(-1, 1)).solution[:, 0]
    factors = channel_factors(*sums.contributions(), (1, 3))
    torch.testing.assert_close(factors[[1, 3]], wanted, rtol=1e-5, atol=1e-6)
    assert factors[[0, 2]].tolist() == [0.0, 0.0]
    refitted = sums.refit((1, 3), ridge=0.0)
    torch.testing.assert_close(refitted, slices * factors[:, None])


def test_very_many_inputs_are_summed_by_channel():
    """Patch sums would take the square of the columns: memory is bounded."""
    columns = least_squares.MOST_COLUMNS
    assert isinstance(make_sums(torch.zeros(1, columns, 1)), PatchSums)
    wide = make_sums(torch.zeros(1, 3, columns))
    assert isinstance(wide, ChannelSums) and wide.gram.numel() == 9


def test_inputs_that_are_always_zero_change_nothing():
    solution = ridge_solve(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64), 0.0)
    assert solution.tolist() == [[0.0], [0.0]]


def test_values_that_are_not_finite_are_refused():
    gram = torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="not finite"):
        ridge_solve(gram, torch.zeros(2, 1, dtype=torch.float64), 0.0)
