"""Detectors from settings, a user's YAML and overrides."""

import pytest
import torch
from detectron2.modeling import build_model
from torchvision.models.resnet import BasicBlock, ResNet

from detect.build import build_detector
from detect.cpu.roi_align import SeparableROIAlign
from detect.detector_config import BACKBONE_NAME, make_config
from detect.settings import DetectorSettings


def tiny():
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)


SMALL = {"image_size": 64, "fpn_channels": 8, "box_head_dim": 16, "test_proposals": 20}


def test_levels_follow_from_the_strides():
    detector, cfg = build_detector(tiny(), DetectorSettings(strides=(4, 8, 16), **SMALL), num_classes=3)
    shapes = detector.backbone.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "p2": (8, 4),
        "p3": (8, 8),
        "p4": (8, 16),
        "p5": (8, 32),
    }
    assert detector.proposal_generator.in_features == ["p2", "p3", "p4", "p5"]
    assert detector.roi_heads.box_in_features == ["p2", "p3", "p4"]
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32.0], [64.0], [128.0], [256.0]]  # 8 x stride


def test_a_cifar_sized_network_serves_at_strides_1_2_4():
    model = tiny()
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    settings = DetectorSettings(strides=(1, 2, 4), **SMALL)
    detector = build_detector(model, settings, num_classes=3)[0].eval()
    image = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 64, "width": 64}
    assert list(detector.backbone(torch.zeros(1, 3, 64, 64))) == ["p0", "p1", "p2", "p3"]
    assert "instances" in detector([image])[0]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN", "GN"])
def test_a_blank_detector_has_the_shapes_of_the_true_one_and_draws_nothing(norm):
    settings = DetectorSettings(norm=norm, **SMALL)
    true = build_detector(tiny(), settings, num_classes=3)[0]
    with torch.device("meta"):
        hollow = tiny()
    before = torch.get_rng_state()
    blank = build_detector(hollow, settings, num_classes=3, blank=True)[0]
    assert torch.equal(before, torch.get_rng_state())
    assert next(hollow.parameters()).is_meta
    fresh = {f"{name}.weight" for name, m in blank.named_modules() if isinstance(m, torch.nn.GroupNorm)}
    assert {name for name, p in blank.named_parameters() if p.any()} == fresh
    state, other = blank.state_dict(), true.state_dict()
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in other.items()}
    assert torch.equal(blank.pixel_mean, true.pixel_mean)  # what is computed from values is as ever
    anchors, others = (d.proposal_generator.anchor_generator.cell_anchors for d in (blank, true))
    assert all(torch.equal(a, b) for a, b in zip(anchors, others, strict=True))


def test_inputs_are_normalised_as_the_classifiers():
    detector, cfg = build_detector(
        tiny(), DetectorSettings(**SMALL), num_classes=3, pixel_mean=(0.5, 0.25, 0.0), pixel_std=(1.0, 0.5, 0.25)
    )
    image = torch.tensor([255, 255, 51], dtype=torch.uint8).view(3, 1, 1).expand(3, 64, 64)
    normalised = detector.preprocess_image([{"image": image}]).tensor[0, :, 0, 0]
    torch.testing.assert_close(normalised, torch.tensor([0.5, 1.5, 0.8]))  # (1, 1, 0.2) less mean, by std
    assert cfg.INPUT.FORMAT == "RGB"


def test_settings_and_overrides_reach_detectron2():
    settings = DetectorSettings(roi_batch_size=32, overrides={"MODEL.RPN.NMS_THRESH": 0.6}, **SMALL)
    detector, _ = build_detector(tiny(), settings, num_classes=3)
    assert detector.roi_heads.batch_size_per_image == 32
    assert detector.proposal_generator.nms_thresh == 0.6
    assert detector.roi_heads.num_classes == 3
    assert all(isinstance(layer, SeparableROIAlign) for layer in detector.roi_heads.box_pooler.level_poolers)


def test_a_users_yaml_is_merged_below_the_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "MODEL:\n  FPN:\n    OUT_CHANNELS: 24\n  ROI_HEADS:\n    NUM_CLASSES: 3\n    SCORE_THRESH_TEST: 0.3\n"
    )
    settings = {key: value for key, value in SMALL.items() if key != "fpn_channels"}
    cfg = make_config(DetectorSettings(config_file=path, **settings), num_classes=3)
    assert cfg.MODEL.FPN.OUT_CHANNELS == 24
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.3
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3


def test_the_registered_name_alone_says_what_it_needs():
    cfg = make_config(DetectorSettings(**SMALL), num_classes=3)
    assert cfg.MODEL.BACKBONE.NAME == BACKBONE_NAME
    with pytest.raises(ValueError, match="needs a classifier"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"overrides": {"MODEL.RPN.NMS_TRESH": 0.5}},
            "MODEL.RPN.NMS_TRESH is not a key of Detectron2; near: MODEL.RPN.NMS_THRESH",
        ),
        ({"overrides": {"MODEL.RPN.NMS_THRESH": "much"}}, "MODEL.RPN.NMS_THRESH='much' does not fit"),
        ({"anchor_sizes": (8, 16)}, "anchor_sizes has 2 entries for 5 levels"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(DetectorSettings(**SMALL, **changes), num_classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL:\n  RPX: 3\n", r"mine\.yaml: MODEL\.RPX is not a key of Detectron2"),
        ("MODEL: [\n", r"mine\.yaml: not valid YAML: while parsing"),
        ("MODEL:\n  WEIGHTS: !!python/object/apply:os.getcwd []\n", r"mine\.yaml: not valid YAML: could not determine"),
        (None, r"mine\.yaml: no such Detectron2 config file"),
    ],
)
def test_a_wrong_yaml_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        make_config(DetectorSettings(config_file=path, **SMALL), num_classes=3)
