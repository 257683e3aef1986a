"""Features by stride, norms, freezing and weights of classifiers as backbones."""

import copy

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer

from detect.backbone import ClassifierBackbone, stage_after


def tiny():
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)


def _hooked(model, layers, image):
    """Activations of named layers of the classifier itself, in evaluation mode."""
    seen = {}
    for name, layer in layers.items():
        model.get_submodule(layer).register_forward_hook(lambda m, a, out, name=name: seen.update({name: out.clone()}))
    with torch.no_grad():
        model.eval()(image)
    return seen


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", {"s4": "layer1", "s8": "layer2", "s16": "layer3", "s32": "layer4"}),
        (
            "mobilenet_v2",
            {"s4": "features.4.conv.0", "s8": "features.7.conv.0", "s16": "features.14.conv.0", "s32": "features.18"},
        ),
    ],
)
def test_features_are_the_classifiers_own_activations(name, layers):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    image = torch.randn(2, 3, 64, 96)
    backbone = ClassifierBackbone(model).eval()
    expected = _hooked(model, layers, image)
    found = backbone(image)
    shapes = backbone.output_shape()
    assert list(found) == ["s4", "s8", "s16", "s32"]
    for feature, value in found.items():
        torch.testing.assert_close(value, expected[feature], rtol=1e-5, atol=1e-5)
        stride = int(feature[1:])
        assert value.shape == (2, shapes[feature].channels, 64 // stride, 96 // stride)
        assert shapes[feature].stride == stride


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", [256, 512, 1024, 2048]),  # not the 1x1 convolution of the next stage: 128, 256, 512
        ("vgg16_bn", [256, 512, 512, 512]),  # the 7 x 7 pooling in front of its head is no feature map
        ("mobilenet_v3_large", [72, 240, 672, 960]),
        ("densenet121", [128, 256, 512, 1024]),
        ("convnext_tiny", [96, 192, 384, 768]),
    ],
)
def test_strides_are_found_in_any_architecture(name, channels):
    with torch.device("meta"):  # shapes are all that matters here, and drawing weights takes long
        model = getattr(torchvision.models, name)(weights=None)
        model.classifier = nn.Flatten()  # the head is large in VGG
    backbone = ClassifierBackbone(model.to_empty(device="cpu"))
    assert [shape.channels for shape in backbone.output_shape().values()] == channels


def test_other_strides_and_odd_widths():
    model = tiny()
    model.layer2[0].conv1 = nn.Conv2d(64, 37, 3, stride=2, padding=1, bias=False)
    model.layer2[0].bn1 = nn.BatchNorm2d(37)
    model.layer2[0].conv2 = nn.Conv2d(37, 128, 3, padding=1, bias=False)
    backbone = ClassifierBackbone(model, strides=(2, 4, 8))
    assert {k: v.shape[1] for k, v in backbone(torch.zeros(1, 3, 32, 32)).items()} == {"s2": 64, "s4": 64, "s8": 128}
    assert not any(key.startswith(("body.layer3", "body.fc")) for key in backbone.state_dict())


def test_the_classifier_is_left_alone():
    model = tiny().train()
    before = copy.deepcopy(model.state_dict())
    backbone = ClassifierBackbone(model, norm="FrozenBN", freeze_at=2)
    backbone.body.conv1.weight.data.zero_()
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert isinstance(model.bn1, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm), ("GN", nn.GroupNorm)],
)
def test_norm_replaces_every_batchnorm(norm, kind):
    backbone = ClassifierBackbone(tiny(), norm=norm)
    norms = [
        m
        for m in backbone.modules()
        if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm, nn.SyncBatchNorm))
    ]
    assert len(norms) == 12 and {type(m) for m in norms} == {kind}  # stem, two a block, three projections


def test_group_norm_takes_the_largest_divisor():
    model = tiny()
    model.conv1, model.bn1 = nn.Conv2d(3, 66, 7, 2, 3, bias=False), nn.BatchNorm2d(66)
    model.layer1[0].conv1 = nn.Conv2d(66, 64, 3, padding=1, bias=False)
    model.layer1[0].downsample = nn.Conv2d(66, 64, 1)
    backbone = ClassifierBackbone(model, norm="GN")
    assert backbone.body.bn1.num_groups == 22  # 66 = 3 x 22
    assert backbone.body.layer1.get_submodule("0").bn1.num_groups == 32


@pytest.mark.parametrize(
    ("freeze_at", "first_trainable", "frozen_norms"),
    [(0, "conv1.weight", 0), (1, "layer1.0.conv1.weight", 1), (2, "layer2.0.conv1.weight", 3), (5, None, 12)],
)
def test_freezing_counts_stages(freeze_at, first_trainable, frozen_norms):
    backbone = ClassifierBackbone(tiny(), norm="BN", freeze_at=freeze_at)
    trainable = [name for name, p in backbone.body.named_parameters() if p.requires_grad]
    assert (trainable[0] if trainable else None) == first_trainable
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules()) == frozen_norms


