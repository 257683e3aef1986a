"""What a detector and its training are told, without Detectron2."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from training.device import Precision
from training.options import Fraction, Positive, Section


@dataclass(frozen=True)
class DetectorSettings:
    """What defines a detector apart from its classifier. None: as in `config_file` or Detectron2.

    `head`: "fpn", a feature pyramid over `strides` and one level on top; or "c4", a single level, the last of `strides`
    (earlier ones only count stages for `freeze_at`), and on each region the classifier's stage after that level, as in
    the Faster R-CNN of He et al. (arXiv 1512.03385, appendix A), there stride 16 and res5.
    """

    num_classes: int
    head: str = "fpn"
    image_size: int = 800  # shorter side in pixels, in training and evaluation
    max_image_size: int = 1333  # longer side in pixels
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB in 0..1, the classifier's
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    strides: tuple[int, ...] = (4, 8, 16, 32)
    norm: str = "FrozenBN"
    freeze_at: int = 0
    fpn_channels: int | None = None
    anchor_sizes: tuple[float, ...] | None = None  # pixels; fpn: one per level (8 x stride), c4: on the level
    anchor_ratios: tuple[float, ...] | None = None
    rpn_batch_size: int | None = None  # anchors per image in the RPN's loss
    roi_batch_size: int | None = None  # regions per image in the heads' loss
    pre_nms_topk: int | None = None  # proposals per level, training and evaluation
    train_proposals: int | None = None  # per image, after suppression
    test_proposals: int | None = None
    box_head_dim: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)  # Detectron2 keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | None = None  # a Detectron2 YAML, merged in first


@dataclass(frozen=True)
class TrainSettings:
    """How a detector is trained. Durations that stretch with the budget are fractions of `iterations`."""

    iterations: int
    batch_size: int  # images per step over all processes
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not on normalisation layers
    schedule: str = "step"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)  # Detectron2's 60k and 80k of 90k
    gamma: float = 0.1
    warmup: float = 0.05
    warmup_factor: float = 1e-3
    clip_norm: float | None = None  # bound of the gradient's L2 norm over all parameters
    seed: int = 0
    precision: str | Precision = "auto"  # one of classify.precision.PRECISIONS, or what one was settled to
    flip: bool = False
    group_by_aspect: bool = False
    num_workers: int = 0
    checkpoint_every: int = 200  # iterations
    report_every: int = 20


class Scenes(Section):
    """The embedded detection data: scenes of several digits on photographs (detect/scenes.py)."""

    image_size: Annotated[int, Field(ge=32)] = 128
    train: Positive = 600
    val: Positive = 60
    test: Positive = 300
    digits_per_scene: tuple[Positive, Positive] = (2, 6)
    digit_size: tuple[Positive, Positive] = (16, 44)
    seed: int = 0


class CocoFiles(Section):
    """An annotation file in COCO's format and the folder of its images; relative to the working directory."""

    annotations: Path
    images: Path


class CocoData(Section):
    """A detection data set of the user's own."""

    train: CocoFiles
    test: CocoFiles


class VocPart(Section):
    """Training images of Pascal VOC, or of a data set in its layout.

    Without `root` it is Pascal VOC itself, where Detectron2 has it: VOC<year> in $DETECTRON2_DATASETS, or in datasets/.
    `train`: a name in ImageSets/Main or the path of a list of ids.
    """

    root: Path | None = None  # has Annotations/, JPEGImages/ and ImageSets/; relative to the working directory
    train: str = "trainval"
    year: Literal[2007, 2012] = 2012  # whose metric comes first: at 11 points, or continuous

    def folder(self) -> Path:
        """Where the data set is."""
        if self.root is not None:
            return self.root
        return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / f"VOC{self.year}"


class VocData(VocPart):
    """Training and test images; `also` joins those of other folders to the training images.

    The usual "07+12" is {year: 2007, also: [{year: 2012}]}.
    """

    test: str = "test"
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  # None: those of the annotations, sorted
    also: tuple[VocPart, ...] = ()

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"classes {list(value)} repeat themselves")
        return value


class DetectorData(Section):
    """Exactly one of the three.

    `allow_shared`: go on although images of the test split are in training too; the result and the report say how many.
    """

    digits: Scenes | None = None
    coco: CocoData | None = None
    voc: VocData | None = None
    allow_shared: bool = False

    @model_validator(mode="after")
    def _one(self) -> "DetectorData":
        if sum(part is not None for part in (self.digits, self.coco, self.voc)) != 1:
            raise ValueError("give exactly one of `digits`, `coco` and `voc`")
        return self

    @property
    def title(self) -> str:
        """What a report calls it."""
        if self.voc is not None:
            return f"{self.voc.folder()}, {self.voc.test}"
        return str(self.coco.test.annotations) if self.coco is not None else "digits"


class DetectorModel(Section):
    """Faster R-CNN around the classifier; None: as in `config_file` or Detectron2.

    `head`: `fpn`, a feature pyramid over `strides`; `c4`, a single level, the last of `strides` ([16]), with the
    classifier's next stage on each region (see detect/single_level.py).
    """

    head: Literal["fpn", "c4"] = "fpn"
    image_size: Positive = 800  # shorter side in pixels
    max_image_size: Positive = 1333  # longer side in pixels
    strides: tuple[Positive, ...] = (4, 8, 16, 32)
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"
    freeze_at: Annotated[int, Field(ge=0)] = 0  # 0: nothing is frozen, 1: the stem, 2: and the first stage, ...
    fpn_channels: Positive | None = None
    anchor_sizes: tuple[float, ...] | None = None  # pixels, one a level; with c4 all on the one
    anchor_ratios: tuple[float, ...] | None = None
    rpn_batch_size: Positive | None = None
    roi_batch_size: Positive | None = None
    pre_nms_topk: Positive | None = None
    train_proposals: Positive | None = None
    test_proposals: Positive | None = None
    box_head_dim: Positive | None = None
    overrides: dict[str, Any] = {}  # Detectron2's keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | None = None  # a Detectron2 YAML that is merged in first

    @model_validator(mode="after")
    def _valid_head(self) -> "DetectorModel":
        unused = [name for name in ("fpn_channels", "box_head_dim") if getattr(self, name) is not None]
        if self.head == "c4" and unused:
            raise ValueError(f"head: c4 has no {' and no '.join(unused)}; set it to null or leave it out")
        return self

    def settings(self) -> dict[str, Any]:
        """What defines a detector, as JSON; without `head` where it is the one that there always was: hashes last."""
        data = self.model_dump(mode="json")
        if self.head == "fpn":
            del data["head"]
        return data


class DetectorTraining(Section):
    """The detection budget, the same for every route; durations are fractions of `iterations`."""

    iterations: Positive
    batch_size: Positive
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    gamma: float = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    flip: bool = False
    group_by_aspect: bool = False
