"""What the report reads from run directories. An absent or damaged file becomes a gap, never an error."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from detect.data.records import Detection
from detect.errors import ERRORS
from detect.matches import Matches
from detect.matches import from_bytes as matches_from_bytes
from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.report.routes import RouteResults
from study.report.rows import Json, Step
from study.report.statistics.summary import is_number
from study.stages.store import RunDir

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SCENES = "detections"  # the folder of an evaluation's pictures, and their names
PR, DETECTIONS = "pr.json", "detections.json.gz"
_UNPACKED = "detections.json"  # of runs from before they were packed
Read = TypeVar("Read")


@dataclass
class RunFiles:
    """The folder of run directories; collects a sentence for each file that could not be used."""

    root: Path
    gaps: list[str] = field(default_factory=list)

    def _read(self, file: Path, parse: Callable[[bytes, str], Read]) -> Read | None:
        """What `parse` makes of a file's content and name; None, and a gap, where either fails."""
        name = file.relative_to(self.root).as_posix()
        try:
            return parse(file.read_bytes(), name)
        except OSError as error:
            self.gaps.append(f"{name}: {error.strerror or error}")
        except ValueError as error:  # a UnicodeDecodeError is one too
            self.gaps.append(str(error))
        return None

    def metrics(self, run: str) -> list[Mapping[str, float]]:
        """The lines of metrics.jsonl that have a step; a kill may leave a torn last line, left out."""
        file = RunDir(self.root / run).metrics
        lines = (self._read(file, lambda content, _: content) or b"").splitlines()
        records = [record for record in map(_json_object, lines) if is_number(record.get("step"))]
        unusable = len(lines) - len(records)
        if unusable:
            self.gaps.append(f"{run}/{file.name}: {unusable} of {len(lines)} lines are unreadable")
        return records

    def plan(self, run: str) -> PruningPlan | None:
        """The stage's plan.json; None, and a gap, where it cannot be read."""
        file = RunDir(self.root / run).plan
        return self._read(file, lambda content, name: PruningPlan.from_json(content.decode(), source=name))

    def masks(self, run: str) -> Masks | None:
        """The masks of a run; None where it has none, and a gap where they cannot be read."""
        file = RunDir(self.root / run).masks
        if not file.is_file():
            return None
        return self._read(file, lambda content, name: Masks.from_bytes(content, source=name))

    def weights(self, run: str) -> dict[str, Tensor]:
        """The tensors of a run's network by name; empty, and a gap, where they cannot be read."""
        return self._read(RunDir(self.root / run).weights, _tensors) or {}

    def precision_recall(self, run: str) -> Json | None:
        """The pr.json of an evaluation; None, and a gap, where it cannot be read."""
        return self._read(self.root / run / PR, _json_file)

    def errors(self, run: str) -> Json | None:
        """The errors.json of an evaluation; None, and a gap, where it cannot be read; runs of before have none."""
        file = self.root / run / ERRORS
        return self._read(file, _json_file) if file.is_file() else None

    def detections(self, run: str) -> list[Detection] | None:
        """What an evaluation found, in COCO's result format; None, and a gap, where it cannot be read."""
        unpacked = self.root / run / _UNPACKED
        return self._read(unpacked if unpacked.is_file() else self.root / run / DETECTIONS, _detections)

    def matches(self, run: str) -> dict[str, Matches] | None:
        """Of an evaluated detector, by metric: which detections are right; None, and a gap, without them."""
        return self._kept(run, self._run(run).matches, matches_from_bytes)

    def correct(self, run: str) -> NDArray[np.bool_] | None:
        """Of a classifier: whether each test image was classified right (N,); None, and a gap, without them."""
        return self._kept(run, self._run(run).correct, _booleans)

    def _kept(self, run: str, file: Path, parse: Callable[[bytes, str], Read]) -> Read | None:
        """What a run keeps of each test image, which those of older versions do not."""
        if not file.is_file():
            self.gaps.append(
                f"{run}: ran before {file.name} was kept, so it is not known how its result depends on the test"
                f" images; delete its result.json to run it again"
            )
            return None
        return self._read(file, parse)

    def _run(self, run: str) -> RunDir:
        return RunDir(self.root / run)

    def picture(self, run: str, name: str) -> bytes | None:
        """A PNG of an evaluation; None, and a gap, where it is absent or no PNG."""
        return self._read(self.root / run / _SCENES / name, _png)

    def scene_count(self, run: str) -> int:
        """How many consecutive scenes the stage drew."""
        folder = self.root / run / _SCENES
        return next(k for k in count() if not (folder / f"{_SCENES}_{k}.png").is_file())


def _tensors(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{name}: not a safetensors file ({error})") from error


def _png(content: bytes, name: str) -> bytes:
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{name}: not a PNG file")
    return content


def _json_file(content: bytes, name: str) -> Json:
    found = _json_object(content)
    if not found:
        raise ValueError(f"{name}: not a JSON object")
    return found


def _detections(content: bytes, name: str) -> list[Detection]:
    try:
        found = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: not JSON ({error})") from error
    if not isinstance(found, list) or not all(map(_is_detection, found)):
        raise ValueError(f"{name}: not detections in COCO's result format")
    return found


def _is_detection(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() >= {"image_id", "category_id", "bbox", "score"}:
        return False
    box = value["bbox"]
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, (*box, value["score"])))


def _json_object(content: bytes) -> Json:
    """An object; empty where the content is something else."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


User = tuple[RouteResults, int, Step]  # route, seed, step of its chain


def steps(route: RouteResults, *kinds: str) -> Iterator[tuple[int, Step]]:
    """(seed, step of the chain) of a route, in order, limited to `kinds`."""
    for row in route.rows:
        for step in row.chain:
            if step.kind in kinds:
                yield row.seed, step


def users_of_runs(routes: Iterable[RouteResults], *kinds: str) -> dict[str, list[User]]:
    """Run directory -> who used it: a shared run appears once, with all its users."""
    users: dict[str, list[User]] = {}
    for route in routes:
        for seed, step in steps(route, *kinds):
            users.setdefault(step.run, []).append((route, seed, step))
    return users


def _booleans(content: bytes, source: str) -> NDArray[np.bool_]:
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Refusal(f"{source}: not an array ({error})") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.bool_ or found.ndim != 1:
        raise Refusal(f"{source}: not a list of truth values")
    return found
