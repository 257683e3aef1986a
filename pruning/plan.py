"""What was removed from a network, as data: the plan that turns a dense architecture into a pruned one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path

from pruning.errors import Refusal
from pruning.graph.members import Group, Side

FORMAT = 1


@dataclass(frozen=True)
class PruningPlan:
    """A pruned network is `arch` + `options` + this plan + weights.

    `keep` maps the name of a channel group (its first producing layer, see graph/groups.py) to the kept channel
    indices of the *dense* network, ascending. A group that is not listed keeps all its channels. `widths` holds the
    dense width of each listed group, so that a plan made for another architecture is recognised.

    For networks whose trunk keeps its width: `select` maps a convolution (or linear layer) to the dense input
    channels it reads; `scatter` maps the last layer of a branch (a normalisation, or the convolution where none
    follows) to the dense trunk channels that its narrower output is put into, the others getting zero; `drop`
    names residual blocks whose branch is gone (a projection on the shortcut stays).
    """

    arch: str
    options: Mapping[str, object] = field(default_factory=dict)
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    select: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scatter: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep.keys() != self.widths.keys():
            odd = sorted(self.keep.keys() ^ self.widths.keys())
            raise Refusal(f"plan: `keep` and `widths` name different groups: {odd}")
        for name, indices in self.keep.items():
            _check_indices(name, indices, self.widths[name])
        for name, indices in [*self.select.items(), *self.scatter.items()]:
            _check_indices(name, indices, None)
        if len(set(self.drop)) < len(self.drop):
            raise Refusal(f"plan: `drop` names a block twice: {list(self.drop)}")

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

    def then(self, later: "PruningPlan", groups: Sequence[Group] = ()) -> "PruningPlan":
        """The plan that does this one and then `later`, whose indices count this one's survivors.

        `groups`: the channel groups of the *dense* network, which tell what is left of a trunk that this plan narrowed
        (see `needs_groups`). ValueError where the two do not fit, or the groups are needed and not given.
        """
        if (self.arch, dict(self.options)) != (later.arch, dict(later.options)):
            raise Refusal(f"a plan for {later.arch!r} cannot follow a plan for {self.arch!r}")
        if self.needs_groups(later) and not groups:
            raise Refusal("plan: behind one that narrows or drops layers the dense network's groups are needed")
        keep, widths = dict(self.keep), dict(self.widths)
        names = {producer: group.name for group in groups for producer in group.producers}
        for found, indices in later.keep.items():
            name = names.get(found, found)  # where the layer that names a group is dropped, the next one names it
            # Index maps compose: channel i of the later plan is the i-th survivor, whose dense number is before[i].
            before = keep.get(name, tuple(range(later.widths[found])))
            if len(before) != later.widths[found]:
                raise Refusal(f"plan: group {name!r} has {len(before)} channels, not {later.widths[found]}")
            keep[name] = tuple(before[i] for i in indices)
            widths.setdefault(name, later.widths[found])
        # The later plan numbers a layer's inputs as it found them. What the layer reads may have been narrowed by
        # several groups (a concatenation): the dense number of an input is its place among all that this plan left
        # there.
        gone = removed_positions(self.keep, groups)
        select, scatter = dict(self.select), dict(self.scatter)
        for name, indices in later.select.items():
            if name in select and indices[-1] >= len(select[name]):
                raise Refusal(f"plan: {name!r} reads {len(select[name])} channels, there is no {indices[-1]}")
            if name in select:
                select[name] = tuple(select[name][i] for i in indices)
            else:
                select[name] = _among_survivors(indices, gone.get((name, "in"), set()))
        # Channels of a trunk are numbered by the trunk, not by the layer: so a second plan replaces what the first one
        # says of a layer, of which it can only leave less.
        for name, indices in later.scatter.items():
            dense = _among_survivors(indices, gone.get((name, "out"), set()))
            if not set(dense) <= set(scatter.get(name, dense)):
                raise Refusal(f"plan: {name!r} would write into trunk channels that it no longer computes")
            scatter[name] = dense
        drop = tuple(dict.fromkeys([*self.drop, *later.drop]))
        return replace(self, keep=keep, widths=widths, select=select, scatter=scatter, drop=drop)

    def needs_groups(self, later: "PruningPlan") -> bool:
        """Do indices or names of `later` depend on what this plan narrowed or dropped?"""
        # a layer that selects already counts its own selection; only one that reads all it is given depends on `keep`
        newly_selected = later.select.keys() - self.select.keys()
        return bool(self.keep and (newly_selected or later.scatter)) or bool(self.drop and later.keep)

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
        parts = [json.dumps(head, indent=1)[:-2]]  # still open: the closing brace comes last
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
                raise Refusal(f"{source}: format {data['format']} is unknown, this version reads {FORMAT}")
            if not isinstance(data["arch"], str):
                raise TypeError(f"arch is {data['arch']!r}")
            keep = _indices(data["keep"])
            select, scatter = (_indices(data.get(key, {})) for key in ("select", "scatter"))
            drop = tuple(data.get("drop", ()))
            return cls(data["arch"], data["options"], keep, data["widths"], select, scatter, drop)
        except json.JSONDecodeError as error:
            raise Refusal(f"{source}: not JSON ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise Refusal(f"{source}: not a pruning plan ({type(error).__name__}: {error})") from error

    @classmethod
    def load(cls, path: Path) -> "PruningPlan":
        """Read `plan.json`."""
        return cls.from_json(path.read_text(encoding="utf-8"), source=str(path))


def removed_positions(keep: Mapping[str, Sequence[int]], groups: Sequence[Group]) -> dict[tuple[str, Side], set[int]]:
    """Dense indices to remove by layer and side, over all groups: concatenations let several meet in one layer."""
    removed: dict[tuple[str, Side], set[int]] = {}
    for group in groups:
        for c in sorted(set(range(group.width)) - set(keep.get(group.name, range(group.width)))):
            for member in group.members:
                removed.setdefault((member.layer, member.side), set()).update(member.positions[c])
    return removed


def _among_survivors(indices: Sequence[int], gone: set[int]) -> tuple[int, ...]:
    """The dense numbers of channels that are numbered among those that are not `gone`."""
    # how many channels there are is not known here, nor needed: as many survivors as the highest index asks for
    survivors = list(islice((c for c in count() if c not in gone), indices[-1] + 1))
    return tuple(survivors[i] for i in indices)


def _indices(table: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(indices) for name, indices in table.items()}


def _check_indices(name: str, indices: Sequence[int], width: int | None) -> None:
    """`width` None: not known here, surgery compares with the layer."""
    if not indices:
        raise Refusal(f"plan: {name!r} would keep no channel" + (f" of {width}" if width else ""))
    # from JSON: Python takes true for 1, and 1.0 would fail only where a tensor is indexed
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in indices)
    ascending = whole and list(indices) == sorted(set(indices))
    if not ascending or indices[0] < 0 or (width is not None and indices[-1] >= width):
        within = f"0..{width - 1}" if width else "0.."
        raise Refusal(f"plan: kept channels of {name!r} must ascend within {within}, got {list(indices)[:8]}")
