"""The detector's sections of a config: data, model, budget."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from classify.regimes import FINE_TUNE, REGIMES, RETRAINING
from detect.budgets import BUDGETS, DEFAULT, remaining
from detect.data.sets import DATASETS
from detect.heads import HEADS, heads_that
from detect.settings import DetectorData, DetectorSettings, Distillation, TrainSettings
from pruning.errors import Refusal
from pruning.methods import get_method
from training.options import Section, changed
from training.type_words import OneOf

# the weights that a detector had in the middle of its training are not kept
_RETRAINING = tuple(name for name in RETRAINING if REGIMES[name].init == "inherited")
NO_VALIDATION = (
    "and the detector's data has none; set detector.dataset.validation, such as 0.1, to keep a share of the training"
    " images for it, or name its own by `val`"
)
_PYRAMID_NORMS = ("", "BN", "SyncBN")  # others mix channels, or hold their scale as a constant


class DetectorModel(DetectorSettings):
    """The settings of a detector, checked by what Detectron2 makes of them."""

    @model_validator(mode="after")
    def _can_be_built(self) -> "DetectorModel":
        if self.overrides or self.config_file:
            from detect.detector_config import make_config  # Detectron2, which classification works without

            make_config(self, num_classes=None)
        return self


class Detector(Section):
    """The detection half of every route."""

    dataset: DetectorData
    """Data to train and test on: exactly one of the data sets below."""
    model: DetectorModel = DetectorModel()
    """The detector around the classifier."""
    train: TrainSettings
    """How the detector is trained."""
    budget: Annotated[str, OneOf(BUDGETS, "budget")] = DEFAULT
    """What routes have in common: iterations, detector-training compute, or the compute of all stages."""
    # what `transfer_then_prune` prunes: the backbone, as in the paper, or also its FPN (see detect/pyramid.py),
    # one more stage to ratios by stage; with `prune.scope: all` the outputs of the backbone's stages narrow as well
    prune_scope: Literal["backbone", "backbone+fpn"] = "backbone"
    """What pruning inside the detector prunes: the backbone, as in the paper, or its FPN as well."""
    fine_tune: dict[str, object] = {}
    """Keys of `detector.train` that training after pruning inside the detector changes."""
    # a regime of its own keeps what `fine_tune` says of all but the rates
    retrain: Annotated[str, OneOf(_RETRAINING, "regime of a detector's retraining")] = FINE_TUNE
    """Regime after pruning inside the detector: as `fine_tune` says, or at the rates of the training before pruning."""
    # of detectors whose backbone was pruned and keeps its weights, before the transfer or inside the detector
    distill: Distillation | None = None
    """How pruned detectors learn from the unpruned one of the same seed as well; null: from the labels alone."""
    prune_at: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Fraction of the iterations before pruning inside the detector; 0: it is pruned right after the transfer."""
    after_pruning: Literal["rest", "full"] = "rest"
    """Iterations after pruning inside the detector: the rest of `train.iterations`, or as many again on top."""
    from_scratch: dict[str, object] = {"norm": "BN", "freeze_at": 0}
    """Keys of `detector.model` that a detector without pretraining changes."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: object) -> object:
        if isinstance(data, dict) and "fine_tune_share" in data:
            raise Refusal("fine_tune_share has become prune_at, its complement: 0.3 is prune_at: 0.7")
        return data

    @model_validator(mode="after")
    def _valid_changes(self) -> "Detector":
        if "iterations" in self.fine_tune:
            raise Refusal("fine_tune.iterations: the iterations follow from prune_at and after_pruning")
        if self.prune_at == 1 and self.after_pruning == "rest":
            raise Refusal("prune_at: 1 leaves no iteration after pruning; set after_pruning: full")
        changed(self.train, self.fine_tune, "fine_tune")
        scratch = self.scratch_model().resolved()
        if scratch.norm == "FrozenBN" or scratch.freeze_at:
            raise Refusal("from_scratch: a network without pretraining needs a trainable norm and freeze_at: 0")
        return self

    @model_validator(mode="after")
    def _has_what_is_pruned(self) -> "Detector":
        head, there = self.model.resolved().head, heads_that(lambda head: head.pyramid)
        if self.prune_scope != "backbone" and head not in there:
            raise Refusal(f"prune_scope: {self.prune_scope} needs model.head: {' or '.join(there)}; {head} has no FPN")
        return self

    @model_validator(mode="after")
    def _has_masks_to_learn(self) -> "Detector":
        head, (data, _) = self.model.resolved().head, self.dataset.given
        if HEADS[head].masks and not DATASETS[data].outlines:
            there = ", ".join(f"`{name}`" for name, kind in DATASETS.items() if kind.outlines)
            raise Refusal(
                f"model.head: {head} learns masks from outlines of objects: they are read of {there}, not of `{data}`"
            )
        return self

    @model_validator(mode="after")
    def _has_what_is_distilled(self) -> "Detector":
        if self.distill is None:
            return self
        head = self.model.resolved().head
        if self.distill.features and not HEADS[head].pyramid:
            raise Refusal(f"distill.features: a detector with model.head: {head} has no FPN; set it to 0")
        if self.distill.logits and not HEADS[head].roi_heads:
            raise Refusal(f"distill.logits: a detector with model.head: {head} has no box head on regions; set it to 0")
        if BUDGETS[self.budget] is remaining:
            raise Refusal(
                f"distill: budget {self.budget} counts all stages, and to train the teacher costs all of it; choose"
                " another budget or set distill: null"
            )
        return self

    @model_validator(mode="after")
    def _has_what_trainings_need(self) -> "Detector":
        trainings = {"train": self.train, "fine_tune": changed(self.train, self.fine_tune, "fine_tune")}
        for name, train in trainings.items():
            check_augmentation(self.model, train, name)
        asking = next((name for name, train in trainings.items() if train.validate_every), None)
        if asking is not None and not self.dataset.has_validation:
            raise Refusal(f"{asking}.validate_every: AP is measured on a validation split, {NO_VALIDATION}")
        return self

    def scope_settings(self) -> dict[str, str]:
        """What a stage's settings say of the scope: nothing where it is the one that there always was."""
        return {} if self.prune_scope == "backbone" else {"scope": self.prune_scope}

    def scratch_model(self) -> DetectorSettings:
        """The model settings of a detector that starts from random weights; they win over Detectron2's keys."""
        return self.model.changed_over_detectron2(self.from_scratch, "from_scratch")

    def split_iterations(self) -> tuple[int, int]:
        """Iterations before and after pruning inside the detector.

        With `after_pruning: rest` their sum is the budget, so pruning later leaves less to recover in. With `full` the
        time of pruning changes alone: as much training follows whenever it is.
        """
        total = self.train.iterations
        # at least one iteration, or the pruned detector would be scored without any training
        rest = max(1, round(total * (1 - self.prune_at))) if self.prune_at < 1 else 0
        before = total - rest
        if self.prune_at and not before:
            raise Refusal(f"train.iterations={total} cannot be split at prune_at: {self.prune_at:g}")
        return before, rest if self.after_pruning == "rest" else total

    def training(self, phase: Literal["train", "before_pruning", "fine_tune"]) -> TrainSettings:
        """The complete settings of a phase."""
        if phase == "train":
            return self.train
        before, after = self.split_iterations()
        if phase == "before_pruning":  # unchecked, as it may be 0
            return self.train.model_copy(update={"iterations": before})
        return changed(self.train, {**self.fine_tune, "iterations": after}, phase)


