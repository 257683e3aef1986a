"""How the rates of each route were chosen, as dataclasses: what was tried, what it scored, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from training.files import Json


@dataclass(frozen=True)
class Tried:
    """Values by key path and what they scored, percent by tuning seed, None where a score is missing.

    `recipe`: the config's own values. `diverged`: the sentence of a training that did, else empty.
    """

    values: Mapping[str, float | None]
    scores: tuple[float | None, ...]
    diverged: str
    recipe: bool
    chosen: bool

    @property
    def mean(self) -> float | None:
        """Over the tuning seeds; None where one is missing."""
        there = [score for score in self.scores if score is not None]
        return sum(there) / len(there) if there and len(there) == len(self.scores) else None


@dataclass(frozen=True)
class Tuned:
    """All that was tried for one route; `train_macs`: of every stage that it took, shared ones in full."""

    pipeline: str
    point: Mapping[str, object]
    seeds: tuple[int, ...]
    tried: tuple[Tried, ...]
    train_macs: int

    @property
    def edges(self) -> Iterator[tuple[str, float, str]]:
        """Key, value and side ("smallest" or "largest") of each chosen value at the edge of those that were tried."""
        for best in (tried for tried in self.tried if tried.chosen):
            for key, value in best.values.items():
                values = [v for tried in self.tried if (v := tried.values[key]) is not None]
                if value is not None and value in (min(values), max(values)):
                    yield key, value, "smallest" if value == min(values) else "largest"

    @classmethod
    def from_json(cls, content: Json) -> Tuned:
        """The inverse of `to_json`."""
        tried = tuple(Tried(**{**one, "scores": tuple(one["scores"])}) for one in content["tried"])
        return cls(**{**content, "seeds": tuple(content["seeds"]), "tried": tried})

    def to_json(self) -> dict[str, object]:
        """An entry of `tuning` in comparison.json."""
        return {**asdict(self), "seeds": list(self.seeds), "tried": [asdict(tried) for tried in self.tried]}
