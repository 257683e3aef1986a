"""A detector as a function of one image, for export, and what tells whether an exported file computes the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from classify.export import Signature
from pruning.errors import Refusal

SIGNATURE = Signature(
    "image", {1: "height", 2: "width"}, {"boxes": "detections", "scores": "detections", "classes": "detections"}
)
# how far a box's sides, taken together, a score, and a mask's pixels on average may move for it to be the same
_PIXELS, _SCORE, _MASK = 0.5, 1e-3, 1e-2
_LEAST_SHARE = 0.9  # of the detections that must be found again


class ImageDetector(nn.Module):
    """Image (3, H, W), uint8 RGB -> boxes (n, 4), scores (n,), classes (n,); of one with masks also masks (n, M, M).

    Boxes are x0, y0, x1, y1 in pixels of the image as given; scores fall from first to last within what Detectron2's
    score threshold and suppression leave. A mask says how probably each part of its box, of M x M, is the object's.
    Normalisation and padding are the detector's own, inside. `signature` names input and outputs. ValueError for a
    meta-architecture that is not in `_INFERENCE`.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector
        kinds = [kind for kind in _INFERENCE if isinstance(detector, kind)]
        if not kinds:
            known = ", ".join(kind.__name__ for kind in _INFERENCE)
            raise Refusal(f"a detector of kind {type(detector).__name__} cannot be exported; those of {known} can")
        self._infer = _INFERENCE[kinds[0]]
        masks = isinstance(detector, GeneralizedRCNN) and detector.roi_heads.mask_on
        outputs = {**SIGNATURE.outputs, **({"masks": "detections"} if masks else {})}
        self.signature = replace(SIGNATURE, outputs=outputs)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        with _OneImage():
            found = self._infer(self.detector, image)
        masks = (found.pred_masks[:, 0],) if "masks" in self.signature.outputs else ()
        return found.pred_boxes.tensor, found.scores, found.pred_classes, *masks


class _OneImage(TorchFunctionMode):
    """Splitting by image leaves the tensor as it is: a trace would keep how many proposals its example image had.

    Detectron2's heads (box, cascade, mask) concatenate the regions of all images and split their outputs by
    `[len(p) for p in proposals]`, numbers that a trace records as constants.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func in (Tensor.split, torch.split) and len(args) == 2 and isinstance(args[1], list) and len(args[1]) == 1:
            return (args[0],)
        return func(*args, **(kwargs or {}))


def _infer_by_regions(detector: GeneralizedRCNN, image: Tensor) -> Instances:
    return detector.inference([{"image": image}], do_postprocess=False)[0]


def _infer_densely(detector: DenseDetector, image: Tensor) -> Instances:
    """As DenseDetector's own forward pass, without the rescaling to another image size."""
    images = detector.preprocess_image([{"image": image}])
    levels = detector.backbone(images.tensor)
    features = [levels[name] for name in detector.head_in_features]
    return detector.forward_inference(images, features, detector.head(features))[0]


_INFERENCE: dict[type, Callable[..., Instances]] = {GeneralizedRCNN: _infer_by_regions, DenseDetector: _infer_densely}


def example_image(size: tuple[int, int]) -> Tensor:
    """An image of noise, uint8 (3, height, width), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def other_images(size: tuple[int, int]) -> list[Tensor]:
    """What an export must also read as PyTorch does: other sizes and contents than the example, and almost nothing.

    Upright and lying, of odd sides; so small that there are few proposals; a blank one, of almost one grey: in one of a
    single grey all anchors of a level score alike, and which of them are proposed is no answer that could be compared.
    """
    height, width = size
    sizes = [(height + height // 3 + 1, max(width // 2, 1)), (max(height // 2, 1), width + 5), (16, 24)]
    return [*map(example_image, sizes), example_image(size) // 32 + 112]


def number_of_classes(weights: Mapping[str, Tensor]) -> int:
    """How many classes a detector of these weights tells apart: a Faster R-CNN, a cascade and masks too, or RetinaNet.

    ValueError where neither's predictor is among them.
    """
    scores = next((name for name in weights if name.endswith("cls_score.weight")), None)
    if scores is None:
        raise Refusal("the weights are of no Faster R-CNN and no RetinaNet: none is named cls_score.weight")
    if scores.startswith("roi_heads."):
        return len(weights[scores]) - 1  # less the background
    anchors = len(weights[scores.replace("cls_score", "bbox_pred")]) // 4
    return len(weights[scores]) // anchors


@contextmanager
def every_score(detector: nn.Module) -> Iterator[None]:
    """While the block runs, Detectron2's score thresholds are 0: then a detector finds something in any image."""
    thresholds = {m: m.test_score_thresh for m in detector.modules() if hasattr(m, "test_score_thresh")}
    try:
        for module in thresholds:
            module.test_score_thresh = 0.0  # type: ignore[assignment]  # a number, not a layer
        yield
    finally:
        for module, threshold in thresholds.items():
            module.test_score_thresh = threshold


@dataclass
class DetectionComparison:
    """Compares detections, as `ImageDetector` gives them, and counts those that it compared."""

    detections: int = 0

    def __call__(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The largest difference in score between detections that are the same; 0.0 without any.

        Suppression may turn on the last digit of a score, so a few may be missing on either side. ValueError where
        more than those few are: then something else was computed.
        """
        (boxes, scores, classes, *masks), (boxes_, scores_, classes_, *masks_) = expected, found
        if boxes_.shape != (len(scores_), 4) or scores_.shape != classes_.shape:
            shapes = ", ".join(str(tuple(t.shape)) for t in found)
            raise Refusal(f"the exported network gives boxes, scores and classes of shapes {shapes}")
        apart = (scores[:, None] - scores_[None]).abs()  # (n, n_)
        moved = (boxes[:, None] - boxes_[None]).abs().flatten(2).sum(2)
        same = (moved <= _PIXELS) & (apart <= _SCORE) & (classes[:, None] == classes_[None])
        for mask, mask_ in zip(masks, masks_, strict=True):  # one of each, or none
            same &= (mask[:, None] - mask_[None]).abs().flatten(2).mean(2) <= _MASK
        again = min(int(same.any(1).sum()), int(same.any(0).sum()))
        if again < _LEAST_SHARE * max(same.shape) - 1:
            few = f"finds {len(scores_)} objects, {again} of them among the {len(scores)} that PyTorch finds"
            raise Refusal(f"the exported network {few}")
        self.detections += again
        return float(apart[same].max()) if again else 0.0
