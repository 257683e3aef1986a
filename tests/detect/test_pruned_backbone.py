"""A pruned network as the backbone of a project of one's own, as docs/detectron2.md shows it."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import detectron2
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from safetensors.torch import save_file
from support.detector_step import loss_step

from classify.kept_network import read_kept
from classify.models import arch, build, channel_groups, example_input
from detect import PrunedBottomUp, add_pruned_config, build_detector
from detect.settings import DetectorSettings
from pruning.cut import prune
from pruning.select import Selection

ROOT = Path(__file__).resolve().parents[2]
ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """What model_zoo needs of setuptools, where that is one of 81 or newer, in an environment made before it was kept
    below."""
    if importlib.util.find_spec("pkg_resources") is None:
        found = ModuleType("pkg_resources")
        found.resource_filename = lambda package, path: str(ZOO.parent / path)
        monkeypatch.setitem(sys.modules, "pkg_resources", found)


@pytest.fixture(scope="module")
def small():
    """A ResNet-18 of which half of the inner channels are gone, with statistics that are no zeros and ones."""
    torch.manual_seed(0)
    model = build("resnet18", 7)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    groups = channel_groups("resnet18", model)
    batch = torch.randn(2, *example_input("resnet18").shape[1:])
    half = Selection(ratio=0.5)
    return prune(model.eval(), arch("resnet18"), groups, "l1_filter", half, batch=batch, seed=0)


@pytest.fixture
def folder(small, tmp_path):
    return keep(tmp_path / "pruned", small.plan, small.model.state_dict())


def keep(folder, plan, weights, network=None):
    """As `prune-transfer prune` leaves it, or as a run with what its result says of the network."""
    folder.mkdir()
    header = {"prune_transfer_normalization": json.dumps({"mean": MEAN, "std": STD})}
    save_file({n: t.contiguous() for n, t in weights.items()}, folder / "weights.safetensors", header)
    (folder / "plan.json").write_text(plan.to_json())
    if network is not None:
        (folder / "result.json").write_text(json.dumps({"network": network}))
    return folder


def config(folder, **keys):
    cfg = get_cfg()
    add_pruned_config(cfg)
    cfg.merge_from_file(str(ZOO / "COCO-Detection" / "faster_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.PRUNED.RUN = "PrunedBackbone", str(folder)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = "cpu", "", 16
    cfg.merge_from_list([word for key, value in keys.items() for word in (key.replace("__", "."), value)])
    return cfg


SHOWN = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "detectron2.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("code", SHOWN, ids=["yaml", "lazy"])
def test_shown_lines_build_a_detector_that_trains(folder, code):
    assert '"pruned/resnet50"' in code
    code = code.replace('"pruned/resnet50"', repr(str(folder)))
    code = code.replace("detector = build_model", 'cfg.MODEL.DEVICE = "cpu"\ndetector = build_model')
    names = {}
    exec(compile(code, "docs/detectron2.md", "exec"), names)
    body = names["detector"].backbone.bottom_up.network.body
    assert body.get_submodule("layer1.0.conv1").out_channels == 32
    assert torch.isfinite(loss_step(names["detector"]))
    assert body.get_submodule("layer2.0.conv1").weight.grad is not None
    assert body.get_submodule("layer1.0.conv1").weight.grad is None  # FREEZE_AT: 2


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_features_are_those_of_the_network_on_its_own_normalisation(folder, small, order):
    bottom_up = PrunedBottomUp(folder, pixel_mean=(90, 100, 120), pixel_std=(40, 50, 60), input_format=order).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()  # RGB
    mine = pixels.flip(1) if order == "BGR" else pixels
    given = (mine - torch.tensor([90.0, 100, 120])[:, None, None]) / torch.tensor([40.0, 50, 60])[:, None, None]
    x = (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    net = small.model.eval()
    with torch.no_grad():
        found = bottom_up(given)
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        torch.testing.assert_close(found["res2"], x, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["res3"], net.layer2(x), rtol=1e-3, atol=1e-4)
    assert {name: shape.stride for name, shape in bottom_up.output_shape().items()} == {
        "res2": 4, "res3": 8, "res4": 16, "res5": 32,
    }  # fmt: skip


def test_cascade_and_masks_on_a_pruned_backbone(folder):
    cascade = {"MODEL__ROI_HEADS__NAME": "CascadeROIHeads", "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
    detector = build_model(config(folder, **cascade, MODEL__MASK_ON=True))
    assert len(detector.roi_heads.box_head) == 3 and torch.isfinite(loss_step(detector))
    assert detector.roi_heads.mask_head.deconv.weight.grad is not None


def test_retinanet_and_a_backbone_without_an_fpn(folder):
    keys = {"MODEL__META_ARCHITECTURE": "RetinaNet", "MODEL__FPN__IN_FEATURES": ["res3", "res4", "res5"]}
    detector = build_model(config(folder, **keys, MODEL__RETINANET__NUM_CLASSES=5))
    assert list(detector.backbone.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
    assert torch.isfinite(loss_step(detector))
    alone = build_backbone(config(folder, MODEL__FPN__IN_FEATURES=[], MODEL__RESNETS__OUT_FEATURES=["res4"]))
    assert {name: shape.channels for name, shape in alone.output_shape().items()} == {"res4": 256}


def test_a_run_directory_says_its_classes_and_normalisation(small, tmp_path):
    network = {"num_classes": 7, "mean": [0.1, 0.1, 0.1], "std": [0.9, 0.9, 0.9]}
    kept = read_kept(keep(tmp_path / "run", small.plan, small.model.state_dict(), network))
    assert kept.mean == (0.1, 0.1, 0.1) and kept.std == (0.9, 0.9, 0.9) and not kept.absent
    assert torch.equal(kept.model.fc.weight, small.model.fc.weight)


def test_the_backbone_of_a_detector_is_taken(small, tmp_path):
    torch.manual_seed(1)
    detector, _ = build_detector(small.model, DetectorSettings(fpn_channels=8, box_head_dim=8), num_classes=3)
    run = keep(tmp_path / "run", small.plan, detector.state_dict(), {"num_classes": 7, "mean": MEAN, "std": STD})
    kept = read_kept(run)
    assert kept.absent == {"fc.weight", "fc.bias"}
    assert torch.equal(kept.model.layer4[1].conv2.weight, small.model.layer4[1].conv2.weight)
    assert torch.isfinite(loss_step(build_model(config(run))))
    shallow, _ = build_detector(small.model, DetectorSettings(strides=(4, 8), anchor_sizes=(8, 16, 32)), num_classes=3)
    run = keep(tmp_path / "shallow", small.plan, shallow.state_dict(), {"num_classes": 7, "mean": MEAN, "std": STD})
    with pytest.raises(ValueError, match=r"shallow: it has no weights of \d+ tensors up to res5, such as layer3"):
        build_model(config(run))


def test_what_does_not_fit_is_one_sentence(folder, small, tmp_path):
    for cfg, message in (
        (config(""), r"MODEL\.PRUNED\.RUN: name the run directory, or the folder that `prune-transfer prune` wrote"),
        (
            config(tmp_path),
            r"it has no plan\.json; name a run directory with a network, or what `prune-transfer prune` wrote",
        ),
        (config(folder, MODEL__WEIGHTS="detectron2://ImageNetPretrained/MSRA/R-50.pkl"), "set it to ''"),
        (config(folder, INPUT__FORMAT="L"), r"INPUT\.FORMAT='L': choose from RGB, BGR"),
        (config(folder, MODEL__FPN__IN_FEATURES=["s4"]), "feature 's4': the features are named res2"),
    ):
        with pytest.raises(ValueError, match=message):
            build_model(cfg)
    weights = small.model.state_dict() | {"conv1.weight": torch.zeros(3, 3, 7, 7)}
    other = keep(tmp_path / "other", small.plan, weights)
    with pytest.raises(ValueError, match=r"1 tensors of weights\.safetensors do not fit plan\.json, such as conv1\.w"):
        read_kept(other)
