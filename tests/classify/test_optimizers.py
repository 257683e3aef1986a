"""SGD of weights in channels-last is PyTorch's own, to the bit."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from classify.optimizers import fused_sgd

SHAPES = [(8, 6, 3, 3), (8, 6, 1, 1), (8,), (5, 7)]


def weights(memory_format):
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in SHAPES]
    return [nn.Parameter(v.to(memory_format=memory_format) if v.dim() == 4 else v) for v in values]


def step(optimizer, parameters, seed, *, without=()):
    torch.manual_seed(seed)
    for i, p in enumerate(parameters):
        grad = torch.randn(p.shape)
        p.grad = None if i in without else torch.empty_like(p).copy_(grad)
    optimizer.step()


@pytest.mark.parametrize(
    ("momentum", "options"),
    [(0.0, {}), (0.9, {}), (0.9, {"nesterov": True}), (0.9, {"weight_decay": 0.1}), (0.0, {"weight_decay": 0.1})],
)
def test_weights_in_channels_last_take_the_same_steps(momentum, options):
    theirs, ours = weights(torch.contiguous_format), weights(torch.channels_last)
    plain = SGD(theirs, 0.1, momentum, fused=True, **options)
    fused = fused_sgd(ours, 0.1, momentum, **options)
    for seed in range(4):
        step(plain, theirs, seed, without=[1] if seed == 2 else [])
        step(fused, ours, seed, without=[1] if seed == 2 else [])
    for p, expected in zip(ours, theirs, strict=True):
        assert (p.equal(expected) and p.dim() < 4) or p.is_contiguous(memory_format=torch.channels_last)
        assert not momentum or fused.state[p]["momentum_buffer"].equal(plain.state[expected]["momentum_buffer"])


def test_a_gradient_in_another_layout_is_the_same_gradient():
    ours, theirs = weights(torch.channels_last), weights(torch.contiguous_format)
    for parameters, optimizer in ((ours, fused_sgd(ours, 0.1, 0.9)), (theirs, SGD(theirs, 0.1, 0.9, fused=True))):
        for p in parameters:
            p.grad = torch.arange(p.numel(), dtype=torch.float32).view(p.shape)
        optimizer.step()
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_a_scaler_scales_its_gradients_and_skips_a_step_that_is_not_finite():
    ours = weights(torch.channels_last)
    optimizer, scaler = fused_sgd(ours, 0.1, 0.9), torch.amp.GradScaler("cpu", init_scale=8.0)
    before = [p.detach().clone() for p in ours]
    for value, moved in ((float("inf"), False), (1.0, True)):
        optimizer.zero_grad()
        scaler.scale(sum((p * value).sum() for p in ours)).backward()
        scaler.step(optimizer)
        scaler.update()
        for p, b in zip(ours, before, strict=True):
            torch.testing.assert_close(p, b - 0.1 if moved else b)
