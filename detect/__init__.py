"""Any classifier as a Detectron2 detector.

`Backbone` is a Detectron2 backbone made of a classifier, for a project of your own; here a pruned one in Faster R-CNN:

    import torch, torchvision, pruning, detect
    from detectron2.config import get_cfg
    from detectron2.modeling import BACKBONE_REGISTRY, FPN, build_model
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    classifier, image = torchvision.models.resnet50(weights="DEFAULT"), torch.randn(1, 3, 224, 224)
    groups = pruning.find_groups(classifier, image)
    small = pruning.prune(classifier, groups, "l1_filter", pruning.Selection(ratio=0.5), batch=image).model

    @BACKBONE_REGISTRY.register()
    def small_resnet_fpn(cfg, input_shape):
        features = detect.Backbone(small, norm="FrozenBN", freeze_at=2)
        return FPN(features, list(features.output_shape()), cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())

    cfg = get_cfg()
    cfg.merge_from_file("Base-RCNN-FPN.yaml")
    cfg.MODEL.BACKBONE.NAME = "small_resnet_fpn"
    cfg.MODEL.WEIGHTS = ""  # those of the classifier are in it
    cfg.INPUT.FORMAT = "RGB"  # pixels as torchvision's classifiers expect them
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    detector = build_model(cfg)

`build_detector` does all that from one `DetectorSettings`:

    detector, cfg = detect.build_detector(small, detect.DetectorSettings(freeze_at=2), num_classes=80)

`add_pruned_config` and `PrunedBottomUp` take a pruned network from its folder, by a YAML or a LazyConfig:
docs/detectron2.md shows how.

Detectron2 is imported when one of these names is first used; training classifiers does without it.
"""

from typing import TYPE_CHECKING

from prune_transfer import __version__ as __version__
from prune_transfer import check_packages

if TYPE_CHECKING:
    from detect.backbone import ClassifierBackbone as Backbone
    from detect.build import build_detector
    from detect.pruned import PrunedBottomUp, add_pruned_config
    from detect.settings import DetectorSettings

check_packages("pruning", "training", "classify")

__all__ = ["Backbone", "DetectorSettings", "PrunedBottomUp", "add_pruned_config", "build_detector"]


def __getattr__(name: str) -> object:
    """The names above, imported late (PEP 562)."""
    if name == "Backbone":
        from detect.backbone import ClassifierBackbone

        return ClassifierBackbone
    if name == "build_detector":
        from detect.build import build_detector

        return build_detector
    if name == "DetectorSettings":
        from detect.settings import DetectorSettings

        return DetectorSettings
    if name in ("PrunedBottomUp", "add_pruned_config"):
        from detect import pruned

        return pruned.PrunedBottomUp if name == "PrunedBottomUp" else pruned.add_pruned_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
