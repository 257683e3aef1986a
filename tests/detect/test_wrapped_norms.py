"""A BatchNorm that holds its activation, as timm's do, is one layer: frozen or replaced it keeps what it holds."""

import pytest
import timm
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from classify.export import Signature, export
from detect.backbone import ClassifierBackbone, stage_after
from detect.build import build_detector
from detect.settings import DetectorSettings
from pruning.graph.layers import scatter_outputs
from training.norm_layers import ThenChildren
from training.synchronised_norm import synchronised_norms

X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def lively(model):
    """Statistics and shifts away from 0 and 1, so that a wrong conversion shows."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return model


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return lively(timm.create_model("test_efficientnet", num_classes=2))


def features(backbone):
    with torch.no_grad():
        return backbone.eval()(X)


def acting(backbone):
    """Layers that apply an activation after whatever normalises."""
    return [m for m in backbone.modules() if isinstance(getattr(m, "act", None), nn.SiLU | nn.ReLU)]


def test_the_features_are_the_classifiers(classifier):
    seen = {}
    handle = classifier.blocks[1].register_forward_hook(lambda m, a, out: seen.update(stage=out))
    with torch.no_grad():
        classifier.eval()(X)
    handle.remove()
    own = features(ClassifierBackbone(classifier, norm="BN")).values()
    assert any(value.shape == seen["stage"].shape for value in own)


KEPT = [("FrozenBN", 0), ("SyncBN", 0), ("BN", 2), ("SyncBN", 3), ("FrozenBN", 5)]


@pytest.mark.parametrize(("norm", "freeze_at"), KEPT)
def test_frozen_or_synchronised_it_computes_the_same(classifier, norm, freeze_at):
    expected = features(ClassifierBackbone(classifier, norm="BN"))
    backbone = ClassifierBackbone(classifier, norm=norm, freeze_at=freeze_at)
    for name, value in features(backbone).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_group_norm_keeps_every_activation(classifier):
    plain, grouped = (ClassifierBackbone(classifier, norm=norm) for norm in ("BN", "GN"))
    assert len(acting(grouped)) == len(acting(plain)) > 5
    assert not [m for m in grouped.modules() if isinstance(m, nn.BatchNorm2d)]
    replaced = [m for m in grouped.modules() if isinstance(m, nn.GroupNorm) and isinstance(m, ThenChildren)]
    layer = next(m for m in replaced if isinstance(m.act, nn.SiLU | nn.ReLU))
    x = torch.randn(2, layer.num_channels, 4, 4)
    torch.testing.assert_close(layer(x), layer.act(nn.GroupNorm.forward(layer, x)))


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN", "SyncBN"])
def test_two_steps_of_training(classifier, norm):
    backbone = ClassifierBackbone(classifier, norm=norm, freeze_at=0 if norm == "GN" else 1).train()
    before = {name: p.detach().clone() for name, p in backbone.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        loss = sum(value.square().mean() for value in backbone(X).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(backbone.get_parameter(name), old) for name, old in before.items())


def test_the_stage_behind_a_level_keeps_it_as_well(classifier):
    level = ClassifierBackbone(classifier, strides=(16,), norm="BN").output_shape()["s16"].channels
    x = torch.randn(1, level, 14, 14)
    stages = [stage_after(classifier, 16, norm=norm)[0].eval() for norm in ("BN", "FrozenBN")]
    assert not [m for m in stages[1].modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(stages[1](x), stages[0](x), rtol=1e-4, atol=1e-5)


def test_a_detector_around_it_detects_and_is_exported(classifier):
    settings = DetectorSettings(image_size=64, fpn_channels=8, box_head_dim=16, freeze_at=1)
    detector, _ = build_detector(classifier, settings, num_classes=2)
    with torch.no_grad():
        assert "instances" in detector.eval()([{"image": torch.zeros(3, 64, 64)}])[0]
    classes = Signature("images", {0: "batch"}, {"logits": "batch"})
    _, difference = export(classifier, X, classes, "torchscript", others=[X[:1]])
    assert difference < 1e-4


class NormAct(nn.BatchNorm2d):
    """An activation with a parameter of its own, as timm's with PReLU."""

    def __init__(self, width):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.PReLU(width, init=0.3)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class ActNorm(NormAct):
    """Applies its activation before it normalises."""

    def forward(self, x):
        return nn.BatchNorm2d.forward(self, self.act(x))


def network(norm):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3, 2, 1), norm, nn.Conv2d(6, 8, 3, 2, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


@pytest.mark.parametrize("norm", ["FrozenBN", "GN", "SyncBN"])
def test_the_activations_own_parameters_are_kept(norm):
    model = lively(network(NormAct(6)))
    nn.init.uniform_(model[1].act.weight, 0.1, 0.9)
    backbone = ClassifierBackbone(model, strides=(2, 4), norm=norm)
    assert torch.equal(backbone.body.get_parameter("1.act.weight"), model[1].act.weight)
    if norm == "FrozenBN":
        assert isinstance(backbone.body.get_submodule("1"), FrozenBatchNorm2d)


def test_another_order_is_refused():
    kept = ClassifierBackbone(network(ActNorm(6)), strides=(2, 4), norm="BN")
    assert isinstance(kept.body.get_submodule("1"), ActNorm)
    for changes in ({"norm": "GN"}, {"norm": "FrozenBN"}, {"norm": "BN", "freeze_at": 2}):
        with pytest.raises(ValueError, match=r"ActNorm is a BatchNorm that does not .* holds \(drop, act\) after"):
            ClassifierBackbone(network(ActNorm(6)), strides=(2, 4), **changes)


def test_one_that_writes_into_a_wider_trunk_is_frozen_too():
    model = lively(network(NormAct(4)))
    model[0] = nn.Conv2d(3, 4, 3, 2, 1)
    scatter_outputs(model[1], (0, 2, 3, 5), 6)
    expected = features(ClassifierBackbone(model, strides=(2, 4), norm="BN"))
    for name, value in features(ClassifierBackbone(model, strides=(2, 4), norm="FrozenBN")).items():
        torch.testing.assert_close(value, expected[name])


def test_group_norm_of_the_classifier_itself_is_kept():
    """Only what replaced a BatchNorm has fresh weights."""
    model = network(nn.GroupNorm(2, 6))
    nn.init.constant_(model[1].weight, 7.0)
    for norm in ("BN", "GN"):
        backbone = ClassifierBackbone(model, strides=(2, 4), norm=norm)
        assert bool((backbone.body.get_parameter("1.weight") == 7).all())


def test_statistics_over_processes_keep_it(monkeypatch):
    monkeypatch.setattr("training.synchronised_norm.world_size", lambda: 2)
    norm = lively(NormAct(6)).eval()
    model = nn.Sequential(norm)
    x = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        expected = norm(x)
        with synchronised_norms(model):
            assert model[0] is not norm
            torch.testing.assert_close(model(x), expected)
    assert model[0] is norm
