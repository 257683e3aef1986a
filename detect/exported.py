"""An exported file as Detectron2 would have the detector, so that it is fed and read in the same way."""

from collections.abc import Callable, Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from detect.data.records import Record


class ExportedDetector(nn.Module):
    """Records with `image` in, `instances` in the pixels of the pictures as they were out.

    `infer`: image (3, H, W), uint8 RGB -> what `detect.export.ImageDetector` gives.
    """

    def __init__(self, infer: Callable[[Tensor], Sequence[Tensor]]):
        super().__init__()
        self.infer = infer

    def forward(self, records: Sequence[Record]) -> list[dict[str, Instances]]:
        return [{"instances": self._of_one(record)} for record in records]

    def _of_one(self, record: Record) -> Instances:
        boxes, scores, classes, *masks = self.infer(record["image"])
        size = record["image"].shape[-2:]
        found = Instances((size[0], size[1]), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
        if masks:
            found.pred_masks = masks[0][:, None]
        return detector_postprocess(found, record["height"], record["width"])


def reading(*, shorter_side: int, longest_side: int) -> CfgNode:
    """Detectron2's config of how a picture is read for an exported detector: in RGB, its sides scaled to these."""
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT = shorter_side, longest_side, "RGB"
    return cfg
