"""What training on a GPU needs, tried without one: skipped first steps, ROIAlign beside deterministic algorithms."""

import copy
import sys
from functools import partial

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes, Instances
from support.tiny_detector import make_detector, settings, two_squares
from torchvision.models.resnet import BasicBlock, ResNet

from detect.backbone import ClassifierBackbone, stage_after
from detect.cpu.roi_align import use_separable_roi_align
from detect.train import on_device, train_detector
from training.checkpoint import load_checkpoint


@pytest.fixture
def deterministic(monkeypatch):
    """Memory that is not initialised is filled with NaN then, too."""
    before = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def test_a_first_step_that_a_scaler_skips_leaves_no_trace(tmp_path, monkeypatch, deterministic):
    scaler = partial(torch.amp.GradScaler, "cpu")  # which float16 has on a GPU
    monkeypatch.setattr("detect.train.torch.amp.GradScaler", lambda device, enabled: scaler(init_scale=2.0))
    detector, cfg = make_detector()
    weight = detector.roi_heads.box_predictor.cls_score.weight
    start, seen = weight.detach().clone(), []

    def overflow_once(gradient):
        seen.append(weight.detach().clone())
        return gradient * float("inf") if len(seen) == 1 else gradient

    weight.register_hook(overflow_once)
    checkpoint = tmp_path / "c.pt"
    train_detector(
        detector, cfg, dataset=two_squares(tmp_path), **settings(iterations=3, warmup=0.0), checkpoint=checkpoint
    )
    assert torch.equal(seen[1], start) and not torch.equal(seen[2], start)  # the first step was skipped, no other
    assert all(p.isfinite().all() for p in detector.parameters())
    state = load_checkpoint(checkpoint, required=["optimizer"])["optimizer"]["state"]
    assert all(buffers["momentum_buffer"].isfinite().all() for buffers in state.values())


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU; operators find it on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_cuda = property(lambda self: True)
    device = property(lambda self: torch.device("cuda"))


def test_deterministic_training_on_a_gpu_pools_by_the_operator_and_has_its_gradient_by_products(
    monkeypatch, deterministic
):
    module = sys.modules["torchvision.ops.roi_align"]  # the package has a function of its name
    monkeypatch.setattr(module, "is_compile_supported", lambda device: True)
    monkeypatch.setattr(module, "_roi_align", lambda *arguments: pytest.fail("the version in Python was taken"))
    features = torch.arange(128.0).view(1, 2, 8, 8).requires_grad_()
    regions = torch.tensor([[0, 0.0, 0, 16, 16], [0, 4, 8, 30, 28]])
    for arguments in (((3, 2), 0.25, 0), (4, 0.25, 2)):
        plain = ROIAlign(*arguments)
        expected = plain(features, regions)
        ours = torch.nn.ModuleList([plain])
        use_separable_roi_align(ours)
        found = ours[0](features.as_subclass(OnGpu), regions)
        assert torch.equal(found.as_subclass(torch.Tensor), expected)
        assert "Separable" in type(found.grad_fn).__name__ and "Separable" not in type(expected.grad_fn).__name__
        weight = torch.linspace(-1, 1, expected.numel()).view_as(expected)
        gradients = [
            torch.autograd.grad((output.as_subclass(torch.Tensor) * weight).sum(), features)[0]
            for output in (found, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
        assert gradients[0].abs().sum() > 1


def test_a_classifier_on_another_device_becomes_a_backbone_too():
    """As when its BatchNorms were recalibrated there. The device without values stands for it."""
    here = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    elsewhere = copy.deepcopy(here).to("meta")
    shapes = [ClassifierBackbone(classifier, norm="BN").output_shape() for classifier in (here, elsewhere)]
    assert shapes[0] == shapes[1]
    assert stage_after(elsewhere, 16, norm="BN")[1] == 512


def test_what_a_step_moves_to_the_device_is_what_the_loader_gave():
    objects = Instances((8, 6))
    objects.gt_boxes, objects.gt_classes = Boxes(torch.tensor([[0.0, 1, 3, 4]])), torch.tensor([1])
    record = {"image": torch.arange(144, dtype=torch.uint8).view(3, 8, 6), "instances": objects, "height": 8}
    moved = on_device(record, "meta")
    assert moved["image"].is_meta and moved["image"].shape == (3, 8, 6) and moved["height"] == 8
    assert moved["instances"].gt_boxes.tensor.is_meta and moved["instances"].gt_classes.is_meta
    same = on_device(record, "cpu")["instances"]
    assert torch.equal(same.gt_boxes.tensor, objects.gt_boxes.tensor) and same.image_size == (8, 6)
    assert not record["image"].is_meta  # a loader may give a kept picture again
