"""The typed schema of what can be run: a study, one classifier, one detector. Sections are in `sections.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from classify.models import get_model
from classify.regimes import BASE, BY_STEP
from pruning.errors import Refusal
from pruning.methods import METHODS, get_method
from pruning.targets import TARGETS
from study.config.detector import Detector
from study.config.load import merge
from study.config.pruning import Pruning
from study.config.sections import Classifier, ClassifierData, Evaluation, Machine, Weights
from study.config.tune import check_tuned
from training.options import Positive, Section, validated
from training.type_words import InWords, OneOf

_NAME = InWords("text of letters, digits, `_`, `.` and `-`, beginning with a letter or digit")
_ROUTES = InWords("list of names, or mapping of names to lists of steps")


class Guide(Section):
    """Where the pattern of a guided design comes from: networks that an automatic method pruned, one a seed.

    `classifier` changes the study's classifier (another architecture or data set: *transferred* guided pruning).
    """

    prune: Pruning
    """How the networks whose pattern is taken are pruned."""
    classifier: dict[str, object] = {}
    """Keys of the study's `classifier` that differ for the guide: another architecture or data set."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Seeds of the networks whose pattern is taken, one network each."""


class Expected(Section):
    """A published number that the report sets beside ours; it changes nothing that is run."""

    route: str
    """Route whose result the number is set beside, as in `pipelines`."""
    where: dict[str, object] = {}
    """Where in the grid: a value of each field that matters to the route, {variant: ..., prune.ratio: 0.5}."""
    measure: str
    """What is compared: top1 or top5; of detectors AP, AP50 or AP75."""
    value: Annotated[float, Field(ge=0, le=100)]
    """The published number, in percent."""
    spread: Annotated[float, Field(ge=0)] | None = None
    """Published standard deviation over runs; null: none was given."""
    source: Annotated[str, Field(min_length=1)]
    """Publication and place in it, such as "Liu et al. 2019, table 2"."""
    seen: bool
    """True: the number was seen in its source; one from memory is refused."""

    @field_validator("seen")
    @classmethod
    def _was_seen(cls, value: bool) -> bool:
        if not value:
            raise Refusal("a number from memory is not shown; look it up in its source, or leave it out")
        return value


class _Config(Section):
    """A whole config; one of another kind is refused in one sentence, and not key by key."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_this_kind(cls, data: object) -> object:
        told = _kind(data) if isinstance(data, dict) else None
        # a network to prune alone is described by keys of a classifier's config
        if told is not None and SCHEMAS[told] is not cls and (told, cls) != ("classifier", PruneConfig):
            raise Refusal(f"this is a {told}'s config, which `prune-transfer {COMMANDS[told]}` takes")
        return data


class StudyConfig(_Config):
    """A whole study: what is trained, which routes are compared, on which seeds."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"), _NAME]
    """Name of the study and of its folder of results."""
    title: str = ""
    """Title of the report; empty: the name."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Seeds on which every route is run; results are means over them."""
    classifier: Classifier
    """The network to prune and its training."""
    prune: Pruning = Pruning()
    """What is removed."""
    guide: Guide | None = None
    """Networks that give `prune.method: guided` its pattern, instead of files."""
    detector: Detector | None = None
    """The detector around it; null: classifiers are compared."""
    evaluate: Evaluation = Evaluation()
    """What is done with a finished network."""
    pipelines: Annotated[list[str] | dict[str, list[str | dict[str, dict[str, object]]]], _ROUTES]
    """Routes that are compared: names of known ones, or your own as {name: [steps]}; the README lists both."""
    grid: Annotated[dict[str, list[object]], InWords("mapping of key paths to lists of values")] = {}
    """Key paths with the values to try, such as {prune.ratio: [0.3, 0.5]}; every combination is run."""
    variants: Annotated[dict[str, dict[str, object]], InWords("mapping of names to changes")] = {}
    """Named changes of this config, such as {random: {prune: {method: random}}}; `prune` is replaced whole."""
    tune: Annotated[dict[str, list[float]], InWords("mapping of key paths to lists of numbers")] = {}
    """Rates to try for each route on the validation split, such as {detector.train.lr: [0.01, 0.03]}."""
    tune_seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (1000,)
    """Seeds on which rates are tried; none of `seeds`."""
    expect: tuple[Expected, ...] = ()
    """Published numbers that the report sets beside ours."""
    machine: Machine = Machine()
    """Where and how the study runs."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "StudyConfig":
        name = self.prune.target
        if name is not None and TARGETS[name].arch != self.classifier.arch:
            raise Refusal(
                f"prune.target {name!r} is a shape of {TARGETS[name].arch!r}, not of {self.classifier.arch!r}"
            )
        if self.detector is None and self.classifier.dataset is None:
            raise Refusal("classifier.dataset: a study without `detector` compares classifiers, which need one")
        return self

    @model_validator(mode="after")
    def _guide_fits(self) -> "StudyConfig":
        if self.guide is None:
            return self
        if not get_method(self.prune.method).follows_patterns and not self.variants:
            able = " or ".join(repr(name) for name, method in METHODS.items() if method.follows_patterns)
            raise Refusal(f"guide: only method {able} follows patterns, not prune.method {self.prune.method!r}")
        if self.prune.options.get("patterns"):
            raise Refusal("guide: the pattern comes from there or from prune.options.patterns, not from both")
        other = sorted({"arch", "options", "dataset"} & self.guide.classifier.keys())
        if self.classifier.weights is not None and other and "weights" not in self.guide.classifier:
            raise Refusal(
                f"guide.classifier: it changes {', '.join(other)}, but would start from {self.classifier.weights}, the"
                " weights of the study's own network; set guide.classifier.weights: null to train it, or to its file"
            )
        # refuses what does not fit, before anything runs
        self.guided_classifier()
        return self

    def guided_classifier(self) -> Classifier:
        """The classifier that patterns are taken from."""
        changes = {} if self.guide is None else self.guide.classifier
        if "weights" in changes:  # what was said of the study's weights is not said of these
            changes = {"replace_head": False, **changes}
        return validated(Classifier, merge(self.classifier.model_dump(), changes), "guide.classifier")

    @field_validator("grid", "variants", "tune", mode="before")
    @classmethod
    def _null_is_none_at_all(cls, value: object) -> object:
        """As `null` replaces what a `_base_` says, where an empty mapping would leave it as it is."""
        return {} if value is None else _not_empty(value)

    @field_validator("expect", mode="before")
    @classmethod
    def _null_expects_nothing(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("pipelines", mode="before")
    @classmethod
    def _pipelines_are_distinct(cls, value: object) -> object:
        if isinstance(value, list) and len({str(name) for name in value}) != len(value):
            raise Refusal(f"{value} repeat themselves")
        return _not_empty(value)

    @model_validator(mode="after")
    def _grid_has_values(self) -> "StudyConfig":
        for key, values in self.grid.items():
            if not values:
                raise Refusal(f"grid.{key} has no value, so nothing would be run")
            if any(value in values[:k] for k, value in enumerate(values)):
                raise Refusal(f"grid.{key}: the values {values} repeat themselves")
        return self

    @model_validator(mode="after")
    def _rates_fit(self) -> "StudyConfig":
        check_tuned(self.tune, self.grid, self.classifier, self.detector)
        both = sorted(set(self.seeds) & set(self.tune_seeds))
        if self.tune and both:
            raise Refusal(
                f"tune_seeds: {both} are `seeds` of the study too, whose results would decide about themselves"
            )
        return self

    @field_validator("seeds", "tune_seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise Refusal(f"{list(value)} repeat themselves")
        return value


def _not_empty(value: object) -> object:
    if isinstance(value, list | dict) and not value:
        raise Refusal(f"{value} is empty; leave the key out or name at least one")
    return value


class Schedule(Section):
    """How long the unpruned network is trained, which the epochs of Scratch-B follow from."""

    epochs: Positive | None = None
    """Passes over the training images; null: the target's own, else 160."""


