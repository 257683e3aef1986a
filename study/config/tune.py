"""Which numbers of a study's trainings may be chosen for each route: rates and factors, but no budgets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import classify.settings
import detect.settings
from pruning.errors import Refusal
from study.config.detector import NO_VALIDATION, Detector
from study.config.sections import Classifier
from training.options import Section, changed
from training.type_words import alternatives, did_you_mean, field_type, unwrapped

_TRAININGS: dict[str, type[Section]] = {
    "classifier.train": classify.settings.TrainSettings,
    "classifier.fine_tune": classify.settings.TrainSettings,
    "classifier.scratch": classify.settings.TrainSettings,
    "detector.train": detect.settings.TrainSettings,
    "detector.fine_tune": detect.settings.TrainSettings,
}


def check_tuned(
    tune: Mapping[str, Sequence[float]], grid: Mapping[str, object], classifier: Classifier, detector: Detector | None
) -> None:
    """ValueError for a key that is no rate of a training or is in the grid too, and for values that make no choice."""
    for key, values in tune.items():
        if key not in _rates():
            names = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in _rates()))
            raise Refusal(
                f"tune.{key}: {did_you_mean(key, _rates())}only rates and factors of a training are chosen by"
                f" validation: {names} of {', '.join(_TRAININGS)}"
            )
        if key.startswith("classifier.") and classifier.train is None:
            raise Refusal(f"tune.{key}: nothing is trained without classifier.dataset; choose rates of `detector`")
        if key.startswith("detector.") and detector is None:
            raise Refusal(f"tune.{key}: this study has no `detector`")
        if key in grid:
            raise Refusal(f"tune.{key}: it is in `grid` too; a rate is either compared or chosen")
        if not values or any(value in values[:k] for k, value in enumerate(values)):
            raise Refusal(f"tune.{key}: the values {list(values)} are none or repeat themselves")
    if tune and detector is not None and not detector.dataset.has_validation:
        raise Refusal(f"tune: rates are chosen on a validation split, {NO_VALIDATION}")


def own_rate(classifier: Classifier, detector: Detector | None, key: str) -> float | None:
    """What a config says itself for a key that `tune` may have."""
    section, _, name = key.rpartition(".")
    regime: Any = section.partition(".")[2]
    training: Section
    if section.startswith("classifier."):
        training = classifier.training(regime)
    else:
        assert detector is not None
        training = changed(detector.train, {} if regime == "train" else getattr(detector, regime), regime)
    found: float | None = getattr(training, name)
    return found


def _rates() -> list[str]:
    return [f"{section}.{name}" for section, training in _TRAININGS.items() for name in _numbers(training)]


def _numbers(section: type[Section]) -> Iterator[str]:
    """The keys of a training that are numbers and no counts: epochs, iterations and batches are its budget."""
    for name, field in section.model_fields.items():
        if any(unwrapped(kind)[0] is float for kind in alternatives(field_type(field))):
            yield name
