"""What a detector and its training are told, without Detectron2."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from detect.data.sets import DATASETS
from detect.detectron2_keys import OURS
from detect.heads import HEADS, check_idle
from pruning.errors import Refusal
from training import settings
from training.options import Fraction, Positive, Section, changed
from training.type_words import InWords, OneOf

# a section for each data set, of which one is given
_SECTIONS: dict[str, Any] = {
    name: (found.options | None, Field(None, description=found.meaning)) for name, found in DATASETS.items()
}


class DetectorData(create_model("DataSets", __base__=Section, **_SECTIONS)):  # type: ignore[misc]  # no static base
    """Exactly one of the data sets.

    `allow_shared`: go on although images of the test split are in training too; the result and the report say how many.
    `skip_broken`: go on without images that are absent or cannot be read, or whose VOC annotations are or cannot be;
    the result and the report name them.
    """

    allow_shared: bool = False
    """Go on although test images are among the training images; the report says how many."""
    skip_broken: bool = False
    """Go on without images or annotations that cannot be read; the report names them."""
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction of the training images kept for validation and not trained on; null: the data's own `val`, if any."""
    validation_seed: int = 0
    """Seed of the draw of validation images; not the seed of a run, so all runs have the same split."""

    @model_validator(mode="after")
    def _one(self) -> "DetectorData":
        given = [name for name in DATASETS if getattr(self, name) is not None]
        if len(given) != 1:
            *others, last = (f"`{name}`" for name in DATASETS)
            raise Refusal(f"give exactly one of {', '.join(others)} and {last}")
        if DATASETS[given[0]].generated:
            if self.skip_broken:
                raise Refusal(f"skip_broken: true has no effect on `{given[0]}`, which are generated; leave it out")
            if self.validation is not None:
                raise Refusal(f"validation: `{given[0]}` have validation images of their own; leave it out")
        return self

    @property
    def given(self) -> tuple[str, Section]:
        """The data set's name in DATASETS and its options."""
        return next((name, section) for name in DATASETS if (section := getattr(self, name)) is not None)

    @property
    def has_validation(self) -> bool:
        """Is there a split that nothing is trained on and that is not the test split?"""
        name, options = self.given
        return self.validation is not None or DATASETS[name].has_val(options)

    @property
    def title(self) -> str:
        """What a report calls it."""
        name, options = self.given
        return DATASETS[name].title(options)


class DetectorSettings(Section):
    """The detector around the classifier. What is not set is as `config_file`, `overrides` or else the default say.

    `head`: `fpn`, a Faster R-CNN on a feature pyramid over `strides`; `cascade`, the same with the three box heads of
    Cascade R-CNN; `mask`, with a mask of each object as in Mask R-CNN; `c4`, a Faster R-CNN on a single level, the last
    of `strides` ([16]), with the classifier's next stage on each region (see detect/single_level.py); `retinanet`,
    one-stage, on a pyramid over strides [8, 16, 32].
    """

    head: Annotated[str, OneOf(HEADS, "head")] = "fpn"
    """Kind of detector around the backbone: Faster, Cascade or Mask R-CNN, one on a single level, or RetinaNet."""
    image_size: Positive = 800
    """Shorter side to which images are scaled, in pixels."""
    max_image_size: Positive = 1333
    """Longest that the longer side may become, in pixels."""
    strides: Annotated[tuple[Positive, ...], Field(min_length=1)] = (4, 8, 16, 32)
    """Levels of the backbone that are read, by their stride in pixels; retinanet: [8, 16, 32] if left out."""
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"
    """Normalisation of the backbone; FrozenBN keeps the classifier's statistics."""
    freeze_at: Annotated[int, Field(ge=0)] = 0
    """How much of the backbone is not trained: 0 nothing, 1 the stem, 2 and the first stage, and so on."""
    fpn_channels: Positive | None = None
    """Channels of every level of the FPN; null: 256."""
    anchor_sizes: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    """Sides of the anchor boxes in pixels, one for each level (c4: all on its one); null: Detectron2's."""
    anchor_ratios: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    """Height over width of the anchor boxes; null: 0.5, 1 and 2."""
    rpn_batch_size: Positive | None = None
    """Anchors per image in the loss of the proposals (RPN); null: 256."""
    roi_batch_size: Positive | None = None
    """Regions per image in the loss of the box head; null: 512."""
    pre_nms_topk: Positive | None = None
    """Best proposals of each level kept for suppression; null: 2000, in evaluation 1000 (c4: 12000, 6000)."""
    train_proposals: Positive | None = None
    """Proposals per image that training keeps after suppression; null: 1000 (c4: 2000)."""
    test_proposals: Positive | None = None
    """Proposals per image that evaluation keeps after suppression; null: 1000."""
    box_head_dim: Positive | None = None
    """Width of the fully connected layers of the box head; null: 1024."""
    overrides: dict[str, object] = {}
    """Single keys of Detectron2, such as {MODEL.RPN.NMS_THRESH: 0.6}."""
    config_file: Annotated[Path | dict[str, object], InWords("path")] | None = None
    """A Detectron2 YAML whose keys are taken; `overrides` win over it."""

    @field_validator("config_file")
    @classmethod
    def _read(cls, value: Path | dict[str, object] | None) -> dict[str, object] | None:
        if value is None or (isinstance(value, dict) and value.keys() == {"paths", "keys"}):
            return value
        if not isinstance(value, Path):
            raise Refusal("give the path of a Detectron2 YAML")
        from detect.user_config import with_content  # Detectron2, which classification works without

        return with_content(value)

    @model_validator(mode="after")
    def _valid_head(self) -> "DetectorSettings":
        check_idle(self.head, self.stated())
        return self

    def stated(self) -> dict[str, Any]:
        """The keys that are set, with their values."""
        return self.model_dump(exclude_unset=True, exclude_none=True)

    def detectron2(self) -> dict[str, object]:
        """The keys that are given to Detectron2, with their values."""
        if not self.overrides and not self.config_file:
            return {}
        from detect.user_config import given_keys

        return {key: given.value for key, given in given_keys(self.config_file, self.overrides).items()}

    def changed_over_detectron2(self, changes: Mapping[str, object], name: str) -> "DetectorSettings":
        """These settings with `changes`, which win over Detectron2's keys for the same."""
        beaten = {key for key, (ours, _) in OURS.items() if ours.removeprefix("model.") in changes}
        left: dict[str, object] = {}
        if isinstance(self.config_file, dict):
            keys = self.config_file["keys"]
            assert isinstance(keys, Mapping)  # see `with_content`
            left["config_file"] = {**self.config_file, "keys": {k: v for k, v in keys.items() if k not in beaten}}
        if beaten & self.overrides.keys():
            left["overrides"] = {key: value for key, value in self.overrides.items() if key not in beaten}
        return changed(self, {**left, **changes}, name)

    def resolved(self) -> "DetectorSettings":
        """These settings with head, strides, norm and freeze_at set to what holds."""
        stated = self.stated()
        found = {"head": self.head, "norm": self.norm, "freeze_at": self.freeze_at}
        found["strides"] = stated.get("strides", HEADS[self.head].strides)
        if self.overrides or self.config_file:
            from detect.user_config import given_keys, settled

            found |= settled(stated, given_keys(self.config_file, self.overrides))
        return self.model_copy(update=found)

    def as_json(self) -> dict[str, object]:
        """What defines a detector, as JSON; without `head` where it is the one that there always was: hashes last.

        A key that is not set is null where a key of Detectron2's says it.
        """
        found = self.resolved()
        said = {OURS[key][0].removeprefix("model.") for key in self.detectron2() if key in OURS}
        data = found.model_dump(mode="json")
        data |= dict.fromkeys((said & data.keys()) - found.model_fields_set)
        if found.head == "fpn":
            del data["head"]
        return data


