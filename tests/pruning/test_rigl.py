"""RigL against a numpy reimplementation that shares nothing with it, and the layers' shares against another formula."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pruning.masks import Masks
from pruning.methods import Request
from pruning.methods.rigl import RigLOptions, counts, densities, drop_and_grow, prune, training_effect
from pruning.select import Selection

LR, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3))


def request(ratio, **options):
    return Request([], Selection(ratio), RigLOptions(**options), seed=0)


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def by_numpy(weights, masks, grads_of, steps, *, every, alpha, end):
    """Weights and masks after each step of SGD with momentum and weight decay, one weight at a time."""
    weights = {name: np.where(masks[name], w, 0).astype(np.float64).ravel() for name, w in weights.items()}
    alive = {name: {int(i) for i in np.flatnonzero(mask)} for name, mask in masks.items()}
    momentum = {name: np.zeros(len(w)) for name, w in weights.items()}
    for t in range(steps):
        grads = grads_of(t)
        for name, w in weights.items():
            grad = grads[name].ravel()
            if t % every == 0 and t < end:
                n = int(len(alive[name]) * alpha / 2 * (1 + math.cos(math.pi * t / end)))
                dropped = sorted(alive[name], key=lambda i: abs(w[i]))[:n]
                stay = alive[name] - set(dropped)
                grown = sorted(set(range(len(w))) - stay, key=lambda i: -abs(grad[i]))[:n]
                for i in set(dropped) - set(grown):
                    w[i] = momentum[name][i] = 0
                for i in set(grown) - alive[name]:
                    w[i] = momentum[name][i] = 0
                alive[name] = stay | set(grown)
            else:
                for i in alive[name]:
                    momentum[name][i] = MOMENTUM * momentum[name][i] + grad[i] + DECAY * w[i]
                    w[i] -= LR * momentum[name][i]
        yield {n: w.copy() for n, w in weights.items()}, {n: sorted(found) for n, found in alive.items()}


@pytest.mark.parametrize("start", ["random", "magnitude"])
def test_training_is_that_of_a_reimplementation(start):
    model, steps = network(), 12
    effect = training_effect(model, request(0.6, every=2, alpha=0.5, end=0.75, start=start))
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    effect.plan_for(steps, optimizer)
    names = list(effect.masks())
    first = {name: mask.numpy().copy() for name, mask in effect.masks().items()}
    expected = by_numpy(
        {name: model.get_parameter(name).detach().numpy().copy() for name in names},
        first,
        lambda t: {name: grad.numpy() for name, grad in gradients(model, t).items()},
        steps,
        every=2,
        alpha=0.5,
        end=9,  # 0.75 of 12 steps
    )
    effect.at_start()
    for step, (weights, alive) in enumerate(expected):
        for name, grad in gradients(model, step).items():
            model.get_parameter(name).grad = grad
        effect.after_backward()
        optimizer.step()
        effect.after_step(LR)
        for name in names:
            mask, weight = effect.masks()[name].flatten(), model.get_parameter(name).detach().flatten()
            assert mask.nonzero().flatten().tolist() == alive[name], (step, name)
            assert np.allclose(weight.numpy(), weights[name], atol=1e-5), (step, name)
            assert int(mask.sum()) == int(first[name].sum())
    assert any((effect.masks()[name].numpy() != first[name]).any() for name in names)


def test_one_exchange_by_hand():
    """Of four weights half go, the smaller two; the larger gradients grow, among them one that was just dropped."""
    weight = torch.tensor([4.0, 1.0, -3.0, 0.5, 0.0, 0.0, 0.0])
    mask = torch.tensor([1, 1, 1, 1, 0, 0, 0]).bool()
    grad = torch.tensor([9.0, 5.0, 9.0, 0.1, 0.2, -7.0, 0.3])
    assert drop_and_grow(weight, grad, mask, 0.5).tolist() == [True, True, True, False, False, True, False]
    assert drop_and_grow(weight, grad, mask, 0.2).tolist() == mask.tolist()  # int(0.8) are none
    ties = drop_and_grow(torch.ones(4), torch.ones(4), torch.tensor([0, 1, 1, 1]).bool(), 0.4)
    assert ties.tolist() == [True, True, True, False]


def test_gradients_that_are_not_finite_change_no_mask():
    model = network()
    effect = training_effect(model, request(0.6, every=1, end=1.0))
    effect.plan_for(10)
    before = effect.masks()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    effect.after_backward()
    assert effect.masks() is before


def test_frozen_layers_keep_their_masks_and_no_parameter_steps():
    model = network()
    model[0].weight.requires_grad_(False)
    effect = training_effect(model, request(0.6, every=1, end=1.0))
    effect.plan_for(10)
    before = effect.masks()
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter) if parameter.requires_grad else None
    effect.after_backward()
    assert torch.equal(effect.masks()["0.weight"], before["0.weight"])
    assert not torch.equal(effect.masks()["2.weight"], before["2.weight"])
    assert all(parameter.grad is None for parameter in model.parameters())


SHAPES = {"stem": (16, 3, 3, 3), "wide": (64, 64, 3, 3), "point": (64, 16, 1, 1), "deep": (128, 128, 3, 3)}


def by_bisection(ratio, *, kernel):
    """min(1, e * raw) for the one e that leaves 1 - ratio of all weights."""
    sizes = {name: math.prod(shape) for name, shape in SHAPES.items()}
    used = {name: shape if kernel else shape[:2] for name, shape in SHAPES.items()}
    raw = {name: sum(shape) / math.prod(shape) for name, shape in used.items()}
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(min(1.0, middle * raw[name]) * sizes[name] for name in sizes)
        low, high = (middle, high) if kept < (1 - ratio) * sum(sizes.values()) else (low, middle)
    return {name: min(1.0, low * raw[name]) for name in sizes}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8, 0.9, 0.98])
@pytest.mark.parametrize("kernel", [False, True])
def test_erdos_renyi_shares_are_those_of_another_formula(ratio, kernel):
    shapes = {name: torch.Size(shape) for name, shape in SHAPES.items()}
    found = densities(shapes, ratio, kernel=kernel)
    assert found == pytest.approx(by_bisection(ratio, kernel=kernel), rel=1e-6)
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    shares = "erdos_renyi_kernel" if kernel else "erdos_renyi"
    kept = counts(weights, Selection(ratio), shares)
    total = sum(weight.numel() for weight in weights.values())
    assert sum(kept.values()) == total - int(total * ratio)
    assert all(abs(kept[name] - found[name] * weights[name].numel()) <= 1 for name in kept)


def test_layers_whose_share_would_be_above_one_are_dense():
    """Of half, the shares of the stem and the pointwise convolution would be above 1: they stay, the others make up."""
    shapes = {name: torch.Size(shape) for name, shape in SHAPES.items()}
    found = densities(shapes, 0.5, kernel=True)
    assert found["stem"] == found["point"] == 1
    assert found["deep"] < 0.5 < found["wide"] < 1
    assert densities(shapes, 0.0, kernel=True) == dict.fromkeys(SHAPES, 1.0)


def test_uniform_shares_may_be_given_by_layer():
    weights = {"a.weight": torch.zeros(10, 10, 1, 1), "b.weight": torch.zeros(4, 10, 1, 1)}
    assert counts(weights, Selection(0.8, layers={"b": 0.5}), "uniform") == {"a.weight": 20, "b.weight": 20}
    with pytest.raises(ValueError, match="shares by erdos_renyi follow from the layers' shapes; leave out `layers`"):
        counts(weights, Selection(0.8, layers={"b": 0.5}), "erdos_renyi")


def test_pruning_takes_the_masks_that_training_left():
    model = network()
    effect = training_effect(model, request(0.6))
    effect.at_start()
    left = Masks(dict(effect.masks()))
    chosen = prune(model, request(0.6, masks=left)).masks
    assert all(torch.equal(chosen[name], mask) for name, mask in left.items())
    with pytest.raises(ValueError, match="left fewer weights of"):
        prune(model, request(0.3, masks=left))


def test_the_first_masks_follow_from_the_seed():
    one, other = (
        training_effect(network(), Request([], Selection(0.6), RigLOptions(), seed)).masks() for seed in (0, 1)
    )
    again = training_effect(network(), Request([], Selection(0.6), RigLOptions(), 0)).masks()
    assert all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shares": "lamp"}, "shares 'lamp' are unknown; choices: uniform, erdos_renyi, erdos_renyi_kernel"),
        ({"start": "dense"}, "start 'dense' is unknown; choices: random, magnitude"),
        ({"every": 0}, "every=0 must be at least 1 step"),
        ({"alpha": 1.0}, "must be 0 < alpha < 1"),
        ({"end": 0.0}, "0 < end <= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RigLOptions(**options)
