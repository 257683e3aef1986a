"""Detectron2's box head with its first linear layer computed as a convolution over the whole pooled region.

It is the same product: a region's (C, P, P) values against a filter of that size. PyTorch gives a convolution to oneDNN
and a linear layer to MKL, which on AMD processors leaves half of the vector unit idle.
"""

import torch
import torch.nn.functional as F
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from torch import Tensor, nn


@ROI_BOX_HEAD_REGISTRY.register()
class ConvolvedBoxHead(FastRCNNConvFCHead):
    """FastRCNNConvFCHead, equal to rounding; on GPUs and in a trace it is that itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Pooled regions (R, C, P, P) -> (R, F)."""
        if x.device.type != "cpu" or torch.jit.is_tracing():
            return super().forward(x)
        for layer in self:
            if isinstance(layer, nn.Linear) and x.dim() == 4:
                x = F.conv2d(x, layer.weight.view(-1, *x.shape[1:]), layer.bias).flatten(1)
            elif not isinstance(layer, nn.Flatten):
                x = layer(x)
        return x
