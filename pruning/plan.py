"""What was removed from a network, as data: the plan that turns a dense architecture into a pruned one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class PruningPlan:
    """A pruned network is `arch` + `options` + this plan + weights.

    `keep` maps the name of a channel group (its first producing layer, see `groups.py`) to the kept channel
    indices of the *dense* network, ascending. A group that is not listed keeps all its channels. `widths` holds the
    dense width of each listed group, so that a plan made for another architecture is recognised.

    For networks whose trunk keeps its width: `select` maps a convolution (or linear layer) to the input channels it
    reads; `scatter` maps a normalisation layer to the trunk channels that its narrower output is added into; `drop`
    names residual blocks whose branch is gone (a projection on the shortcut stays).
    """

    arch: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    select: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scatter: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep.keys() != self.widths.keys():
            odd = sorted(self.keep.keys() ^ self.widths.keys())
            raise ValueError(f"plan: `keep` and `widths` name different groups: {odd}")
        for name, indices in self.keep.items():
            _check_indices(name, indices, self.widths[name])

    def kept_counts(self) -> dict[str, int]:
        """Channels left in each listed group."""
        return {name: len(indices) for name, indices in self.keep.items()}

    def then(self, later: "PruningPlan") -> "PruningPlan":
        """The plan that does this one and then `later`, whose indices count this one's survivors."""
        if (self.arch, dict(self.options)) != (later.arch, dict(later.options)):
            raise ValueError(f"a plan for {later.arch!r} cannot follow a plan for {self.arch!r}")
        keep, widths = dict(self.keep), dict(self.widths)
        for name, indices in later.keep.items():
            before = keep.get(name, tuple(range(later.widths[name])))
            if len(before) != later.widths[name]:
                raise ValueError(f"plan: group {name!r} has {len(before)} channels, not {later.widths[name]}")
            keep[name] = tuple(before[i] for i in indices)
            widths.setdefault(name, later.widths[name])
        return PruningPlan(self.arch, self.options, keep, widths)

    def to_json(self) -> str:
        """One line a group, so that a plan can be read and compared."""
        head = {
            "format": FORMAT,
            "arch": self.arch,
            "options": dict(self.options),
            "widths": dict(self.widths),
        }
        body = json.dumps(head, indent=1)[:-2]
        rows = ",\n".join(f"  {json.dumps(name)}: {list(kept)}" for name, kept in self.keep.items())
        return f'{body},\n "keep": {{\n{rows}\n }}\n}}\n'

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> "PruningPlan":
        """Inverse of `to_json`; raises ValueError naming `source` and the key."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"{source}: format {data['format']} is unknown, this version reads {FORMAT}")
            keep = {name: tuple(indices) for name, indices in data["keep"].items()}
            return cls(data["arch"], data["options"], keep, data["widths"])
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: not JSON ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}: not a pruning plan ({type(error).__name__}: {error})") from error

    @classmethod
    def load(cls, path: Path) -> "PruningPlan":
        """Read `plan.json`."""
        return cls.from_json(path.read_text(encoding="utf-8"), source=str(path))


def _check_indices(name: str, indices: Sequence[int], width: int) -> None:
    if not indices:
        raise ValueError(f"plan: group {name!r} would keep no channel of {width}")
    if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= width:
        raise ValueError(f"plan: kept channels of {name!r} must ascend within 0..{width - 1}, got {list(indices)[:8]}")
