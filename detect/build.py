"""Detectron2 detectors around any classifier.

The backbone is registered with Detectron2 under one name, BACKBONE_NAME, so that its own builder makes
everything else (FPN, RPN, heads) from its own config, a user's YAML included. A config cannot hold a
network: `build_detector` offers the bottom-up network to the registered builder while Detectron2 builds.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, GeneralizedRCNN, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from classify.export import Signature
from detect.backbone import ClassifierBackbone, stage_after
from detect.cpu.proposals import BlockwiseRPN
from detect.cpu.roi_align import use_separable_roi_align
from detect.settings import DetectorSettings
from detect.single_level import SingleLevel, StageROIHeads, offer_stage

BACKBONE_NAME = "build_classifier_fpn_backbone"
SINGLE_LEVEL_NAME = "build_classifier_single_level_backbone"
HEADS = ("fpn", "c4")
_OFFERED: ContextVar[ClassifierBackbone | None] = ContextVar("offered_backbone", default=None)


def build_detector(
    classifier: nn.Module, *, settings: DetectorSettings, device: str = "cpu"
) -> tuple[GeneralizedRCNN, CfgNode]:
    """A Detectron2 detector with `classifier` (copied) as its backbone, and the config it was built from.

    Weights are the classifier's in the backbone and freshly drawn elsewhere (seed first). Raises
    ValueError on an unknown Detectron2 key and on settings that do not fit each other.
    """
    bottom_up = ClassifierBackbone(
        classifier, strides=settings.strides, norm=settings.norm, freeze_at=settings.freeze_at
    )
    cfg = make_config(settings, device=device)
    stage = stage_after(classifier, settings.strides[-1], norm=settings.norm) if settings.head == "c4" else None
    with _offer(bottom_up), offer_stage(stage):
        detector = build_model(cfg)
    use_separable_roi_align(detector)
    return detector, cfg


def make_config(settings: DetectorSettings, *, device: str = "cpu") -> CfgNode:
    """Detectron2's config: its defaults, then the user's YAML, then the settings, then the overrides."""
    if settings.head not in HEADS:
        raise ValueError(f"head={settings.head!r} is not one of {', '.join(HEADS)}")
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = BlockwiseRPN.__name__
    (_set_pyramid_defaults if settings.head == "fpn" else _set_single_level_defaults)(cfg)
    if settings.config_file is not None:
        _merge_file(cfg, settings.config_file)
    _set(cfg, _from_settings(settings, device), source="settings")
    _set(cfg, settings.overrides, source="overrides")
    if settings.head == "fpn":
        _check_levels(cfg, settings.strides)
    return cfg


def _set_pyramid_defaults(cfg: CfgNode) -> None:
    """As in Detectron2's Base-RCNN-FPN.yaml."""
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000, 1000


def _set_single_level_defaults(cfg: CfgNode) -> None:
    """As in Detectron2's Base-RCNN-C4.yaml; regions of 14 x 14, which the stage after the level halves."""
    cfg.MODEL.ROI_HEADS.NAME = StageROIHeads.__name__
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 6000, 1000


@BACKBONE_REGISTRY.register()
def build_classifier_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's builder of the offered classifier with an FPN and one max-pooled level on top."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise ValueError(f"{BACKBONE_NAME} needs a classifier: build the detector with detect.build.build_detector")
    shapes = bottom_up.output_shape()
    top = LastLevelMaxPool()
    top.in_feature = f"p{max(_level(s.stride) for s in shapes.values())}"
    return FPN(
        bottom_up=bottom_up,
        in_features=list(shapes),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_classifier_single_level_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SingleLevel:
    """Detectron2's builder of the offered classifier with its last level alone."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise ValueError(f"{SINGLE_LEVEL_NAME} needs a classifier: build the detector with detect.build.build_detector")
    return SingleLevel(bottom_up)


@contextmanager
def _offer(bottom_up: ClassifierBackbone) -> Iterator[None]:
    token = _OFFERED.set(bottom_up)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def _level(stride: int) -> int:
    return int(math.log2(stride))


def _from_settings(settings: DetectorSettings, device: str) -> dict[str, Any]:
    """Detectron2's keys of the settings; those of the backbone follow from its strides."""
    keys = {
        **(_pyramid_keys(settings) if settings.head == "fpn" else _single_level_keys(settings)),
        "MODEL.DEVICE": device,
        "MODEL.WEIGHTS": "",
        "MODEL.BACKBONE.FREEZE_AT": settings.freeze_at,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": settings.rpn_batch_size,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": settings.pre_nms_topk,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": settings.pre_nms_topk,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": settings.train_proposals,
        "MODEL.RPN.POST_NMS_TOPK_TEST": settings.test_proposals,
        "MODEL.ROI_HEADS.NUM_CLASSES": settings.num_classes,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": settings.roi_batch_size,
        "MODEL.ROI_BOX_HEAD.FC_DIM": settings.box_head_dim,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": settings.anchor_ratios and [list(settings.anchor_ratios)],
        "MODEL.PIXEL_MEAN": [255.0 * v for v in settings.pixel_mean],
        "MODEL.PIXEL_STD": [255.0 * v for v in settings.pixel_std],
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TRAIN": (settings.image_size,),
        "INPUT.MIN_SIZE_TEST": settings.image_size,
        "INPUT.MAX_SIZE_TRAIN": settings.max_image_size,
        "INPUT.MAX_SIZE_TEST": settings.max_image_size,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _pyramid_keys(settings: DetectorSettings) -> dict[str, Any]:
    levels = [f"p{_level(s)}" for s in settings.strides]
    top = f"p{_level(settings.strides[-1]) + 1}"
    anchor_sizes = settings.anchor_sizes or [8.0 * 2 ** int(p[1:]) for p in [*levels, top]]
    return {
        "MODEL.BACKBONE.NAME": BACKBONE_NAME,
        "MODEL.FPN.IN_FEATURES": [f"s{s}" for s in settings.strides],
        "MODEL.FPN.OUT_CHANNELS": settings.fpn_channels,
        "MODEL.RPN.IN_FEATURES": [*levels, top],
        "MODEL.ROI_HEADS.IN_FEATURES": levels,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[float(s)] for s in anchor_sizes],
    }


def _single_level_keys(settings: DetectorSettings) -> dict[str, Any]:
    stride = settings.strides[-1]
    for name in ("fpn_channels", "box_head_dim"):
        if getattr(settings, name) is not None:
            raise ValueError(f"{name}={getattr(settings, name)} means nothing with head='c4'; leave it out")
    # 32 to 512 pixels at stride 16, Detectron2's default
    anchor_sizes = settings.anchor_sizes or [stride * 2.0**k for k in range(1, 6)]
    return {
        "MODEL.BACKBONE.NAME": SINGLE_LEVEL_NAME,
        "MODEL.RPN.IN_FEATURES": [f"s{stride}"],
        "MODEL.ROI_HEADS.IN_FEATURES": [f"s{stride}"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[float(size) for size in anchor_sizes]],
    }


def _set(cfg: CfgNode, values: Mapping[str, Any], *, source: str) -> None:
    known = _known_keys(cfg)
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, n=3)
            raise ValueError(
                f"{source}: {key} is not a key of Detectron2" + (f"; near: {', '.join(near)}" if near else "")
            )
        try:
            cfg.merge_from_list([key, list(value) if isinstance(value, tuple) else value])
        except ValueError as error:
            raise ValueError(f"{source}: {key}={value!r} does not fit: {error}") from error


