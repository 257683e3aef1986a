"""What is asked of the one-command pruner, checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.targets import Target, get_target
from study.calibration import ImageSource


@dataclass(frozen=True)
class PruneJob:
    """What to prune and how; None: not said, so that the target's or the network's own value holds.

    `target`, or `method` with its `options` and the parts of its `selection` (see `pruning.select.Selection`).
    `cap`: Scratch-B trains at most this many times `base_epochs`.
    """

    out: Path
    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    target: str | None = None
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    data: ImageSource | None = None
    base_epochs: int | None = None
    cap: float | None = None
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if (self.target is None) == (self.method is None):
            raise ValueError("give either --target, or --method with --ratio (--list names both)")
        if self.target is not None and (self.selection or self.options):
            given = ", ".join([*self.selection, *(f"option {name}" for name in self.options)])
            raise ValueError(f"target {self.target!r} already says what is removed; leave out {given}")
        if self.base_epochs is not None and self.base_epochs < 1:
            raise ValueError(f"--base-epochs {self.base_epochs} must be at least 1")
        if self.cap is not None and not self.cap >= 1:
            raise ValueError(f"--cap {self.cap} must be at least 1")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"--num-classes {self.num_classes} must be at least 1")

    def published(self) -> Target | None:
        """The target, which must be of the architecture asked for, if one is."""
        if self.target is None:
            return None
        target = get_target(self.target)
        if self.arch not in (None, target.arch):
            raise ValueError(f"target {self.target!r} is made from {target.arch}, not from {self.arch}")
        return target
