"""The `settings` and the `run` of a training from one mapping, as tests change a value of either."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import classify.settings
from training.options import Section, changed, validated


def told(values: Mapping[str, Any], of: Any = classify.settings, **changes: Any) -> dict[str, Any]:
    """What `train_classifier` is told, or with `of=detect.settings` `train_detector`."""
    values = {**values, **changes}
    run = {field.name for field in fields(of.TrainRun)} & values.keys()
    settings = {name: value for name, value in values.items() if name not in run}
    return {
        "settings": validated(of.TrainSettings, settings, "settings"),
        "run": of.TrainRun(**{name: values[name] for name in run}),
    }


def altered(settings: Section, **changes: Any) -> Any:
    """The same settings with other values, checked anew."""
    return changed(settings, changes, "settings")