def _known_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in node.items():
        keys += _known_keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return keys


def _merge_file(cfg: CfgNode, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: no such Detectron2 config file")
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except (KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a config of Detectron2: {' '.join(str(error).split())}") from error


def _check_levels(cfg: CfgNode, strides: tuple[int, ...]) -> None:
    wanted, sizes = len(strides) + 1, cfg.MODEL.ANCHOR_GENERATOR.SIZES
    if len(sizes) not in (1, wanted):
        raise ValueError(f"anchor_sizes has {len(sizes)} entries for {wanted} levels: strides {strides} and one on top")


SIGNATURE = Signature(
    "image", {1: "height", 2: "width"}, {"boxes": "detections", "scores": "detections", "classes": "detections"}
)
_PIXELS, _SCORE = 0.5, 1e-3  # how far a box's sides, taken together, may move and a score for it to be the same
_LEAST_SHARE = 0.9  # of the detections that must be found again


class ImageDetector(nn.Module):
    """Image (3, H, W), uint8 RGB -> boxes (n, 4), scores (n,), classes (n,).

    Boxes are x0, y0, x1, y1 in pixels of the image as given; scores fall from first to last within what Detectron2's
    score threshold and suppression leave. Normalisation and padding are the detector's own, inside. ValueError for a
    meta-architecture that is not in `_INFERENCE`.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector
        kinds = [kind for kind in _INFERENCE if isinstance(detector, kind)]
        if not kinds:
            known = ", ".join(kind.__name__ for kind in _INFERENCE)
            raise ValueError(f"a detector of kind {type(detector).__name__} cannot be exported; those of {known} can")
        self._infer = _INFERENCE[kinds[0]]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with _OneImage():
            found = self._infer(self.detector, image)
        return found.pred_boxes.tensor, found.scores, found.pred_classes


class _OneImage(TorchFunctionMode):
    """Splitting by image leaves the tensor as it is: a trace would keep how many proposals its example image had.

    Detectron2's heads (box, cascade, mask) concatenate the regions of all images and split their outputs by
    `[len(p) for p in proposals]`, numbers that a trace records as constants.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
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
    """How many classes a detector of these weights tells apart: Faster R-CNN, with or without a cascade, or RetinaNet.

    ValueError where neither's predictor is among them.
    """
    scores = next((name for name in weights if name.endswith("cls_score.weight")), None)
    if scores is None:
        raise ValueError("the weights are of no Faster R-CNN and no RetinaNet: none is named cls_score.weight")
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
    """Compares detections, each (boxes (n, 4), scores (n,), classes (n,)), and counts those that it compared."""

    detections: int = 0

    def __call__(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The largest difference in score between detections that are the same; 0.0 without any.

        Suppression may turn on the last digit of a score, so a few may be missing on either side. ValueError where
        more than those few are: then something else was computed.
        """
        (boxes, scores, classes), (boxes_, scores_, classes_) = expected, found
        if boxes_.shape != (len(scores_), 4) or scores_.shape != classes_.shape:
            shapes = ", ".join(str(tuple(t.shape)) for t in found)
            raise ValueError(f"the exported network gives boxes, scores and classes of shapes {shapes}")
        apart = (scores[:, None] - scores_[None]).abs()  # (n, n_)
        moved = (boxes[:, None] - boxes_[None]).abs().flatten(2).sum(2)
        same = (moved <= _PIXELS) & (apart <= _SCORE) & (classes[:, None] == classes_[None])
        again = min(int(same.any(1).sum()), int(same.any(0).sum()))
        if again < _LEAST_SHARE * max(same.shape) - 1:
            few = f"finds {len(scores_)} objects, {again} of them among the {len(scores)} that PyTorch finds"
            raise ValueError(f"the exported network {few}")
        self.detections += again
        return float(apart[same].max()) if again else 0.0
