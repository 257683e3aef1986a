"""The detector's sections of a config: data, model, budget."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pruning.methods import get_method
from study.sections import Fraction, Positive, Section, changed

_PYRAMID_NORMS = ("", "BN", "SyncBN")  # others mix channels, or hold their scale as a constant


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


class Detector(Section):
    """The detection half of every route."""

    dataset: DetectorData
    model: DetectorModel = DetectorModel()
    train: DetectorTraining
    budget: Literal["same_iterations", "same_compute", "same_total"] = "same_iterations"  # see study/detector_budget.py
    # what `transfer_then_prune` prunes: the backbone, as in the paper, or also its FPN (see detect/pyramid.py),
    # one more stage to ratios by stage; with `prune.scope: all` the outputs of the backbone's stages narrow as well
    prune_scope: Literal["backbone", "backbone+fpn"] = "backbone"
    fine_tune: dict[str, Any] = {}  # what training after pruning inside the detector changes of `train`
    fine_tune_share: Annotated[float, Field(gt=0, lt=1)] = 0.3  # of the iterations: the budget stays equal
    from_scratch: dict[str, Any] = {"norm": "BN", "freeze_at": 0}  # what no pretraining changes of `model`

    @model_validator(mode="after")
    def _valid_changes(self) -> "Detector":
        if "iterations" in self.fine_tune:
            raise ValueError("fine_tune.iterations: the iterations follow from fine_tune_share")
        changed(self.train, self.fine_tune, "fine_tune")
        scratch = self.scratch_model()
        if scratch.norm == "FrozenBN" or scratch.freeze_at:
            raise ValueError("from_scratch: a network without pretraining needs a trainable norm and freeze_at: 0")
        return self

    @model_validator(mode="after")
    def _has_what_is_pruned(self) -> "Detector":
        if self.prune_scope != "backbone" and self.model.head != "fpn":
            raise ValueError(f"prune_scope: {self.prune_scope} needs model.head: fpn; {self.model.head} has no FPN")
        return self

    def scope_settings(self) -> dict[str, str]:
        """What a stage's settings say of the scope: nothing where it is the one that there always was."""
        return {} if self.prune_scope == "backbone" else {"scope": self.prune_scope}

    def scratch_model(self) -> DetectorModel:
        """The model settings of a detector that starts from random weights."""
        return changed(self.model, self.from_scratch, "from_scratch")

    def split_iterations(self) -> tuple[int, int]:
        """Iterations before and after pruning inside the detector; their sum is the budget."""
        after = max(1, round(self.train.iterations * self.fine_tune_share))
        if after >= self.train.iterations:
            raise ValueError(f"train.iterations={self.train.iterations} cannot be split for pruning in the detector")
        return self.train.iterations - after, after

    def training(self, phase: Literal["train", "before_pruning", "fine_tune"]) -> DetectorTraining:
        """The complete settings of a phase."""
        if phase == "train":
            return self.train
        before, after = self.split_iterations()
        if phase == "before_pruning":
            return changed(self.train, {"iterations": before}, phase)
        return changed(self.train, {**self.fine_tune, "iterations": after}, phase)


def stated_norm(model: Mapping[str, Any]) -> str | None:
    """The normalisation of the FPN in a stage's model settings; None where a Detectron2 YAML may say it."""
    return model["overrides"].get("MODEL.FPN.NORM", None if model["config_file"] else "")


def check_pyramid(method: str, norm: str) -> None:
    """ValueError where `method` cannot prune an FPN with this normalisation, Detectron2's MODEL.FPN.NORM."""
    if norm not in _PYRAMID_NORMS:
        raise ValueError(
            f"detector.prune_scope: backbone+fpn: an FPN with MODEL.FPN.NORM {norm!r} cannot be pruned;"
            f" choose from {', '.join(map(repr, _PYRAMID_NORMS))}"
        )
    if not norm and get_method(method).by_norms:
        raise ValueError(
            f"detector.prune_scope: backbone+fpn: {method} ranks channels by the BatchNorm behind them and the FPN has"
            " none; set detector.model.overrides to {MODEL.FPN.NORM: BN}, or prune_scope: backbone"
        )
