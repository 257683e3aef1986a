"""Run directories: their names, their files, and the checksums by which a change of any of them is found."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from detect.matches import MATCHES
from pruning.errors import Refusal
from training.files import canonical, read_json, sha256, write_json
from training.run_files import PLAN, RESULT, WEIGHTS

_CHECKSUM = "checksum"


class NetworkSaid(TypedDict, total=False):
    """What a result records of its network beside the plan."""

    num_classes: int
    image_size: int
    mean: list[float]
    std: list[float]
    normalization: str
    params: int
    macs: int


class Evaluated(TypedDict, total=False):
    """What a detector was measured on, and how."""

    split: str
    images: int
    boxes: int
    detections: int
    image_size: list[int]
    metric: str


class DetectionDataSaid(TypedDict, total=False):
    """What a detector's result records of its data, of which this is read."""

    per_class: dict[str, int]


class TimesSaid(TypedDict):
    """What a network takes for one image: bytes of activations, and the times of each set in milliseconds."""

    activation_bytes: int
    times: list[dict[str, float]]


class WrittenResult(TypedDict, total=False):
    """What is read of a `result.json` that a stage wrote; a kind writes what it has, and more."""

    network: NetworkSaid
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    data: DetectionDataSaid
    costs: dict[str, float]
    evaluation: Evaluated
    epochs: int
    iterations: int
    planned_iterations: int
    train_macs: int
    seconds: float
    started: str
    finished: str
    prune_seconds: float
    networks: dict[str, TimesSaid]
    date: str
    device: dict[str, object]
    artifacts: dict[str, str]


class _File:
    """A file of a run directory, by its name."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, run: "RunDir", owner: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDir:
    """One run directory, `<kind>-<hash>/seed<k>`, and the only place where its files are named."""

    path: Path

    config = _File("config.yaml")
    metrics = _File("metrics.jsonl")
    log = _File("log.txt")
    status = _File("status.json")
    checkpoint = _File("checkpoint.pt")
    plan = _File(PLAN)
    weights = _File(WEIGHTS)
    masks = _File("masks.safetensors")
    snapshot = _File("snapshot.safetensors")
    """The weights of an early iteration, for tickets that are rewound to it."""
    pattern = _File("pattern.json")
    """What a guided design follows."""
    correct = _File("correct.npy")
    """Of a classifier: for each test image, whether it was classified right."""
    matches = _File(MATCHES)
    """Of an evaluated detector: which detections are right, image by image."""
    result = _File(RESULT)
    failure = _File("failure.json")
    """The sentence with which the last attempt failed."""
    job = _File("job.json")
    """The number of the Slurm job that this stage was given to."""
    lock = _File(".lock")
    # of a study's directory
    precision = _File("precision.json")
    """The precision that was settled when the study was first run."""
    timing = _File("latency.json")
    """The stage that times its networks, and which of them each route has."""
    at_work = _File(".at_work")
    """The lock that a process holds as long as it runs the study."""

    def checkpoint_of(self, part: int) -> Path:
        """Of a stage that trains in parts."""
        return self.checkpoint.with_name(f"{self.checkpoint.stem}_{part}{self.checkpoint.suffix}")

    def checkpoint_times(self) -> set[int]:
        """When each checkpoint was written, in nanoseconds: by the disk's clock, which may be no clock of ours."""
        times = set()
        for file in self.path.glob(f"{self.checkpoint.stem}*{self.checkpoint.suffix}"):
            with suppress(FileNotFoundError):  # a newer one has just taken its place
                times.add(file.stat().st_mtime_ns)
        return times

    def snapshot_of(self, epoch: int) -> Path:
        """The weights after so many epochs, for retraining that goes back to them."""
        return self.path / f"snapshot_epoch{epoch}.safetensors"

    @property
    def done(self) -> bool:
        """Is `result.json`, which is written last, there?"""
        return self.result.is_file()

    def artifacts(self) -> list[Path]:
        """The files that a result vouches for, in order of their names."""
        # the result itself, and what changes or goes after it was written
        passing = {self.log, self.status, self.checkpoint, self.result, self.failure, self.job, self.lock}
        found = [file for file in self.path.rglob("*") if file.is_file() and file not in passing]
        return sorted(file for file in found if not file.name.startswith((".", "events.", self.checkpoint.stem)))

    def lost(self) -> list[str]:
        """Names of files that this finished run wrote and that are not there any more."""
        return [name for name in self.read_result()["artifacts"] if not (self.path / name).is_file()]

    def write_result(self, result: Mapping[str, object]) -> None:
        """Write `result.json` with the SHA-256 of every artifact and of itself: the mark of a finished run."""
        sums = {str(file.relative_to(self.path)): sha256(file) for file in self.artifacts()}
        # as it will be read back (tuples become lists), or its checksum would differ then
        content = json.loads(json.dumps({**result, "artifacts": sums}, allow_nan=False))
        write_json(self.result, {**content, _CHECKSUM: _checksum(content)})

    def read_result(self) -> WrittenResult:
        """The result of a finished run; ValueError if it is damaged or not as it was written."""
        result: WrittenResult = read_json(self.result)
        if not isinstance(result, dict) or result.get(_CHECKSUM) != _checksum(result):
            raise Refusal(
                f"{self.result}: its content does not have its checksum: it was changed after the run, or another"
                " version wrote it; delete this file to run the stage again"
            )
        return result

    def whole(self, file: Path) -> Path:
        """`file`, an artifact of this finished run, if it is as the run wrote it; ValueError otherwise."""
        # summed anew each time: a file may change between two stages of one process as well
        wanted = self.read_result()["artifacts"].get(str(file.relative_to(self.path)))
        if not file.is_file():
            raise Refusal(f"{file}: this file of a finished run is missing; delete {self.result} to run it again")
        if wanted != sha256(file):
            raise Refusal(
                f"{file}: this is not the file that the run wrote (its checksum differs from the one in"
                f" {self.result.name}); delete {self.result} to run the stage again"
            )
        return file


def _checksum(result: Mapping[str, object]) -> str:
    content = canonical({key: value for key, value in result.items() if key != _CHECKSUM})
    return hashlib.sha256(content.encode()).hexdigest()
