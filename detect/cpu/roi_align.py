"""ROIAlign whose gradient is two matrix products: the same values, several times faster on the CPU.

ROIAlign (He et al., Mask R-CNN, ICCV 2017, section 3) averages bilinear samples on a regular grid in
each bin. Both the grid and the bilinear weights are products of a vertical and a horizontal part, so a
region pooled from a feature map F (H, W) is A F B^T with A (P, H) and B (P, W), and the gradient of F
is A^T G B.
"""

import torch
from detectron2.layers import ROIAlign
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torchvision.ops import roi_align

# The products read all rows and columns of the map: on maps larger than this, gathering samples is cheaper.
_MAX_POSITIONS = 64 * 64


class SeparableROIAlign(ROIAlign):
    """Detectron2's ROIAlign with the fast gradient where it pays: on the CPU, on small feature maps."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Feature maps (N, C, H, W) and rois (R, 5) of (image, x0, y0, x1, y1) in pixels -> (R, C, P, P).

        On a GPU it is the compiled operator always: where deterministic algorithms are on, torchvision takes one in
        Python instead, whose memory grows with regions x channels x bins x samples and is not there at a detector's
        sizes. So the gradient of ROIAlign is then not deterministic; PyTorch warns of it, or raises unless `warn_only`.
        """
        if input.device.type != "cpu" and torch.are_deterministic_algorithms_enabled():
            return self._compiled(input, rois)
        small = input.shape[-1] * input.shape[-2] <= _MAX_POSITIONS
        if input.device.type != "cpu" or not small or not input.requires_grad:
            return super().forward(input, rois)
        return _SeparableBackward.apply(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )

    def _compiled(self, input: Tensor, rois: Tensor) -> Tensor:
        height, width = _pair(self.output_size)
        where = rois.to(input.dtype), self.spatial_scale, height, width, self.sampling_ratio, self.aligned
        return torch.ops.torchvision.roi_align(input, *where)


def use_separable_roi_align(model: nn.Module) -> None:
    """Replace every ROIAlign of the model by the one with the fast gradient. It has no weights."""
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
        return roi_align(features, rois, output_size, scale, sampling_ratio, aligned)

    @staticmethod
    def backward(ctx, grad):
        (rois,) = ctx.saved_tensors
        (n, channels, height, width), dtype = ctx.features
        (bins_y, bins_x), scale, ratio, aligned = ctx.pooling
        rows = _weights(rois[:, [2, 4]].float(), bins_y, height, scale, ratio, aligned)  # (R, bins_y, H)
        columns = _weights(rois[:, [1, 3]].float(), bins_x, width, scale, ratio, aligned)
        result = grad.new_zeros(n, channels, height, width)
        for image in range(n):
            regions = (rois[:, 0] == image).nonzero().squeeze(1)
            # (r, C, bins_y, bins_x) -> (r, bins_y * C, bins_x) @ (r, bins_x, W) -> (r * bins_y, C * W)
            inner = grad[regions].float().transpose(1, 2).flatten(1, 2) @ columns[regions]
            inner = inner.view(len(regions) * bins_y, channels * width)
            outer = rows[regions].view(-1, height).T @ inner  # (H, C * W)
            result[image] = outer.view(height, channels, width).transpose(0, 1)
        return result.to(dtype), None, None, None, None, None


def _weights(span: Tensor, bins: int, size: int, scale: float, sampling_ratio: int, aligned: bool) -> Tensor:
    """(R, 2) start and end in pixels -> (R, bins, size): what each position of one axis gives to each bin."""
    span = span * scale - (0.5 if aligned else 0.0)
    length = span[:, 1] - span[:, 0]
    if not aligned:
        length = length.clamp(min=1.0)
    samples = torch.full_like(length, sampling_ratio) if sampling_ratio > 0 else (length / bins).ceil()
    step = torch.arange(int(samples.max().clamp(min=0)) if len(samples) else 0, dtype=span.dtype)
    step, samples = step.view(1, 1, -1), samples[:, None, None]
    count = samples.clamp(min=1)  # an empty region has no samples
    offsets = torch.arange(bins)[:, None] + (step + 0.5) / count  # (R, bins, samples), in bins
    position = span[:, :1, None] + offsets * (length / bins)[:, None, None]
    used = (step < samples) & (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    # bilinear weight of each grid line: 1 at the sample's own position, falling to 0 one line away
    hat = (1 - (position[..., None] - torch.arange(size)).abs()).clamp(min=0)
    return (hat * used[..., None]).sum(2) / count
