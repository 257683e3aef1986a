"""Detectron2's box head with the products of its linear layers computed where they are fast (training/products.py)."""

from detectron2.modeling import ROI_BOX_HEAD_REGISTRY
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from torch import Tensor, nn

from training.products import linear


@ROI_BOX_HEAD_REGISTRY.register()
class ConvolvedBoxHead(FastRCNNConvFCHead):
    """FastRCNNConvFCHead, equal to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """Pooled regions (R, C, P, P) -> (R, F)."""
        for layer in self:
            x = linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)
        return x
