"""Multiply-adds of a large input that is never computed."""

import pytest
import torch
from torch import nn

from pruning import cost
from pruning.cost import count_macs_by_shapes, count_macs_of_parts
from pruning.errors import Refusal

LARGE, SMALL = torch.zeros(1, 3, 40, 24), torch.zeros(1, 3, 8, 8)
PARTS = ["body", "head", ""]


class Two(nn.Module):
    """A body, and a head that is called twice."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, 4, 1, groups=2)

    def forward(self, x):
        return self.head(self.head(self.body(x)))


@pytest.fixture
def computed(monkeypatch):
    """The sides of the inputs that are computed."""
    sides = []
    whole = cost.count_macs_of_parts

    def noted(model, example, parts):
        sides.append(tuple(example.shape[2:]))
        return whole(model, example, parts)

    monkeypatch.setattr(cost, "count_macs_of_parts", noted)
    return sides


def test_parts_of_a_large_input_by_shapes_alone(computed):
    model = Two()
    found = count_macs_by_shapes(model, LARGE, SMALL, PARTS)
    body, head = 4 * 3 * 9 * 960, 2 * 4 * 2 * 960
    assert found == {"body": body, "head": head, "": body + head} == count_macs_of_parts(model, LARGE, PARTS)
    assert computed == [(8, 8)]
    assert model.training and not any(p.is_meta for p in model.parameters())


class Looks(Two):
    """Its forward pass asks for a value."""

    def forward(self, x):
        return super().forward(x) if float(x.sum()) == 0 else x


def test_what_shapes_do_not_tell_is_computed(computed):
    model = Looks()
    assert count_macs_by_shapes(model, LARGE, SMALL, PARTS) == count_macs_of_parts(model, LARGE, PARTS)
    assert computed == [(8, 8), (40, 24)]


def test_where_the_counters_differ_the_large_input_is_computed(computed, monkeypatch):
    monkeypatch.setattr(cost, "_macs_of_shapes", lambda blank, size, parts: dict.fromkeys(parts, 1))
    assert count_macs_by_shapes(Two(), LARGE, SMALL, PARTS) == count_macs_of_parts(Two(), LARGE, PARTS)
    assert computed == [(8, 8), (40, 24)]


def test_an_operator_without_a_formula_is_refused_as_ever():
    class Fourier(Two):
        def forward(self, x):
            return torch.fft.fft2(super().forward(x)).real

    with pytest.raises(Refusal, match="cannot count the multiply-adds of aten::fft_fft2 in Fourier"):
        count_macs_by_shapes(Fourier(), LARGE, SMALL, PARTS)
