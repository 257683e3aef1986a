"""timm's layers and blocks: a BatchNorm with its activation is one layer, blocks are known by type, tables are left."""

import copy

import pytest
import torch
from support.small_networks import randomise
from timm.layers import BatchNormAct2d, EvoNorm2dB0, EvoNorm2dS0, FrozenBatchNormAct2d, GroupNormAct, LayerNorm2d
from timm.layers.norm_act import SyncBatchNormAct
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from classify.models import build
from pruning.cut import Arch, prune
from pruning.graph.blocks import branch_end, residual_blocks
from pruning.graph.dataflow import trace_flow
from pruning.graph.groups import find_groups
from pruning.graph.layers import is_batch_norm
from pruning.graph.norm_channels import norm_channels
from pruning.methods import Request, get_method
from pruning.methods.reconstruction import Options as Reconstruction
from pruning.methods.slimming import SlimmingOptions
from pruning.methods.soft_filter import SoftFilterOptions, find_filters
from pruning.select import Selection


def between(norm, width=6):
    return nn.Sequential(nn.Conv2d(3, width, 3), norm, nn.Conv2d(width, 4, 1), nn.Flatten(), nn.Linear(64, 2)).eval()


X = torch.zeros(2, 3, 6, 6)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        BatchNormAct2d(6, act_layer=nn.SiLU),
        BatchNormAct2d(6, apply_act=False),
        FrozenBatchNormAct2d(6),
        FrozenBatchNorm2d(6),
        nn.SyncBatchNorm(6),
        SyncBatchNormAct(6),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_a_batch_norm_is_one_layer_whatever_it_wraps(norm):
    model = between(norm)
    assert is_batch_norm(norm)
    assert trace_flow(model).readers["0"] == {"1"}
    assert trace_flow(model).only_reader("1") == "2"
    assert find_filters(model)["0"] == "1"


@pytest.mark.parametrize("wrapped", [True, False])
def test_slimming_and_soft_pruning_see_the_scale(wrapped):
    norm = BatchNormAct2d(6, act_layer=nn.SiLU) if wrapped else nn.BatchNorm2d(6)
    model = between(norm)
    norm.weight.data = torch.tensor([0.1, 5, 0.2, 4, 0.3, 3])
    norm.bias.data.normal_()
    groups = find_groups(model, X)
    assert ("1", "0") in next(g for g in groups if g.name == "0").norms
    x = torch.randn(2, 3, 6, 6)
    slimmed = prune(model, Arch("t", {}), groups, "slimming", Selection(0.5), batch=x, seed=0)
    assert slimmed.plan.keep == {"0": (1, 3, 5)}
    assert type(slimmed.model[1]) is type(norm) and slimmed.model[1].num_features == 3
    effect = get_method("soft_filter").training_effect(model, Request(groups, Selection(0.5), SoftFilterOptions(), 0))
    effect.at_start()
    assert int((norm.weight == 0).sum()) == int((norm.bias == 0).sum()) == 3
    kept = [c for c in range(6) if norm.weight[c] != 0]
    softly = prune(model, Arch("t", {}), groups, "soft_filter", Selection(0.5), batch=x, seed=0)
    assert softly.plan.keep["0"] == tuple(kept)


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (GroupNormAct(6, num_groups=2), "1 is a GroupNormAct"),
        (LayerNorm2d(6), "1 is a LayerNorm2d"),
        (EvoNorm2dS0(8, groups=4), "its channels mix"),
        (EvoNorm2dB0(6), "has running_var beside it, in a EvoNorm2dB0"),
        (BatchNormAct2d(6, act_layer=lambda inplace: nn.PReLU(6)), "1 wraps a layer with tensors of its own"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_other_normalisations_are_refused_in_a_sentence(norm, reason):
    model = between(norm, 8 if isinstance(norm, EvoNorm2dS0) else 6)
    assert reason in {g.name: g for g in find_groups(model, X)}["0"].fixed


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "regnety_002", "densenet121"])
def test_slimming_reaches_most_channels_of_networks_with_such_layers(name):
    model = build(f"timm/{name}", 3)
    groups = find_groups(model, torch.zeros(1, 3, 32, 32))
    assert sum(item.unit.width for item in norm_channels(model, groups)) > 0.4 * sum(g.width for g in groups)


