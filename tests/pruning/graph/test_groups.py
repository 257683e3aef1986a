"""Channel groups: coupling, index maps, and why some cannot be narrowed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.small_networks import Plain, ThreeConvs, dense_network, residual_network
from torch import nn
from torchvision.models import SwinTransformer

from classify.models import build
from pruning.graph.coupling import Reached
from pruning.graph.dataflow import trace_flow
from pruning.graph.groups import find_groups
from pruning.graph.layers import is_depthwise
from pruning.graph.members import Member


def one_to_one(width, start=0):
    return tuple((start + c,) for c in range(width))


def by_name(model, *shape, **options):
    return {g.name: g for g in find_groups(model, torch.zeros(shape), **options)}


class Forward(nn.Module):
    """Layers by name and a forward function that uses them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.f = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.f(self, x)


def test_chain_has_one_group_a_layer_and_leaves_the_output_alone():
    groups = by_name(ThreeConvs(), 1, 1, 2, 2)
    assert list(groups) == ["conv1", "conv2"]
    assert groups["conv1"].members == (
        Member("conv1", "out", one_to_one(3)),
        Member("conv2", "in", one_to_one(3)),
    )
    assert [g.width for g in groups.values()] == [3, 2]
    assert all(g.inner and g.fixed is None and g.stage == -1 for g in groups.values())


def test_flattened_map_gives_each_channel_its_block_of_inputs():
    groups = by_name(Plain(), 1, 3, 8, 8)
    assert list(groups) == ["0", "4", "9"]
    assert groups["4"].members == (
        Member("4", "out", one_to_one(12)),
        Member("5", "out", one_to_one(12)),
        Member("9", "in", tuple(tuple(range(4 * c, 4 * c + 4)) for c in range(12))),
    )


def test_depthwise_convolution_is_carried_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    (group,) = find_groups(model, torch.zeros(1, 3, 4, 4))
    assert group.producers == ("0",)
    assert sorted((m.layer, m.side) for m in group.members) == [("0", "out"), ("1", "out"), ("2", "in")]
    assert all(m.positions == one_to_one(4) for m in group.members)


@pytest.mark.parametrize(
    ("layer", "depthwise"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=4), False),
        (nn.Conv2d(4, 4, 3, groups=2), False),
        (nn.Conv2d(1, 1, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_depthwise_is_recognised_by_its_widths(layer, depthwise):
    assert is_depthwise(layer) is depthwise


def test_sum_couples_its_producers():
    def forward(m, x):
        return m.head(m.a(x) + m.b(x))

    model = Forward(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1))
    (group,) = find_groups(model, torch.zeros(1, 3, 4, 4))
    assert group.name == "a" and group.producers == ("a", "b") and not group.inner
    assert {(m.layer, m.side) for m in group.members} == {("a", "out"), ("b", "out"), ("head", "in")}


def test_concatenation_offsets_the_second_input():
    def forward(m, x):
        return m.head(torch.cat([m.a(x), m.b(x)], 1))

    model = Forward(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 5, 1), head=nn.Conv2d(9, 2, 1))
    groups = by_name(model, 1, 3, 4, 4)
    assert groups["a"].members[-1] == Member("head", "in", one_to_one(4))
    assert groups["b"].members[-1] == Member("head", "in", one_to_one(5, start=4))


def test_dense_block_reads_each_layer_at_its_place():
    groups = by_name(dense_network(), 1, 3, 32, 32)
    reads = {m.layer: m.positions[0] for m in groups["features.denseblock1.denselayer1.conv2"].members}
    # the stem's 8 channels come first, then the 4 of the first layer
    assert reads["features.denseblock1.denselayer2.norm1"] == (8,)
    assert reads["features.transition1.conv"] == (8,)
    assert all(g.inner and g.fixed is None for g in groups.values())


def test_stages_are_those_of_the_first_producer():
    groups = by_name(residual_network(), 1, 3, 16, 16, stages=("layer1", "layer2", "layer3"))
    assert {name: g.stage for name, g in groups.items()} == {
        "conv1": -1,
        "layer1.0.conv1": 0,
        "layer2.0.conv1": 1,
        "layer3.0.conv1": 2,
    }


