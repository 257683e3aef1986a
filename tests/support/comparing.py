"""How far two networks' outputs are apart."""

import torch

from pruning.modes import evaluation_mode


def largest_difference(a, b, batch):
    """max |a(x) - b(x)| relative to max |a(x)|, in evaluation mode on `batch`; modes are restored."""
    with torch.no_grad(), evaluation_mode(a), evaluation_mode(b):
        expected = a(batch)
        return float((expected - b(batch)).abs().max() / expected.abs().max())
