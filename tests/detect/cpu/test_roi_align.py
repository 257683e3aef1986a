"""The separable gradient equals torchvision's."""

import pytest
import torch
from detectron2.layers import ROIAlign

from detect.cpu.roi_align import SeparableROIAlign, use_separable_roi_align

# inside, over the border, outside, degenerate, larger than the map
ROIS = torch.tensor(
    [
        [0, 3.0, 5, 30, 41],
        [1, -12, 40, 20, 90],
        [1, 200, 200, 220, 230],
        [0, 8, 8, 8, 8],
        [1, -20, -20, 120, 90],
        [0, 10, 1, 11, 50],
    ]
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_output_and_gradient_equal_torchvision(aligned, sampling_ratio):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 14, 18, requires_grad=True)
    results = []
    for layer in (ROIAlign, SeparableROIAlign):
        pooled = layer((7, 5), 0.25, sampling_ratio, aligned)(features, ROIS)
        weight = torch.linspace(-1, 1, pooled.numel()).view_as(pooled)
        (gradient,) = torch.autograd.grad((pooled * weight).sum(), features)
        results.append((pooled, gradient))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
    assert results[0][1].abs().sum() > 1


def test_no_regions_give_a_zero_gradient():
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    pooled = SeparableROIAlign((7, 7), 0.25, 0)(features, torch.zeros(0, 5))
    pooled.sum().backward()
    assert pooled.shape == (0, 2, 7, 7) and not features.grad.any()


def test_every_layer_is_replaced_with_its_own_settings():
    model = torch.nn.ModuleList([ROIAlign((7, 7), 0.25, 0), ROIAlign((5, 5), 0.5, 2, aligned=False)])
    use_separable_roi_align(model)
    assert [type(layer) for layer in model] == [SeparableROIAlign] * 2
    assert (model[1].output_size, model[1].spatial_scale, model[1].sampling_ratio) == ((5, 5), 0.5, 2)
    assert not model[1].aligned
