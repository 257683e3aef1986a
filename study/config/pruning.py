"""The section `prune` of a config: what is removed, and by which method."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor

from classify.data.images import at_most_of_each
from pruning.by_target import check_target
from pruning.errors import Refusal
from pruning.methods import DEFAULT, METHODS
from pruning.select import Ratio, Selection
from pruning.targets import TARGETS
from training.options import Positive, Section, check_level, read_method_options, validated
from training.type_words import OneOf


class CalibrationData(Section):
    """How much of the training data a method sees that looks at activations or gradients; others read no key of it."""

    images: Positive = 512
    """Training images that such a method looks at in a classifier, as many of each class."""
    per_class: Positive | None = None
    """Instead of `images`, how many of each class; null: as `images` says."""
    batches: Positive = 16
    """Training batches that such a method looks at in a detector, of `detector.train.batch_size` images."""

    @model_validator(mode="after")
    def _one_number_of_images(self) -> "CalibrationData":
        if self.per_class is not None and "images" in self.model_fields_set:
            raise Refusal(
                f"per_class {self.per_class} and images {self.images} both say how many images; leave out one"
            )
        return self

    def counted_by(self, unit: Literal["images", "batches"]) -> dict[str, int]:
        """The one key of it that a pruning reads which looks at images, or at batches, and its value."""
        if unit == "batches":
            return {"batches": self.batches}
        return {"images": self.images} if self.per_class is None else {"per_class": self.per_class}

    def n_images(self, labels: Tensor) -> int:
        """Of images with these class indices (N,), how many are looked at, the classes taking turns."""
        if self.per_class is None:
            return self.images
        return at_most_of_each(labels, self.per_class)


_TARGETS = ("target", "target_macs", "target_params")
_AMOUNTS = {"ratio", "target_macs", "target_params"}


class BetweenLayers(Section):
    """How a method that prunes layer by layer fine-tunes the network after each; all else is as in fine_tune."""

    epochs: Positive = 1
    """Passes over the training images after each layer; ThiNet takes one or two."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate, constant; all else is as in `classifier.fine_tune`."""


class Pruning(Section, Selection):
    """What is removed: a published `target`, or a `method` and how far it goes by the keys of a `Selection`."""

    method: Annotated[str, OneOf(METHODS, "pruning method")] = DEFAULT
    """Pruning method; `prune-transfer prune --list` prints each with its options."""
    options: dict[str, object] = {}
    """Options of the method; a wrong name lists those there are."""
    target: Annotated[str, OneOf(TARGETS, "target")] | None = None
    """Published pruned shape to cut to, instead of `ratio` and all else that says how much of which layers goes."""
    layers: dict[str, Ratio] = {}  # a config says nothing by an empty mapping, not by null
    """Fraction removed of single layers, by name or pattern; it wins over `ratio`, and a name in full over patterns."""
    calibration: CalibrationData = CalibrationData()
    """How much data is seen by a method that looks at activations or gradients."""
    # in the shape of the network before, with what was removed held at zero: that is what it costs
    between_layers: BetweenLayers | None = None
    """Fine-tuning after each layer that thinet or reconstruction prunes in a classifier; null: none."""
    allow_partial: bool = False
    """Take a result where far less than asked can be removed; otherwise that is an error."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_no_ratio(cls, data: object) -> object:
        """So that `ratio: null` takes back the ratio of a `_base_`, which a target does not go with."""
        # 0 stands for a key that is not there: only null is looked for
        if not isinstance(data, dict) or data.get("ratio", 0) is not None:
            return data
        if all(data.get(key) is None for key in _TARGETS):
            raise Refusal(
                f"ratio: null takes back a ratio where {', '.join(_TARGETS[:-1])} or {_TARGETS[-1]} says how much goes,"
                " and none of them does; give a fraction"
            )
        return {key: value for key, value in data.items() if key != "ratio"}

    @model_validator(mode="after")
    def _consistent(self) -> "Pruning":
        options = read_method_options(self.method, self.options)
        if "level" in self.model_fields_set:
            check_level(self.method, options, self.level)
        fixed = self.model_fields_set & {field.name for field in fields(Selection)}
        if self.target is not None and fixed:
            raise Refusal(f"target {self.target!r} already says what is removed; drop {', '.join(sorted(fixed))}")
        wanted = self.selection().cost_target
        if wanted is not None:
            check_target(self.method, options)
            if "ratio" in self.model_fields_set:
                key = f"target_{wanted[0]}"
                raise Refusal(
                    f"{key}: the ratio of it is searched, so `ratio` does not go with it; leave it out, or take back"
                    " that of a `_base_` by ratio: null"
                )
        if self.between_layers is not None:
            self._check_between_layers()
        return self

    def _check_between_layers(self) -> None:
        if not METHODS[self.method].between_layers:
            able = ", ".join(name for name, method in METHODS.items() if method.between_layers)
            raise Refusal(f"between_layers: {self.method} does not train after each layer; choose from {able}")
        if self.target is not None and TARGETS[self.target].selection is None:
            raise Refusal(f"between_layers: target {self.target!r} is cut to at once, not layer by layer")

    def changed(self, changes: Mapping[str, object]) -> "Pruning":
        """With what a step of a route changes, validated as one: a changed method must take the options that stay.

        An amount among the changes takes the place of the file's, whichever key that has.
        """
        # two amounts would be refused, and the step means to replace the one in the file
        gone = _AMOUNTS - changes.keys() if _AMOUNTS & changes.keys() else set()
        # what the file does not say stays unsaid: a target refuses even the default of a ratio
        data = {**self.model_dump(mode="json", exclude_unset=True), **changes}
        return validated(type(self), {key: value for key, value in data.items() if key not in gone}, "prune")

    def selection(self) -> Selection:
        """The selection that these keys ask for."""
        if self.target is not None:  # a target without one removes whole blocks or reads fewer inputs
            return TARGETS[self.target].selection or Selection(ratio=0.0)
        said = {field.name: getattr(self, field.name) for field in fields(Selection)}
        return Selection(**{**said, "layers": self.layers or None})
