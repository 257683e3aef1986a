"""Operations and parameters that a tracer takes for elementwise: cut rightly, or said to be out of reach."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.comparing import largest_difference
from torch import nn

from pruning.graph.groups import find_groups
from pruning.plan import PruningPlan
from pruning.surgery import apply, mask


class Between(nn.Module):
    """A convolution of 8 channels, something, and a layer that reads it; input (N, 3, 4, 4)."""

    def __init__(self, between, reader, **layers):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.between = between
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.reader = reader

    def forward(self, x):
        return self.reader(self.between(self, self.first(x)))


class Scaled(nn.Module):
    """Factors that are neither `weight` nor `bias`, in the shape that an image needs."""

    def __init__(self, *shape, buffer=None):
        super().__init__()
        self.factors = nn.Parameter(torch.rand(shape) + 1)
        if buffer is not None:
            self.register_buffer("beside", torch.rand(buffer))

    def forward(self, x):
        return x * self.factors


class Standardised(nn.Conv2d):
    """Each filter is standardised over its inputs before use (Qiao et al., arXiv 1903.10520)."""

    def forward(self, x):
        w = self.weight
        return F.conv2d(x, (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True), self.bias)


class Padded(nn.Conv2d):
    """Pads by itself, as timm's TensorFlow ports do."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


def conv(width):
    return nn.Conv2d(width, 2, 1)


MIXING = {
    "glu": Between(lambda m, x: F.glu(x, 1), conv(4)),
    "pixel shuffle": Between(lambda m, x: F.pixel_shuffle(x, 2), conv(2)),
    "pixel unshuffle": Between(lambda m, x: F.pixel_unshuffle(x, 2), conv(32)),
    "channel shuffle": Between(lambda m, x: F.channel_shuffle(x, 2), conv(8)),
    "shuffle by views": Between(lambda m, x: x.view(-1, 2, 4, 4, 4).transpose(1, 2).reshape(-1, 8, 4, 4), conv(8)),
    "mean over channels": Between(lambda m, x: x - x.mean(1, keepdim=True), conv(8)),
    "maximum over channels": Between(lambda m, x: x * x.amax(1, keepdim=True), conv(8)),
    "softmax over channels": Between(lambda m, x: x.softmax(1), conv(8)),
    "norm over channels": Between(lambda m, x: F.normalize(x, dim=1), conv(8)),
    "response norm": Between(lambda m, x: F.local_response_norm(x, 3), conv(8)),
    "flipped": Between(lambda m, x: x + x.flip(1), conv(8)),
    "rolled": Between(lambda m, x: x.roll(1, 1), conv(8)),
    "flattened pixel by pixel": Between(lambda m, x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(128, 2)),
    "product of channels": Between(lambda m, x: (x.flatten(2) @ x.flatten(2).mT).flatten(1), nn.Linear(64, 2)),
    "chunk": Between(lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1), conv(8)),
    "split": Between(lambda m, x: x.split([3, 5], 1)[1], conv(5)),
    "sorted": Between(lambda m, x: x.sort(1).values, conv(8)),
    "repeated": Between(lambda m, x: x.repeat_interleave(2, 1), conv(16)),
    "permuted": Between(lambda m, x: x[:, [3, 1, 2, 0, 7, 6, 5, 4]], conv(8)),
    "pooled over channels": Between(lambda m, x: F.avg_pool3d(x.unsqueeze(1), (2, 1, 1)).squeeze(1), conv(4)),
    "attention": Between(
        lambda m, x: m.attend(*(3 * [x.flatten(2).transpose(1, 2)]))[0].transpose(1, 2).unflatten(2, (4, 4)),
        conv(8),
        attend=nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "recurrence": Between(
        lambda m, x: m.cell(x.flatten(2).transpose(1, 2))[0].mean(1),
        nn.Linear(5, 2),
        cell=nn.LSTM(8, 5, batch_first=True),
    ),
    "group norm": Between(lambda m, x: m.norm(x), conv(8), norm=nn.GroupNorm(4, 8)),
    "standardised reader": Between(lambda m, x: x, Standardised(8, 2, 1)),
    "parameter of pixels": Between(lambda m, x: m.scale(x), conv(8), scale=Scaled(1, 8, 4, 4)),
    "parameter along a row": Between(lambda m, x: F.interpolate(x, (4, 8)) * m.scale, conv(8)),
    "buffer beside a parameter": Between(lambda m, x: m.scale(x), conv(8), scale=Scaled(1, 8, 1, 1, buffer=8)),
    "weight norm": Between(lambda m, x: x, nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 2, 1))),
}
MIXING["width in a view"] = Between(lambda m, x: x.flatten(2).softmax(-1).view(-1, 8, 4, 4), conv(8))
MIXING["parameter along a row"].scale = nn.Parameter(torch.rand(8))

