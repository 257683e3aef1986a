"""A comparison as dataclasses: what the collector reads from the run directories, and comparison.json of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.errors import Failure, Refusal
from study.report.claims.claim import Claim
from study.report.statistics.summary import is_number
from study.report.tuned import Tuned
from study.stages.given_weights import NOT_COUNTED
from study.stages.store import WrittenResult
from training.device import Precision
from training.files import Json, read_json

if TYPE_CHECKING:
    from pandas import DataFrame

_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "mask_AP", "top1", "top5", "val_top1")
_AFTER_PRUNING = ("pruned_top1", "recalibrated_top1")
# A row of comparison.json is flat, as its readers know it: what is neither a score nor in here is a cost, whatever its
# task measures.
_OTHER = frozenset(
    "pipeline point seed per_class latency_ms train_macs precision train_macs_by_kind seconds chain".split()
)

Point = Mapping[str, object]  # a grid point: field -> its value, of any type that a config holds
Numbers = Mapping[str, float | None]  # None where a number is missing


@dataclass(frozen=True)
class Step:
    """One stage in the chain of a row; `shared`: other pipelines or grid points use its run too."""

    step: str
    kind: str
    run: str
    train_macs: int
    seconds: float
    shared: bool


@dataclass(frozen=True)
class Measured:
    """What a task measures of a finished route.

    `scores` in percent, `per_class` AP by class name (None: the task has none), `costs` of the network and its
    training, `after_pruning`: test accuracy before any further training.
    """

    scores: Numbers
    costs: Numbers
    per_class: Numbers | None = None
    after_pruning: Numbers | None = None

    def to_json(self) -> dict[str, object]:
        """One flat mapping; what the task does not have has no key."""
        classes = {} if self.per_class is None else {"per_class": self.per_class}
        return {**self.scores, **classes, **self.costs, **(self.after_pruning or {})}

    @classmethod
    def from_json(cls, row: Json) -> Measured:
        """From a row of comparison.json, whose numbers are flat; NaN and infinity are missing values."""
        costs = {k: v for k, v in row.items() if k not in _OTHER and k not in _SCORES and k not in _AFTER_PRUNING}
        after = {name: row[name] for name in _AFTER_PRUNING if name in row}
        classes = None if row.get("per_class") is None else _finite(row["per_class"])
        scores = {name: row[name] for name in _SCORES if name in row}
        return cls(_finite(scores), _finite(costs), classes, _finite(after) or None)


def _finite(numbers: Numbers) -> Numbers:
    return {name: value if is_number(value) else None for name, value in numbers.items()}


@dataclass(frozen=True)
class Row:
    """One pipeline at one grid point with one seed; `latency_ms` None where the network could not be timed."""

    pipeline: str
    point: Point
    seed: int
    measured: Measured
    latency_ms: float | None
    precision: str
    chain: tuple[Step, ...]

    @property
    def train_macs_by_kind(self) -> dict[str, int]:
        """Multiply-adds of the trainings by kind of stage; a kind that has none is left out."""
        found: dict[str, int] = {}
        for step in self.chain:
            found[step.kind] = found.get(step.kind, 0) + step.train_macs
        return {kind: macs for kind, macs in found.items() if macs}

    @property
    def train_macs(self) -> int:
        """Multiply-adds of all trainings of the chain."""
        return sum(step.train_macs for step in self.chain)

    @property
    def pretraining(self) -> str:
        """What is said of a pretraining whose cost is not known, and so is in no number; empty where there is none."""
        return NOT_COUNTED if any(step.kind == "take_weights" for step in self.chain) else ""

    @property
    def seconds(self) -> float:
        """What all stages of the chain took."""
        return round(sum(step.seconds for step in self.chain), 1)

    def number(self, column: str) -> float | None:
        """A number by the name that it has in comparison.json; None where the row has none."""
        own = {"latency_ms": self.latency_ms, "train_macs": self.train_macs, "seconds": self.seconds}
        found = self.measured
        return {**found.scores, **found.costs, **(found.after_pruning or {}), **own}.get(column)

    def to_json(self) -> dict[str, object]:
        """The row of comparison.json."""
        return {
            "pipeline": self.pipeline,
            "point": dict(self.point),
            "seed": self.seed,
            **self.measured.to_json(),
            "latency_ms": self.latency_ms,
            "train_macs": self.train_macs,
            "precision": self.precision,
            "train_macs_by_kind": self.train_macs_by_kind,
            "seconds": self.seconds,
            "chain": [asdict(step) for step in self.chain],
        }

    def flat(self) -> dict[str, object]:
        """What there is one value of a row of, by column; the grid point by its fields."""
        nested = ("point", "per_class", "train_macs_by_kind", "chain")
        numbers = {name: value for name, value in self.to_json().items() if name not in nested}
        return {"pipeline": self.pipeline, **self.point, **numbers}

    @classmethod
    def from_json(cls, row: Json) -> Row:
        """A row of comparison.json; a report of an earlier version has no precision."""
        return cls(
            pipeline=row["pipeline"],
            point=row["point"],
            seed=row["seed"],
            measured=Measured.from_json(row),
            latency_ms=row["latency_ms"],
            precision=row.get("precision", ""),
            chain=tuple(Step(**step) for step in row["chain"]),
        )


@dataclass(frozen=True)
class Missing:
    """A route that is not finished, and the sentence that says why."""

    pipeline: str
    seed: int
    point: Point
    why: str


@dataclass(frozen=True)
class StageResult:
    """One stage that rows rest on: its kind, the step that made it, its result.json."""

    kind: str
    step: str
    result: WrittenResult

    def part(self, name: str) -> Json:
        """An object of the result by name; empty where it has none: no kind of stage records them all."""
        found = self.result.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def precision(self) -> Precision | None:
        """What the stage trained in; None where it trained nothing or recorded none."""
        found = self.part("precision")
        return Precision(**found) if found else None


@dataclass(frozen=True)
class Basis:
    """What the scores rest on: the data and the metric; None where nothing is finished that could say it."""

    dataset: str | None = None
    split: str | None = None
    metric: str | None = None
    images: int | None = None
    boxes: int | None = None
    detections: int | None = None
    image_size: str | None = None  # "width x height"

    def to_json(self) -> dict[str, object]:
        """What is known."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Timed:
    """Where latency was measured: the run, its day, and the device as results record it."""

    run: str
    date: str
    device: Mapping[str, object]