@pytest.mark.parametrize("shortcut", ["average", "stride"])
def test_padded_trunk_is_refused_with_its_reason(shortcut):
    model = build("cifar_resnet", 5, {"depth": 8, "width": 0.5, "shortcut": shortcut})
    groups = by_name(model, 1, 3, 16, 16)
    assert "a shortcut pads its channels with zeros" in groups["conv1"].fixed
    assert [name for name, g in groups.items() if g.fixed] == ["conv1"]


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (nn.Conv2d(4, 4, 1, groups=2), "1 is a grouped convolution"),
        (nn.Conv2d(4, 8, 1, groups=4), "1 is a grouped convolution"),
        (nn.GroupNorm(2, 4), "1 is a GroupNorm"),
        (nn.LayerNorm([4, 6, 6]), "1 is a LayerNorm"),
        (nn.LayerNorm(6), "1 is a LayerNorm"),
        (nn.InstanceNorm2d(4, affine=True), "1 is a InstanceNorm2d"),
        (nn.ConvTranspose2d(4, 4, 1), "1 is a ConvTranspose2d"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_layer_that_mixes_channels_is_refused_by_name(middle, reason):
    width = middle.out_channels if isinstance(middle, nn.Conv2d) else 4
    model = nn.Sequential(nn.Conv2d(3, 4, 1), middle, nn.Conv2d(width, 2, 1))
    assert by_name(model, 1, 3, 6, 6)["0"].fixed == reason


def test_channels_that_nothing_reads_are_fixed():
    def forward(m, x):
        return m.head(x) + m.side(x).mean()

    model = Forward(forward, side=nn.Conv2d(3, 4, 1), head=nn.Conv2d(3, 2, 1))
    assert all(g.fixed for g in find_groups(model, torch.zeros(1, 3, 4, 4)))


def test_slice_of_channels_is_refused():
    def forward(m, x):
        x = m.a(x)
        return m.head(x[:, :2]) + m.whole(x)

    model = Forward(forward, a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(2, 2, 1), whole=nn.Conv2d(4, 2, 1))
    assert by_name(model, 1, 3, 4, 4)["a"].fixed == "its channels are sliced apart"


@pytest.mark.parametrize(
    "model",
    [
        Forward(lambda m, x: m.a(x) if x.shape[2] == 99 else m.a(x).nonexistent, a=nn.Conv2d(3, 4, 1)),
        nn.Conv2d(5, 4, 1),
        Forward(lambda m, x: x * 2),
        Forward(lambda m, x: m.a(x).detach(), a=nn.Conv2d(3, 4, 1)),
        Forward(lambda m, x: {"out": [m.a(x).argmax(1)]}, a=nn.Conv2d(3, 4, 1)),
    ],
    ids=["fails", "other input", "no layers", "detached", "integers"],
)
def test_network_that_cannot_be_traced_is_one_sentence(model):
    with pytest.raises(ValueError, match=r"cannot be traced with an input of shape \(1, 3, 4, 4\)"):
        find_groups(model, torch.zeros(1, 3, 4, 4))


def test_tracing_restores_modes_and_frozen_parameters():
    model = Plain().train()
    model[5].eval()
    model[0].weight.requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    find_groups(model, torch.rand(1, 3, 8, 8))
    assert [m.training for m in model] == [i != 5 for i in range(12)]
    assert [p.requires_grad for p in model[0].parameters()] == [False, True]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


class Remembering(Plain):
    """Keeps what it sees in attributes that its constructor does not know."""

    def forward(self, x):
        self.last_input = self._last_input = x * 1
        return super().forward(x)


@pytest.mark.parametrize("trace", [lambda model: find_groups(model, torch.rand(1, 3, 8, 8)), trace_flow])
def test_tracing_leaves_nothing_in_the_network(trace):
    model = Remembering()
    before = set(vars(model))
    trace(model)
    assert set(vars(model)) == before
    copy.deepcopy(model)


def test_groups_of_a_fresh_instance_are_the_same():
    assert find_groups(dense_network(), torch.zeros(1, 3, 32, 32)) == find_groups(
        dense_network(), torch.ones(2, 3, 32, 32)
    )


def test_pooled_descriptor_that_gates_its_own_channels_follows_them():
    def forward(m, x):
        x = m.a(x)
        return m.head(x * m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))).sigmoid())

    layers = {"a": (3, 6), "down": (6, 2), "up": (2, 6), "head": (6, 2)}
    model = Forward(forward, **{name: nn.Conv2d(*widths, 1) for name, widths in layers.items()})
    groups = by_name(model, 1, 3, 4, 4)
    assert groups["a"].producers == ("a",) and groups["a"].inner
    assert Member("up", "out", one_to_one(6)) in groups["a"].members
    assert groups["down"].producers == ("down",)


