"""Every pruning method by name. To add one: a file here, and a line in METHODS."""

from typing import Any

from pruning.effect import Effect
from pruning.errors import Refusal
from pruning.methods import (
    fpgm,
    gradual_magnitude,
    group_fisher,
    group_norm,
    guided,
    l1_filter,
    lamp,
    lottery,
    magnitude,
    random,
    reconstruction,
    rigl,
    slimming,
    snip,
    soft_filter,
    structure_selection,
    synflow,
    taylor,
    thinet,
    uniform,
    uniform_weights,
)
from pruning.methods.method import Calibration, Choice, Method, MethodOptions, Request

METHODS: dict[str, Method[Any]] = {  # each with options of its own type
    "l1_filter": l1_filter.METHOD,
    "random": random.METHOD,
    "fpgm": fpgm.METHOD,
    "taylor": taylor.METHOD,
    "group_fisher": group_fisher.METHOD,
    "thinet": thinet.METHOD,
    "reconstruction": reconstruction.METHOD,
    "uniform": uniform.METHOD,
    "magnitude": magnitude.METHOD,
    "lamp": lamp.METHOD,
    "snip": snip.METHOD,
    "synflow": synflow.METHOD,
    "uniform_weights": uniform_weights.METHOD,
    "lottery": lottery.METHOD,
    "gradual_magnitude": gradual_magnitude.METHOD,
    "rigl": rigl.METHOD,
    "guided": guided.METHOD,
    "slimming": slimming.METHOD,
    "structure_selection": structure_selection.METHOD,
    "soft_filter": soft_filter.METHOD,
    "group_norm": group_norm.METHOD,
}

DEFAULT = "l1_filter"

__all__ = ["DEFAULT", "METHODS", "Calibration", "Choice", "Effect", "Method", "MethodOptions", "Request", "get_method"]


def get_method(name: str) -> Method[Any]:
    """The method of this name; ValueError lists the known ones."""
    if name not in METHODS:
        raise Refusal(f"unknown pruning method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]