def test_global_response_normalisation_mixes():
    model = build("timm/convnextv2_atto", 3)
    reasons = {g.name: g.fixed for g in find_groups(model, torch.zeros(1, 3, 32, 32))}
    assert reasons["stages.0.blocks.0.mlp.fc1"].startswith("its channels mix")


def test_a_standardised_convolution_is_refused():
    model = build("timm/nfnet_l0", 3)
    groups = find_groups(model, torch.zeros(1, 3, 64, 64))
    assert any("gain besides weight and bias" in (g.fixed or "") for g in groups)
    options = {"batch": torch.randn(1, 3, 64, 64), "seed": 0}
    with pytest.raises(ValueError, match="out of its reach"):
        prune(model, Arch("t", {}), groups, "l1_filter", Selection(0.5), **options)
    options["allow_partial"] = True
    pruned = prune(model, Arch("t", {}), groups, "l1_filter", Selection(0.5), **options)
    assert pruned.difference < 1e-3


def test_a_network_with_channel_shuffle_prunes_what_is_not_shuffled():
    torch.manual_seed(0)
    model, x = build("shufflenet_v2_x0_5", 3).double(), torch.randn(2, 3, 32, 32).double()
    randomise(model, x)
    groups = find_groups(model, x)
    free = [g.name for g in groups if g.inner and not g.fixed]
    assert all(name.endswith("branch2.0") or name in ("conv1.0", "conv5.0") for name in free) and len(free) >= 16
    for method in ("l1_filter", "slimming", "soft_filter"):
        assert prune(model, Arch("t", {}), groups, method, Selection(0.5), batch=x, seed=0).difference < 1e-9


def test_a_table_that_a_network_keeps_is_left_out_of_it():
    model = build("timm/levit_128s", 3)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    find_groups(model, torch.zeros(1, 3, 224, 224))
    trace_flow(model)
    copied = copy.deepcopy(model)  # which a tensor with a history, kept by a layer, would not allow
    assert {name: set(vars(module)) for name, module in copied.named_modules()} == before


@pytest.mark.parametrize(
    ("name", "blocks", "end"),
    [
        ("resnet18", 8, "layer1.0.bn2"),
        ("seresnet18", 8, "layer1.0.bn2"),
        ("resnet26", 8, "layer1.0.bn3"),
        ("skresnet18", 8, "layer1.0.conv2.bn"),
        ("resnest14d", 4, "layer1.0.bn3"),
    ],
)
def test_timms_residual_blocks_lose_their_branch(name, blocks, end):
    torch.manual_seed(0)
    model, x = build(f"timm/{name}", 3).double(), torch.randn(2, 3, 32, 32).double()
    randomise(model, x)
    assert len(residual_blocks(model)) == blocks and branch_end(model, "layer1.0") == end
    groups = find_groups(model, x)
    pruned = prune(model, Arch("t", {}), groups, "structure_selection", Selection(0.5), batch=x, seed=0)
    assert len(pruned.plan.drop) == blocks // 2 and pruned.difference < 1e-9


def test_timms_networks_with_other_shortcuts_must_say_channels():
    model = build("timm/mobilenetv3_small_050", 3)
    options = get_method("structure_selection").options

    def request(given):
        return Request([], Selection(0.5), given, 0)

    with pytest.raises(ValueError, match=r"has shortcuts, but no residual block of a class that can lose its branch"):
        get_method("structure_selection").training_effect(model, request(options()))
    assert get_method("structure_selection").training_effect(model, request(options(structures="channels"))).per_channel
    assert get_method("slimming").training_effect(model, request(SlimmingOptions())).gammas


def test_reconstruction_reads_groups_that_cannot_go():
    torch.manual_seed(0)
    model, x = build("timm/skresnet18", 3), torch.randn(2, 3, 32, 32)

    def calibration(network):
        yield network(x).square().mean()

    groups = find_groups(model, x)
    assert any(len({len(p) for p in m.positions}) > 1 for g in groups for m in g.members)  # ragged, and fixed
    request = Request(groups, Selection(0.5), Reconstruction(), 0, calibration, x[:1])
    keep = get_method("reconstruction").prune(model, request).keep
    widths = {g.name: g.width for g in groups}
    assert keep and all(len(kept) == widths[name] // 2 for name, kept in keep.items())
