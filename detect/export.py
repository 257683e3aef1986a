"""A detector as one function of one image, which can be traced and exported."""

import torch
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from classify.export import Signature

SIGNATURE = Signature(
    "image", {1: "height", 2: "width"}, {"boxes": "detections", "scores": "detections", "classes": "detections"}
)


class ImageDetector(nn.Module):
    """Image (3, H, W), uint8 RGB -> boxes (n, 4), scores (n,), classes (n,).

    Boxes are x0, y0, x1, y1 in pixels of the image as given; scores fall from first to last within what Detectron2's
    score threshold and suppression leave. Normalisation and padding are the detector's own, inside.
    """

    def __init__(self, detector: GeneralizedRCNN):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.detector.inference([{"image": image}], do_postprocess=False)
        return found.pred_boxes.tensor, found.scores, found.pred_classes


def example_image(size: tuple[int, int]) -> Tensor:
    """An image of noise, uint8 (3, height, width), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
