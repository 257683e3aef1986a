"""The detector's model in a config: what the user says by our keys, by a Detectron2 YAML, or by single keys of it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from detect.detectron2_keys import OURS
from detect.heads import IDLE, default_strides
from training.options import Positive, Section, changed


class DetectorModel(Section):
    """The detector around the classifier. A key that is left out: as `config_file` or `overrides` say, or the default.

    `head`: `fpn`, a Faster R-CNN on a feature pyramid over `strides`; `cascade`, the same with the three box heads of
    Cascade R-CNN; `c4`, a Faster R-CNN on a single level, the last of `strides` ([16]), with the classifier's next
    stage on each region (see detect/single_level.py); `retinanet`, one-stage, on a pyramid over strides [8, 16, 32].
    """

    head: Literal["fpn", "cascade", "c4", "retinanet"] = "fpn"
    image_size: Positive = 800  # shorter side in pixels
    max_image_size: Positive = 1333  # longer side in pixels
    strides: Annotated[tuple[Positive, ...], Field(min_length=1)] = (4, 8, 16, 32)
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"
    freeze_at: Annotated[int, Field(ge=0)] = 0  # 0: nothing is frozen, 1: the stem, 2: and the first stage, ...
    fpn_channels: Positive | None = None
    # pixels, one a level; with c4 all on the one
    anchor_sizes: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    anchor_ratios: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    rpn_batch_size: Positive | None = None
    roi_batch_size: Positive | None = None
    pre_nms_topk: Positive | None = None
    train_proposals: Positive | None = None
    test_proposals: Positive | None = None
    box_head_dim: Positive | None = None
    overrides: dict[str, Any] = {}  # Detectron2's keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | dict[str, Any] | None = None  # a Detectron2 YAML, whose content is kept; overrides win over it

    @field_validator("config_file")
    @classmethod
    def _read(cls, value: Path | dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None or (isinstance(value, dict) and value.keys() == {"paths", "keys"}):
            return value
        if not isinstance(value, Path):
            raise ValueError("give the path of a Detectron2 YAML")
        from detect.user_config import with_content  # Detectron2, which classification works without

        return with_content(value)

    @model_validator(mode="after")
    def _valid_head(self) -> "DetectorModel":
        if not self.overrides and not self.config_file:
            unused = [name for name in IDLE.get(self.head, ()) if getattr(self, name) is not None]
            if unused:
                raise ValueError(f"head: {self.head} has no {' and no '.join(unused)}; set it to null or leave it out")
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
