"""What was removed from a network, as data: the plan that turns a dense architecture into a pruned one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class PruningPlan:
    """A pruned network is `arch` + `options` + this plan + weights.

    `keep` maps the name of a channel group (its first producing layer, see `groups.py`) to the kept channel
    indices of the *dense* network, ascending. A group that is not listed keeps all its channels. `widths` holds the
    dense width of each listed group, so that a plan made for another architecture is recognised.

    For networks whose trunk keeps its width: `select` maps a convolution (or linear layer) to the dense input
    channels it reads; `scatter` maps the last layer of a branch (a normalisation, or the convolution where none
    follows) to the dense trunk channels that its narrower output is put into, the others getting zero; `drop`
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
        for name, indices in [*self.select.items(), *self.scatter.items()]:
            _check_indices(name, indices, None)
        if len(set(self.drop)) < len(self.drop):
            raise ValueError(f"plan: `drop` names a block twice: {list(self.drop)}")

    @property
    def changes_shape(self) -> bool:
        """Does it remove anything at all?"""
        return bool(self.keep or self.select or self.scatter or self.drop)

    def part(self, belongs: Callable[[str], bool]) -> "PruningPlan":
        """What it says of the layers and blocks of whose name `belongs` is true."""
        keep, widths, select, scatter = (
            {name: value for name, value in table.items() if belongs(name)}
            for table in (self.keep, self.widths, self.select, self.scatter)
        )
        drop = tuple(name for name in self.drop if belongs(name))
        return replace(self, keep=keep, widths=widths, select=select, scatter=scatter, drop=drop)  # type: ignore[arg-type]

    def kept_counts(self) -> dict[str, int]:
        """Channels left in each listed group."""
        return {name: len(indices) for name, indices in self.keep.items()}

    def then(self, later: "PruningPlan") -> "PruningPlan":
        """The plan that does this one and then `later`, whose indices count this one's survivors.

        What `later` selects counts the channels that the layer reads now. A trunk that is selected from or scattered
        into must have its dense width in both plans.
        """
        if (self.arch, dict(self.options)) != (later.arch, dict(later.options)):
            raise ValueError(f"a plan for {later.arch!r} cannot follow a plan for {self.arch!r}")
        keep, widths = dict(self.keep), dict(self.widths)
        for name, indices in later.keep.items():
            before = keep.get(name, tuple(range(later.widths[name])))
            if len(before) != later.widths[name]:
                raise ValueError(f"plan: group {name!r} has {len(before)} channels, not {later.widths[name]}")
            keep[name] = tuple(before[i] for i in indices)
            widths.setdefault(name, later.widths[name])
        select = dict(self.select)
        for name, indices in later.select.items():
            if name in select and indices[-1] >= len(select[name]):
                raise ValueError(f"plan: {name!r} reads {len(select[name])} channels, there is no {indices[-1]}")
            select[name] = tuple(select[name][i] for i in indices) if name in select else tuple(indices)
        for name, indices in later.scatter.items():
            if not set(indices) <= set(self.scatter.get(name, indices)):
                raise ValueError(f"plan: {name!r} would write into trunk channels that it no longer computes")
        return replace(
            self,
            keep=keep,
            widths=widths,
            select=select,
            scatter={**self.scatter, **later.scatter},
            drop=tuple(dict.fromkeys([*self.drop, *later.drop])),
        )

    def to_json(self) -> str:
        """One line a layer, so that a plan can be read and compared; `select`, `scatter`, `drop` only where used."""
        head = {
            "format": FORMAT,
            "arch": self.arch,
            "options": dict(self.options),
            "widths": dict(self.widths),
        }
        if self.drop:
            head["drop"] = list(self.drop)
        parts = [json.dumps(head, indent=1)[:-2]]
        for key, table in (("keep", self.keep), ("select", self.select), ("scatter", self.scatter)):
            if table or key == "keep":
                rows = ",\n".join(f"  {json.dumps(name)}: {list(kept)}" for name, kept in table.items())
                parts.append(f' "{key}": {{\n{rows}\n }}')
        return ",\n".join(parts) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> "PruningPlan":
        """Inverse of `to_json`; raises ValueError naming `source` and the key."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"{source}: format {data['format']} is unknown, this version reads {FORMAT}")
            if not isinstance(data["arch"], str):
                raise TypeError(f"arch is {data['arch']!r}")
            keep = _indices(data["keep"])
            select, scatter = (_indices(data.get(key, {})) for key in ("select", "scatter"))
            drop = tuple(data.get("drop", ()))
            return cls(data["arch"], data["options"], keep, data["widths"], select, scatter, drop)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}: not JSON ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}: not a pruning plan ({type(error).__name__}: {error})") from error

    @classmethod
    def load(cls, path: Path) -> "PruningPlan":
        """Read `plan.json`."""
        return cls.from_json(path.read_text(encoding="utf-8"), source=str(path))


def _indices(table: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(indices) for name, indices in table.items()}


def _check_indices(name: str, indices: Sequence[int], width: int | None) -> None:
    """`width` None: not known here, surgery compares with the layer."""
    if not indices:
        raise ValueError(f"plan: {name!r} would keep no channel" + (f" of {width}" if width else ""))
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in indices)
    ascending = whole and list(indices) == sorted(set(indices))
    if not ascending or indices[0] < 0 or (width is not None and indices[-1] >= width):
        within = f"0..{width - 1}" if width else "0.."
        raise ValueError(f"plan: kept channels of {name!r} must ascend within {within}, got {list(indices)[:8]}")
