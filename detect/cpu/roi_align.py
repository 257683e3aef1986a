"""ROIAlign whose gradient is two matrix products: the same values, several times faster on the CPU, and on a GPU the
same bits each time.

ROIAlign (He et al., Mask R-CNN, ICCV 2017, section 3) averages bilinear samples on a regular grid in
each bin. Both the grid and the bilinear weights are products of a vertical and a horizontal part, so a
region pooled from a feature map F (H, W) is A F B^T with A (P, H) and B (P, W), and the gradient of F
is A^T G B.
"""

import torch
from detectron2.layers import ROIAlign
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from training.products import transposed_product

# The products read all rows and columns of the map: on maps larger than this, gathering samples is cheaper.
_MAX_POSITIONS = 64 * 64


class SeparableROIAlign(ROIAlign):
    """Detectron2's ROIAlign with the gradient by products where it pays: on the CPU, on small feature maps.

    On a GPU it is taken where deterministic algorithms are on: the operator's own gradient adds in any order there.
    """

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Feature maps (N, C, H, W) and rois (R, 5) of (image, x0, y0, x1, y1) in pixels -> (R, C, P, P)."""
        pooling = self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        small = input.shape[-1] * input.shape[-2] <= _MAX_POSITIONS
        repeatable = torch.are_deterministic_algorithms_enabled()
        if input.requires_grad and (small if input.device.type == "cpu" else repeatable):
            return _SeparableBackward.apply(input, rois, *pooling)
        return _pool(input, rois, *pooling)


def _pool(
    input: Tensor, rois: Tensor, output_size: int | tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """The compiled operator. torchvision's function takes another for deterministic algorithms on a GPU, in Python,
    whose memory grows with regions x channels x bins x samples and is not there at a detector's sizes."""
    height, width = _pair(output_size)
    return torch.ops.torchvision.roi_align(input, rois.to(input.dtype), scale, height, width, ratio, aligned)


def use_separable_roi_align(model: nn.Module) -> None:
    """Replace every ROIAlign of the model by `SeparableROIAlign`. It has no weights."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is ROIAlign:
                fast = SeparableROIAlign(
                    child.output_size, child.spatial_scale, child.sampling_ratio, aligned=child.aligned
                )
                setattr(module, name, fast)


class _SeparableBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, rois, output_size, scale, sampling_ratio, aligned):
        rois = rois.to(features.dtype)
        ctx.save_for_backward(rois)
        ctx.features = features.shape, features.dtype
        ctx.pooling = output_size, scale, sampling_ratio, aligned
        return _pool(features, rois, output_size, scale, sampling_ratio, aligned)

    @staticmethod
    def backward(ctx, grad):
        (rois,) = ctx.saved_tensors
        (n, channels, height, width), dtype = ctx.features
        size, scale, ratio, aligned = ctx.pooling
        result = grad.new_zeros(n, channels, height, width)
        if not len(rois):  # as on most levels of a pyramid, where all objects are small
            return result.to(dtype), None, None, None, None, None
        order = rois[:, 0].argsort(stable=True)
        counts = rois[:, 0].long().bincount(minlength=n).tolist()  # regions of each image
        if not rois[:, 0].equal(rois[order, 0]):
            rois, grad = rois[order], grad[order]
        bins_y, bins_x = _pair(size)
        rows = _weights(rois[:, [2, 4]].float(), bins_y, height, scale, ratio, aligned)  # (R, bins_y, H)
        columns = _weights(rois[:, [1, 3]].float(), bins_x, width, scale, ratio, aligned)
        parts = zip(grad.float().split(counts), rows.split(counts), columns.split(counts), strict=True)
        for image, (part, vertical, horizontal) in enumerate(parts):
            # (r, C, bins_y, bins_x) -> (r, bins_y * C, bins_x) @ (r, bins_x, W) -> (r * bins_y, C * W)
            inner = part.transpose(1, 2).flatten(1, 2) @ horizontal
            inner = inner.view(len(part) * bins_y, channels * width)
            outer = transposed_product(vertical.reshape(-1, height), inner)  # (H, C * W)
            result[image] = outer.view(height, channels, width).transpose(0, 1)
        return result.to(dtype), None, None, None, None, None


def _weights(span: Tensor, bins: int, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    """(R, 2) start and end in pixels -> (R, bins, size): what each position of one axis gives to each bin."""
    span = span * scale - (0.5 if aligned else 0.0)
    length = span[:, 1] - span[:, 0]
    if not aligned:
        length = length.clamp(min=1.0)
    samples = torch.full_like(length, sampling_ratio) if sampling_ratio > 0 else (length / bins).ceil()
    step = torch.arange(int(samples.max().clamp(min=0)) if len(samples) else 0, dtype=span.dtype, device=span.device)
    step, samples = step.view(1, 1, -1), samples[:, None, None]
    count = samples.clamp(min=1)  # an empty region has no samples
    offsets = torch.arange(bins, device=span.device)[:, None] + (step + 0.5) / count  # (R, bins, samples), in bins
    position = span[:, :1, None] + offsets * (length / bins)[:, None, None]
    used = (step < samples) & (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    # bilinear weight of each grid line: 1 at the sample's own position, falling to 0 one line away
    hat = (position[..., None] - torch.arange(size, device=span.device)).abs_().neg_().add_(1).clamp_(min=0)
    return hat.mul_(used[..., None]).sum(2) / count