@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("squeezenet1_0", 64), ("mobilenet_v3_small", 32)])
def test_walk_gives_the_groups_of_the_plain_library(name, side, monkeypatch):
    def all_groups(graph):
        for group in graph.get_all_groups():
            yield [Reached(i.dep.target, i.dep.handler, list(zip(i.idxs, i.root_idxs, strict=True))) for i in group]

    example = torch.zeros(1, 3, side, side)
    model = build(name, 5)
    groups = find_groups(model, example)
    monkeypatch.setattr("pruning.graph.groups.coupled_channels", all_groups)
    assert find_groups(model, example) == groups
    assert len(groups) > 10


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: torch.cat([x[:, 0::2], x[:, 1::2]], 1),
        lambda m, x: torch.cat([x[:, :2], x[:, 2:]], 1) + x,
        lambda m, x: torch.cat(x.chunk(2, 1), 1),
        lambda m, x: torch.cat(x.split([1, 3], 1), 1),
        lambda m, x: x[:, :2] * x[:, 2:].sigmoid(),
    ],
    ids=["shuffle", "swap", "chunk", "split", "gate"],
)
def test_channels_taken_by_number_are_refused(forward):
    model = Forward(lambda m, x: m.head(forward(m, m.a(x))), a=nn.Conv2d(3, 4, 1), head=nn.LazyConv2d(2, 1))
    model(torch.zeros(1, 3, 4, 4))
    assert by_name(model, 1, 3, 4, 4)["a"].fixed == "its channels are sliced apart"


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        # sums: a0 + b0, a1 + b1, a2 + a0, a3 + a1, b0 + a2, b1 + a3; so a0, a2 and b0 hang together
        (4, 2, "channels of a can only go several at a time"),
        # a0 + b0, a1 + b1, a2 + a0, b0 + a1, b1 + a2: all hang together
        (3, 2, "its channels mix on their way to other layers"),
    ],
)
def test_sum_with_shifted_channels_is_refused(a, b, reason):
    def forward(m, x):
        a, b = m.a(x), m.b(x)
        return m.head(torch.cat([a, b], 1) + torch.cat([b, a], 1))

    model = Forward(forward, a=nn.Conv2d(3, a, 1), b=nn.Conv2d(3, b, 1), head=nn.Conv2d(a + b, 2, 1))
    assert {g.fixed for g in find_groups(model, torch.zeros(1, 3, 4, 4))} == {reason}


def test_channels_that_mix_are_refused():
    """A linear layer's 8 outputs become 2 channels of 2x2 pixels."""
    model = Forward(
        lambda m, x: m.head(m.a(x.flatten(1)).reshape(-1, 2, 2, 2)), a=nn.Linear(12, 8), head=nn.Conv2d(2, 3, 1)
    )
    assert by_name(model, 1, 3, 2, 2)["a"].fixed == "its channels mix on their way to other layers"


def test_swin_transformer_ends_and_offers_its_hidden_layers():
    """Patch merging slices rows and columns of channels-last maps, which the graph takes for channels."""
    model = SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=5)
    groups = find_groups(model, torch.zeros(1, 3, 16, 16))
    assert [g.name for g in groups if not g.fixed] == ["features.1.0.mlp.0", "features.3.0.mlp.0"]


def test_network_sees_a_batch():
    """Without BatchNorm a convolution would also take a single image, whose axes mean something else."""
    shapes = []

    def forward(m, x):
        shapes.append(x.shape)
        return m.head(m.a(x))

    find_groups(Forward(forward, a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 4, 4))
    assert set(shapes) == {(1, 3, 4, 4)}


def test_layers_that_share_a_weight_are_fixed():
    """Cut, each would have a weight of its own, and two would train on where there was one."""
    model = Forward(
        lambda m, x: m.d(m.c(m.b(m.a(x)))), **{name: nn.Conv2d(4 if name != "a" else 1, 4, 1) for name in "abcd"}
    )
    model.c.weight = model.b.weight
    fixed = {name: group.fixed for name, group in by_name(model, 1, 1, 4, 4).items()}
    assert fixed == dict.fromkeys("abc", "b.weight and c.weight are one parameter")


def test_a_layer_that_is_called_twice_shares_nothing():
    model = Forward(
        lambda m, x: m.b(torch.cat([m.a(x), m.a(x.flip(3))], 1)), a=nn.Conv2d(1, 4, 1), b=nn.Conv2d(8, 2, 1)
    )
    model.again = model.a
    assert by_name(model, 1, 1, 4, 4)["a"].fixed is None
