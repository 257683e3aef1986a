"""A detector on one feature map: the classifier up to a level, and on each region the classifier's next stage.

He et al., Deep Residual Learning (arXiv 1512.03385, appendix A): the RPN and the regions share the features of stride
16, and each region of 14 x 14 passes the network's last stage, "res5", before it is averaged and classified. Here
the stage is cut out of any classifier, dense or pruned, with the classifier's weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ROI_HEADS_REGISTRY, Backbone, GeneralizedRCNN, RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads
from torch import Tensor, nn

from detect.backbone import ClassifierBackbone
from pruning.errors import Refusal

_STAGE: ContextVar[tuple[nn.Module, int] | None] = ContextVar("offered_stage", default=None)


class SingleLevel(Backbone):
    """The last feature map alone of `bottom_up`, under its name; the same place in a detector as an FPN's."""

    def __init__(self, bottom_up: ClassifierBackbone):
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()
        self.level = max(shapes, key=lambda name: shapes[name].stride)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.level: self.bottom_up(x)[self.level]}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Width and stride of the level."""
        return {self.level: self.bottom_up.output_shape()[self.level]}

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of the stride."""
        return self.bottom_up.output_shape()[self.level].stride


@ROI_HEADS_REGISTRY.register()
class StageROIHeads(Res5ROIHeads):
    """Detectron2's Res5ROIHeads with the offered stage of the classifier for res5; boxes only."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, object]:
        """Arguments of the constructor; ValueError without `build_detector`."""
        offered = _STAGE.get()
        if offered is None:
            raise Refusal(f"{cls.__name__} needs a classifier: build the detector with detect.build.build_detector")
        stage, channels = offered
        (level,) = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler = ROIPooler(
            output_size=cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
            scales=(1.0 / input_shape[level].stride,),
            sampling_ratio=cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
            pooler_type=cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
        )
        return {
            **super(Res5ROIHeads, cls).from_config(cfg),  # Res5ROIHeads' own would make a ResNet-50's stage
            "in_features": [level],
            "pooler": pooler,
            "res5": stage,
            "box_predictor": FastRCNNOutputLayers(cfg, ShapeSpec(channels=channels, height=1, width=1)),
        }


def masked_parts(detector: GeneralizedRCNN | RetinaNet) -> dict[str, nn.Module]:
    """The parts that masks of single weights may cover; parameters have their names there.

    "body": the bottom-up network, named as the classifier. "stage": a single level's stage on regions, named likewise.
    "fpn": what has an FPN's layers, by Detectron2's names for them.
    """
    parts = {"body": detector.backbone.bottom_up.body}
    if isinstance(detector, GeneralizedRCNN) and isinstance(detector.roi_heads, StageROIHeads):
        parts["stage"] = detector.roi_heads.res5
    if isinstance(detector.backbone, FPN):
        parts["fpn"] = detector.backbone
    return parts


@contextmanager
def offer_stage(stage: tuple[nn.Module, int] | None) -> Iterator[None]:
    """While Detectron2 builds: the stage that StageROIHeads takes, and its output's width."""
    token = _STAGE.set(stage)
    try:
        yield
    finally:
        _STAGE.reset(token)