class NetworkToPrune(Section):
    """The network that is pruned alone."""

    arch: str | None = None
    """Architecture's name, as `prune-transfer prune --list` prints it; null: the target's own."""
    options: dict[str, object] = {}
    """Options of the architecture, such as {width: 0.5}."""
    num_classes: Positive | None = None
    """Classes that the network tells apart; null: 10 where its images have 32 pixels or fewer, else 1000."""
    weights: Weights = None
    """Its weights, a file or published ones; null: they are drawn at random."""
    dataset: ClassifierData | Path | None = None
    """Images for methods that look at activations or gradients: a data set, or a folder or zip of class/image."""
    train: Schedule = Schedule()
    """How the unpruned network is trained."""
    scratch_b_cap: Annotated[float, Field(ge=1)] | None = None
    """Scratch-B trains at most this many times `classifier.train.epochs`; null: the target's own, else no limit."""

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, value: str | None) -> str | None:
        if value is not None:
            get_model(value)
        return value


class PruneConfig(_Config):
    """One network pruned alone: `prune-transfer prune`."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of random weights and random choices."""
    classifier: NetworkToPrune = NetworkToPrune()
    """The network to prune."""
    prune: Pruning = Pruning()
    """What is removed; `ratio` has no default here."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, or cuda."""

    @model_validator(mode="after")
    def _trains_nothing(self) -> "PruneConfig":
        if self.prune.between_layers is not None:
            raise Refusal("prune.between_layers: nothing is trained here; prune in a study")
        return self


class ClassifyConfig(_Config):
    """One classifier training alone: `prune-transfer train-cls`."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights, the order of images and the augmentation."""
    classifier: Classifier
    """The network and its training."""
    regime: Annotated[str, OneOf(BY_STEP, "regime")] = BASE
    """How it is trained: base from random weights; the others need a pruned network (--pruned)."""
    machine: Machine = Machine()
    """Where and how it runs."""


class DetectConfig(_Config):
    """One detector training and its evaluation alone: `prune-transfer train-det`."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the new weights and the order of images."""
    detector: Detector
    """The detector and its training."""
    init: Literal["inherited", "random"] = "inherited"
    """Start the backbone from the classifier's weights, or from random ones."""
    evaluate: Evaluation = Evaluation()
    """What is done with the finished detector."""
    machine: Machine = Machine()
    """Where and how it runs."""


# what is configured -> its schema; the command that reads it
SCHEMAS: dict[str, type[_Config]] = {
    "study": StudyConfig,
    "classifier": ClassifyConfig,
    "detector": DetectConfig,
    "pruning": PruneConfig,
}
COMMANDS = {"study": "run", "classifier": "train-cls", "detector": "train-det", "pruning": "prune"}


def _kind(data: Mapping[str, object]) -> str | None:
    """What a config with these keys configures, where they leave no doubt."""
    if "pipelines" in data:
        return "study"
    # a study that lacks its routes, or a network to prune alone
    if data.keys() & {"name", "seeds", "prune"}:
        return None
    ours = data.keys() & {"classifier", "detector"}
    return ours.pop() if len(ours) == 1 else None