class TrainSettings(settings.Optimisation):
    """How a detector is trained; durations are fractions of `iterations`."""

    iterations: Positive
    """Training steps of a detector."""
    batch_size: Positive
    """Images per step, over all processes."""
    schedule: Literal["step", "cosine"] = "step"
    """Course of the learning rate: down by `gamma` at `milestones`, or along a cosine to 0."""
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)  # Detectron2's 60k and 80k of 90k
    """Where the rate is multiplied by `gamma` (schedule `step`), as fractions of the iterations, ascending."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the iterations in which the learning rate rises from a thousandth of `lr`."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient over all parameters, which is cut to it; null: no limit."""
    flip: bool = False
    """Mirror training images left to right at random."""
    colour_jitter: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Change brightness, contrast and saturation at random by up to this fraction each; null: not."""
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Show images of classes that fewer than this fraction of images have more often (LVIS); null: all alike."""
    group_by_aspect: bool = False
    """Make batches of images that are all wide or all tall, which saves padding."""
    validate_every: Positive | None = None
    """Iterations from one measurement of AP on the validation split to the next; the last one too. Null: none."""
    keep: Literal["last", "best"] = "last"
    """Iteration whose weights are kept: the last, or the one of the highest AP that `validate_every` found."""
    patience: Positive | None = None
    """Measurements in a row without a higher AP after which the training ends; null: it never ends early."""

    @model_validator(mode="after")
    def _measures_what_it_goes_by(self) -> "TrainSettings":
        asked = ["keep: best"] if self.keep == "best" else []
        asked += [f"patience: {self.patience}"] if self.patience is not None else []
        if asked and self.validate_every is None:
            raise Refusal(f"{asked[0]} goes by AP on the validation split; set validate_every too, such as 500")
        return self


class Distillation(Section):
    """How the training of a pruned detector is distilled from the unpruned one."""

    features: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the squared difference of the FPN's features; 0: they are not distilled."""
    logits: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence of the box head's class logits; 0: they are not distilled."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Number that class logits are divided by before they are compared."""

    @model_validator(mode="after")
    def _distils_something(self) -> "Distillation":
        if not self.features and not self.logits:
            raise Refusal("features and logits are both 0, so nothing is distilled; set distill: null")
        return self


@dataclass(frozen=True, kw_only=True)
class TrainRun(settings.Run):
    """What one run adds. `num_workers`: processes that load images; 0: the training process does."""

    num_workers: int = 0
