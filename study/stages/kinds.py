"""Every kind of stage and what runs it."""

from collections.abc import Callable
from typing import Any

from study.stages.classifier import run_train_classifier
from study.stages.prune import run_prune
from study.stages.stage import Context


def _train_detector(context: Context) -> dict[str, Any]:
    from study.stages.detector import run_train_detector  # Detectron2, which classification works without

    return run_train_detector(context)


def _prune_detector(context: Context) -> dict[str, Any]:
    from study.stages.detector import run_prune_detector

    return run_prune_detector(context)


def _evaluate(context: Context) -> dict[str, Any]:
    from study.stages.evaluate import run_evaluate

    return run_evaluate(context)


KINDS: dict[str, Callable[[Context], dict[str, Any]]] = {
    "train_classifier": run_train_classifier,
    "prune": run_prune,
    "train_detector": _train_detector,
    "prune_detector": _prune_detector,
    "evaluate": _evaluate,
}
