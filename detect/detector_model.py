"""The detector's model in a config: what the user says by our keys, by a Detectron2 YAML, or by single keys of it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from detect.detectron2_keys import OURS
from detect.heads import IDLE, default_strides
from pruning.errors import Refusal
from training.options import Positive, Section, changed
from training.type_words import InWords


class DetectorModel(Section):
    """The detector around the classifier. A key that is null or left out is as `config_file`,
    `overrides` or the default say.

    `head`: `fpn`, a Faster R-CNN on a feature pyramid over `strides`; `cascade`, the same with the three box heads of
    Cascade R-CNN; `c4`, a Faster R-CNN on a single level, the last of `strides` ([16]), with the classifier's next
    stage on each region (see detect/single_level.py); `retinanet`, one-stage, on a pyramid over strides [8, 16, 32].
    """

    head: Literal["fpn", "cascade", "c4", "retinanet"] = "fpn"
    """Kind of detector around the backbone; fpn, cascade and c4 are Faster R-CNNs, retinanet has one stage."""
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
    overrides: dict[str, Any] = {}
    """Single keys of Detectron2, such as {MODEL.RPN.NMS_THRESH: 0.6}."""
    config_file: Annotated[Path | dict[str, Any], InWords("path")] | None = None
    """A Detectron2 YAML whose keys are taken; `overrides` win over it."""

    @field_validator("config_file")
    @classmethod
    def _read(cls, value: Path | dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None or (isinstance(value, dict) and value.keys() == {"paths", "keys"}):
            return value
        if not isinstance(value, Path):
            raise Refusal("give the path of a Detectron2 YAML")
        from detect.user_config import with_content  # Detectron2, which classification works without

        return with_content(value)

    @model_validator(mode="after")
    def _valid_head(self) -> "DetectorModel":
        if not self.overrides and not self.config_file:
            unused = [name for name in IDLE.get(self.head, ()) if getattr(self, name) is not None]
            if unused:
                raise Refusal(f"head: {self.head} has no {' and no '.join(unused)}; set it to null or leave it out")
            return self
        from detect.detector_config import make_config, settings_from

        make_config(settings_from(self.settings(), num_classes=None))
        return self

    def detectron2(self) -> dict[str, Any]:
        """The keys that are given to Detectron2, with their values."""
        if not self.overrides and not self.config_file:
            return {}
        from detect.user_config import given_keys

        return {key: given.value for key, given in given_keys(self.config_file, self.overrides).items()}

    def changed_over_detectron2(self, changes: dict[str, Any], name: str) -> "DetectorModel":
        """These settings with `changes`, which win over Detectron2's keys for the same."""
        beaten = {key for key, (ours, _) in OURS.items() if ours.removeprefix("model.") in changes}
        left: dict[str, Any] = {}
        if isinstance(self.config_file, dict):
            keys = {key: value for key, value in self.config_file["keys"].items() if key not in beaten}
            left["config_file"] = {**self.config_file, "keys": keys}
        if beaten & self.overrides.keys():
            left["overrides"] = {key: value for key, value in self.overrides.items() if key not in beaten}
        return changed(self, {**left, **changes}, name)

    def settings(self) -> dict[str, Any]:
        """What defines a detector, as JSON; without `head` where it is the one that there always was: hashes last.

        A key that was left out is null where a key of Detectron2's says it.
        """
        data = self.model_dump(mode="json")
        given = self.detectron2()
        said = {OURS[key][0].removeprefix("model.") for key in given if key in OURS}
        data |= dict.fromkeys((said & data.keys()) - self.model_fields_set)
        if "strides" not in self.model_fields_set:
            data["strides"] = None if given else default_strides(self.head)
        if given:
            from detect.detector_config import resolve, settings_from

            found = resolve(settings_from(data, num_classes=None))
            data |= {"head": found.head, "strides": found.strides, "norm": found.norm, "freeze_at": found.freeze_at}
        data["strides"] = list(data["strides"])
        if data["head"] == "fpn":
            del data["head"]
        return data