def check_augmentation(model: DetectorSettings, train: TrainSettings, where: str) -> None:
    """ValueError where a key of `train` and Detectron2's key for the same are set to different values."""
    given = model.detectron2()
    for name, key, value in (
        ("flip", "INPUT.RANDOM_FLIP", "horizontal" if train.flip else "none"),
        ("group_by_aspect", "DATALOADER.ASPECT_RATIO_GROUPING", train.group_by_aspect),
    ):
        if key in given and name in train.model_fields_set and given[key] != value:
            raise Refusal(
                f"{where}.{name}: {getattr(train, name)} and {key}={given[key]!r} differ; leave one of the two out"
            )


def check_pyramid(method: str, norm: str) -> None:
    """ValueError where `method` cannot prune an FPN with this normalisation, Detectron2's MODEL.FPN.NORM."""
    if norm not in _PYRAMID_NORMS:
        raise Refusal(
            f"detector.prune_scope: backbone+fpn: an FPN with MODEL.FPN.NORM {norm!r} cannot be pruned;"
            f" choose from {', '.join(map(repr, _PYRAMID_NORMS))}"
        )
    if not norm and get_method(method).by_norms:
        raise Refusal(
            f"detector.prune_scope: backbone+fpn: {method} ranks channels by the BatchNorm behind them and the FPN has"
            " none; set detector.model.overrides to {MODEL.FPN.NORM: BN}, or prune_scope: backbone"
        )
