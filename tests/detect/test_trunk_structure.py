"""Backbones of pruned networks whose trunk keeps its width: selected inputs, scattered outputs, dropped blocks."""

import pytest
import torch

from classify.models import arch, build, channel_groups
from detect.backbone import ClassifierBackbone, load_classifier
from pruning.layers import ScatterOutputs, SelectInputs
from pruning.methods import Choice
from pruning.prune import prune_by_choice

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
    load_classifier(backbone, classifier.state_dict())
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