def test_freezing_a_resnet50_ends_with_the_stage_not_with_the_stride():
    """The first 1x1 convolution of layer2 works at stride 4 still, but belongs to the next stage."""
    backbone = ClassifierBackbone(torchvision.models.resnet50(weights=None), freeze_at=2)
    trainable = {name.split(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert trainable == {"layer2", "layer3", "layer4"}
    assert backbone.body.layer2.get_submodule("0").conv1.weight.requires_grad


def test_backbone_has_the_weights_of_the_classifier():
    source = tiny()
    nn.init.constant_(source.layer3[0].bn1.running_mean, 7.0)
    for norm in ("FrozenBN", "BN", "GN"):
        backbone = ClassifierBackbone(source, norm=norm)
        assert torch.equal(backbone.body.layer4.get_submodule("0").conv2.weight, source.layer4[0].conv2.weight)
        if norm != "GN":
            assert (backbone.body.layer3.get_submodule("0").bn1.running_mean == 7.0).all()


def test_group_norm_is_fresh_whatever_the_batchnorm_was():
    source = tiny()
    nn.init.constant_(source.bn1.weight, 7.0)
    backbone = ClassifierBackbone(source, norm="GN")
    assert (backbone.body.bn1.weight == 1).all()


class DropsInItsHead(nn.Module):
    """Functional dropout behind the last feature map, as GhostNet has it in timm."""

    def __init__(self, early):
        super().__init__()
        self.early, self.body, self.fc = early, tiny(), nn.Linear(512, 2)

    def forward(self, x):
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        if self.early:
            x = nn.functional.dropout(x, 0.2, training=self.training)
        x = body.layer4(body.layer3(body.layer2(body.layer1(x))))
        x = nn.functional.dropout(x.mean((2, 3)), 0.2, training=self.training)
        return self.fc(x)


def test_only_what_features_are_made_of_must_be_alike_in_training():
    model = DropsInItsHead(early=False)
    backbone = ClassifierBackbone(model)
    assert {name: shape.channels for name, shape in backbone.output_shape().items()} == {
        "s4": 64,
        "s8": 128,
        "s16": 256,
        "s32": 512,
    }
    with pytest.raises(ValueError, match="different graphs in training and evaluation before its feature of stride 4;"):
        ClassifierBackbone(DropsInItsHead(early=True))


class Branching(nn.Module):
    """Cannot be traced: the forward pass depends on values."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            tiny,
            {"strides": (4, 8, 16, 32, 64)},
            "ResNet has no feature map of stride 64; it has strides 1, 2, 4, 8, 16, 32",
        ),
        (tiny, {"strides": (4, 16)}, "must double"),
        (tiny, {"norm": "LN"}, "norm='LN' is not one of FrozenBN, BN, SyncBN, GN"),
        (tiny, {"freeze_at": 6}, r"freeze_at=6 is outside 0\.\.5"),
        (tiny, {"norm": "GN", "freeze_at": 1}, "would freeze fresh GroupNorm weights"),
        (Branching, {}, "Branching cannot be traced"),
        (lambda: torchvision.models.googlenet(weights=None, init_weights=False), {}, "different graphs"),
        (
            lambda: VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8),
            {},
            "cannot take a 384 x 256 image",
        ),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassifierBackbone(model(), **arguments)


class SideBySide(nn.Module):
    """Resolutions side by side, as HRNet's: 4, 8 and 16 run on from the stem and are joined one after the other."""

    def __init__(self):
        super().__init__()
        self.stem, self.fine = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 5, 3, 1, 1)
        self.to8, self.to16 = nn.Conv2d(4, 6, 2, 2), nn.Conv2d(4, 7, 4, 4)
        self.join8, self.join16 = nn.Conv2d(5, 6, 2, 2), nn.Conv2d(6, 7, 2, 2)
        self.s32, self.fc = nn.Conv2d(7, 8, 2, 2), nn.Linear(8, 2)

    def branches(self, x):
        x = self.stem(x)
        half, quarter, fine = self.to8(x), self.to16(x), self.fine(x)
        half = half + self.join8(fine)
        return fine, half, quarter + self.join16(half)

    def forward(self, x):
        return self.fc(self.s32(self.branches(x)[2]).mean((2, 3)))


def test_where_resolutions_go_side_by_side_a_feature_is_what_all_finer_ones_pass():
    torch.manual_seed(0)
    model = SideBySide().eval()
    backbone = ClassifierBackbone(model, norm="BN").eval()
    assert [shape.channels for shape in backbone.output_shape().values()] == [5, 6, 7, 8]
    image = torch.randn(1, 3, 64, 96)
    found = backbone(image)
    torch.testing.assert_close((found["s4"], found["s8"], found["s16"]), model.branches(image))
    assert not [name for name, p in ClassifierBackbone(model, freeze_at=1).named_parameters() if not p.requires_grad]
    with pytest.raises(ValueError, match=r"freeze_at=2: the stages of SideBySide are computed side by side"):
        ClassifierBackbone(model, freeze_at=2)
    with pytest.raises(ValueError, match=r"no feature map of stride 8; it has strides 1, 4, 16, 32"):
        stage_after(model, 8)