APART = {
    "parameter (1, C, 1, 1)": Between(lambda m, x: m.scale(x), conv(8), scale=Scaled(1, 8, 1, 1)),
    "parameter (C, 1, 1)": Between(lambda m, x: m.scale(x), conv(8), scale=Scaled(8, 1, 1)),
    "one factor for all": Between(lambda m, x: m.scale(x), conv(8), scale=Scaled(1)),
    "channels last": Between(lambda m, x: m.scale(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), conv(8), scale=Scaled(8)),
    "slopes by channel": Between(lambda m, x: m.act(x), conv(8), act=nn.PReLU(8)),
    "one slope": Between(lambda m, x: m.act(x), conv(8), act=nn.PReLU()),
    "flattened": Between(lambda m, x: x.flatten(1), nn.Linear(128, 2)),
    "pooled and flattened": Between(lambda m, x: F.adaptive_avg_pool2d(x, 2).flatten(1), nn.Linear(32, 2)),
    "softmax over pixels": Between(lambda m, x: x.flatten(2).softmax(-1).unflatten(2, (4, 4)), conv(8)),
    "own padding": Between(lambda m, x: x, Padded(8, 2, 3)),
    "pooled": Between(lambda m, x: F.max_pool2d(x, 2), conv(8)),
    "normalised over pixels": Between(lambda m, x: F.instance_norm(x), conv(8)),
    "twice": Between(lambda m, x: torch.cat([x, x], 1), conv(16)),
    "tokens": Between(lambda m, x: x.flatten(2).transpose(1, 2), nn.Linear(8, 2)),
    "resized": Between(lambda m, x: F.interpolate(x, scale_factor=2), conv(8)),
}


def group_of(model):
    model.eval()
    return {g.name: g for g in find_groups(model, torch.zeros(2, 3, 4, 4))}["first"]


@pytest.mark.parametrize("model", MIXING.values(), ids=MIXING)
def test_what_does_not_keep_channels_apart_is_said(model):
    assert group_of(model).fixed


@pytest.mark.parametrize("model", APART.values(), ids=APART)
def test_what_keeps_channels_apart_is_cut_rightly(model):
    group = group_of(model)
    assert group.fixed is None
    plan = PruningPlan("test", {}, {"first": (0, 2, 5)}, {"first": 8})
    x = torch.randn(2, 3, 4, 4)
    small = apply(model, plan, [group])
    assert largest_difference(mask(model, plan, [group]), small, x) < 1e-6
    assert len(small.first.weight) == 3


def test_reasons_name_the_layer_or_the_parameter():
    reasons = {name: group_of(model).fixed for name, model in MIXING.items()}
    assert reasons["softmax over channels"] == "its channels mix on their way to other layers: reader"
    assert reasons["standardised reader"].startswith("reader is a Standardised, which does not use each of its weights")
    assert reasons["parameter of pixels"].startswith("scale.factors is a parameter of shape (1, 8, 4, 4)")
    assert reasons["buffer beside a parameter"] == "scale.factors has beside beside it, in a Scaled"
    assert reasons["width in a view"].startswith("the network counts on their number: ")
    assert reasons["weight norm"] == "reader computes its weight from others"


def test_probing_changes_nothing():
    model = APART["parameter (1, C, 1, 1)"].train()
    before = copy.deepcopy(model.state_dict())
    find_groups(model, torch.zeros(2, 3, 4, 4))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_only_the_group_that_mixes_is_out_of_reach():
    body = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Softmax(1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
    )
    assert {g.name: bool(g.fixed) for g in find_groups(body, torch.zeros(1, 3, 4, 4))} == {
        "0": False,
        "2": True,
        "4": False,
    }


class Remembering(nn.Module):
    """Keeps what it computed in a plain attribute and in a dictionary, as timm's LeViT does."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.last, self.tables = None, {}

    def forward(self, x):
        self.last = self.tables["x"] = self.a(x)
        return self.b(self.last)


def test_tracing_leaves_nothing_behind_in_the_layers():
    model = Remembering()
    find_groups(model, torch.zeros(1, 3, 4, 4))
    assert model.last is None and model.tables == {}
    copy.deepcopy(model)


def test_our_own_faults_are_not_called_the_networks(monkeypatch):
    def broken(graph):
        raise AttributeError("no such thing")

    monkeypatch.setattr("pruning.graph.groups.coupled_channels", broken)
    with pytest.raises(AttributeError, match="no such thing"):
        find_groups(MIXING["glu"], torch.zeros(1, 3, 4, 4))
