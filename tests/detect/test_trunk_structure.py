"""Backbones of pruned networks whose trunk keeps its width: selected inputs, scattered outputs, dropped blocks."""

import pytest
import torch

from classify.models import arch, build, channel_groups
from detect.backbone import ClassifierBackbone
from detect.build import build_detector
from detect.settings import DetectorSettings
from pruning.cut import prune, prune_by_choice
from pruning.graph.layers import ScatterOutputs, SelectInputs
from pruning.methods import Choice
from pruning.select import Selection
from pruning.surgery import mask

CHOICE = Choice(
    keep={"layer2.0.conv1": (1, 5)},
    select={"layer2.0.conv1": (0, 3)},
    scatter={"layer2.0.bn2": (2, 7), "layer3.0.bn2": (9,)},
    drop=("layer1.0",),
)
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    dense = build("resnet10", 5)
    return prune_by_choice(dense, arch("resnet10"), channel_groups("resnet10", dense), CHOICE, batch=X).model.eval()


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
def test_backbone_computes_the_classifiers_features(classifier, norm):
    backbone = ClassifierBackbone(classifier, norm=norm, freeze_at=0).eval()
    body = torch.nn.Sequential(*list(classifier.children())[:-2])
    with torch.no_grad():
        assert torch.allclose(backbone(X)["s32"], body(X), atol=1e-5)


def test_groupnorm_scatters_too(classifier):
    backbone = ClassifierBackbone(classifier, norm="GN", freeze_at=0)
    assert backbone(X)["s8"].shape == (2, 128, 8, 8)


def test_frozen_stages_keep_their_structure(classifier):
    backbone = ClassifierBackbone(classifier, norm="BN", freeze_at=3)
    assert isinstance(backbone.body.get_submodule("layer2.0.bn2"), ScatterOutputs)
    assert isinstance(backbone.body.get_submodule("layer2.0.conv1"), SelectInputs)
    assert not any(p.requires_grad for p in backbone.body.get_submodule("layer2.0").parameters())


@pytest.mark.parametrize("method", ["l1_filter", "random", "uniform", "slimming"])
def test_laterals_follow_stage_outputs_that_a_classifier_lost(method):
    """In scope `all` stage outputs narrow: features are the masked dense network's, the removed channels left out."""
    torch.manual_seed(0)
    dense, named = build("resnet10", 5, {"width": 0.125}), arch("resnet10", {"width": 0.125})
    for layer in dense.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # so that slimming has scales to rank
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    groups = channel_groups("resnet10", dense)
    pruned = prune(dense, named, groups, method, Selection(0.5, scope="all"), batch=X, seed=0)
    detector, _ = build_detector(pruned.model, DetectorSettings(fpn_channels=8, norm="BN"), num_classes=2)
    features = detector.backbone.bottom_up.eval()
    masked = ClassifierBackbone(mask(dense, pruned.plan, groups), norm="BN").eval()
    trunk = {"s4": "conv1", "s8": "layer2.0.conv2", "s16": "layer3.0.conv2", "s32": "layer4.0.conv2"}
    with torch.no_grad():
        found, expected = features(X), masked(X)
    for level, (name, group) in enumerate(trunk.items(), start=2):
        kept = list(pruned.plan.keep[group])
        lateral = detector.backbone.get_submodule(f"fpn_lateral{level}")
        assert lateral.in_channels == features.output_shape()[name].channels == len(kept) < pruned.plan.widths[group]
        torch.testing.assert_close(found[name], expected[name][:, kept], rtol=1e-4, atol=1e-4)