@dataclass(frozen=True)
class Comparison:
    """All that a report is made from.

    `task`: "detection" or "classification"; `config`: what the user set, `config_yaml` the same as text; `grid`: field
    -> its values; `stages`: by run, relative to the runs' folder; `gaps`: sentences about what could not be measured;
    `tuning`: how the rates of each route were chosen, if they were; `claims`: the verdicts, which the report finds and
    writes; `overrides`: what the command line changed of the file; `timed`: None where latency is not measured.
    """

    study: str
    task: str
    title: str
    config_file: str
    config: Json
    config_yaml: str
    seeds: tuple[int, ...]
    evaluation: Basis
    grid: Mapping[str, Sequence[object]]
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    gaps: tuple[str, ...]
    stages: Mapping[str, StageResult]
    tuning: tuple[Tuned, ...] = ()
    claims: tuple[Claim, ...] = ()
    overrides: tuple[str, ...] = ()
    timed: Timed | None = None

    def to_json(self) -> dict[str, object]:
        """The content of comparison.json; `tuning`, `overrides` and `timed` only where there are some."""
        # absent, not empty: an earlier version that reads the file refuses keys which it does not know
        own = {name: value for name, value in vars(self).items() if name not in ("tuning", "overrides", "timed")}
        return {
            **own,
            "evaluation": self.evaluation.to_json(),
            "rows": [row.to_json() for row in self.rows],
            "missing": [vars(missing) for missing in self.missing],
            "stages": {run: vars(stage) for run, stage in self.stages.items()},
            **({"tuning": [tuned.to_json() for tuned in self.tuning]} if self.tuning else {}),
            "claims": [vars(claim) for claim in self.claims],
            **({"overrides": list(self.overrides)} if self.overrides else {}),
            **({"timed": vars(self.timed)} if self.timed else {}),
        }

    @classmethod
    def from_json(cls, content: Json) -> Comparison:
        """The inverse of `to_json`; KeyError or TypeError if `content` is something else."""
        read = {
            "seeds": tuple(content["seeds"]),
            "evaluation": Basis(**content["evaluation"]),
            "rows": tuple(Row.from_json(row) for row in content["rows"]),
            "missing": tuple(Missing(**missing) for missing in content["missing"]),
            "gaps": tuple(content["gaps"]),
            "overrides": tuple(content.get("overrides", ())),
            "stages": {run: StageResult(**stage) for run, stage in content["stages"].items()},
            "tuning": tuple(Tuned.from_json(tuned) for tuned in content.get("tuning", ())),
            "claims": tuple(Claim(**claim) for claim in content.get("claims", ())),  # an earlier version wrote none
            "timed": Timed(**content["timed"]) if "timed" in content else None,
        }
        return cls(**{**content, **read})

    def frame(self) -> DataFrame:
        """A pandas frame: a line a row, with its grid point, its scores and its costs; Failure without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise Failure("a frame needs pandas, which is not installed: pip install pandas") from error
        return pandas.DataFrame([row.flat() for row in self.rows])


COMPARISON = "comparison.json"  # in the directory of a study


def load_comparison(path: Path) -> Comparison:
    """What a comparison.json holds; `path`: the file, or the directory of its study. ValueError if it is none."""
    if not path.exists():
        raise Refusal(f"{path}: there is no such file or directory")
    if path.is_dir() and not (path / COMPARISON).is_file():
        raise Refusal(f"{path}: not the directory of a study with a report (it has no {COMPARISON})")
    file = path / COMPARISON if path.is_dir() else path
    try:
        return Comparison.from_json(read_json(file))
    except (KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"{file}: not the comparison of a study ({type(error).__name__}: {error})") from error
