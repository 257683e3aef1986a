"""The residual networks: shapes, shortcuts, and torchvision's weights."""

import pytest
import torch
import torchvision

from classify.models import build
from classify.models.resnet import PadShortcut


def test_shortcut_averages_or_strides_and_pads_behind():
    x = torch.arange(16.0).view(1, 1, 4, 4)  # rows 0..3, 4..7, ...
    averaged = PadShortcut(1, 3, 2, "average")(x)
    strided = PadShortcut(1, 3, 2, "stride")(x)
    assert averaged[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert strided[0, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert averaged[0, 1:].abs().sum() == strided[0, 1:].abs().sum() == 0
    assert averaged.shape == strided.shape == (1, 3, 2, 2)


@pytest.mark.parametrize("form", ["average", "stride"])
def test_shortcut_passes_gradients_and_fits_odd_sides(form):
    x = torch.ones(1, 2, 5, 7, requires_grad=True)
    y = PadShortcut(2, 4, 2, form)(x)
    assert y.shape == (1, 4, 3, 4)  # as a 3x3 convolution with stride 2 and padding 1
    assert y[:, :2].min() == y.max() == 1
    y.sum().backward()
    assert x.grad.sum() == 2 * 3 * 4
    model = build("cifar_resnet", 3, {"depth": 8, "shortcut": form}).eval()
    assert model(torch.zeros(1, 3, 25, 31)).shape == (1, 3)


def test_unknown_shortcut_is_refused():
    with pytest.raises(ValueError, match="unknown shortcut 'projection'; known: average, stride"):
        build("resnet20", 10, {"shortcut": "projection"})


@pytest.mark.parametrize("depth", [6, 7, 21, 0, -4])
def test_impossible_cifar_depth_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth 6n\+2 .* not {depth}"):
        build("cifar_resnet", 10, {"depth": depth})


def test_impossible_imagenet_depth_is_refused():
    with pytest.raises(ValueError, match="depth 10, 18, 34, 50, 101, 152, not 20"):
        build("imagenet_resnet", 10, {"depth": 20})


@pytest.mark.parametrize("width", [0, -1.0])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match="must be positive"):
        build("resnet20", 10, {"width": width})


@pytest.mark.parametrize(("width", "channels"), [(0.5, 8), (1.0, 16), (2.0, 32), (0.01, 1)])
def test_width_scales_the_channels(width, channels):
    assert build("resnet20", 10, {"width": width}).conv1.out_channels == channels


def test_convolutions_count_the_depth():
    for depth in (20, 32, 56):
        model = build("cifar_resnet", 10, {"depth": depth})
        weighted = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
        assert len(weighted) == depth


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_of_torchvision_load_and_give_its_logits(name):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
    ours = build(name, 5).eval()
    ours.load_state_dict(theirs.state_dict())  # strict
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
