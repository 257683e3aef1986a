"""What the report reads from run directories. An absent or damaged file becomes a gap, never an error."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from detect.matches import Matches
from detect.matches import from_bytes as matches_from_bytes
from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.report.routes import Route
from study.report.rows import Step
from study.report.stats import is_number
from study.stages.store import RunDir

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
METRICS, PLAN, DETECTIONS = "metrics.jsonl", "plan.json", "detections"
PR = "pr.json"
MASKS, WEIGHTS = "masks.safetensors", "weights.safetensors"
Kept = TypeVar("Kept")


@dataclass
class RunFiles:
    """The folder of run directories; collects a sentence for each file that could not be used."""

    root: Path
    gaps: list[str] = field(default_factory=list)

    def read(self, run: str, name: str) -> bytes | None:
        """A file of a run directory; None, and a gap, where it cannot be read."""
        try:
            return (self.root / run / name).read_bytes()
        except OSError as error:
            self.gaps.append(f"{run}/{name}: {error.strerror or error}")
            return None

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that have a step; a kill may leave a torn last line, left out."""
        lines = (self.read(run, METRICS) or b"").splitlines()
        records = [record for record in map(_json_object, lines) if is_number(record.get("step"))]
        unusable = len(lines) - len(records)
        if unusable:
            self.gaps.append(f"{run}/{METRICS}: {unusable} of {len(lines)} lines are unreadable")
        return records

    def plan(self, run: str) -> PruningPlan | None:
        """The stage's plan.json; None, and a gap, where it cannot be read."""
        content = self.read(run, PLAN)
        if content is None:
            return None
        try:
            return PruningPlan.from_json(content.decode("utf-8"), source=f"{run}/{PLAN}")
        except ValueError as error:  # a UnicodeDecodeError is one too
            self.gaps.append(str(error))
            return None

    def masks(self, run: str) -> Masks | None:
        """The masks of a run; None where it has none, and a gap where they cannot be read."""
        if not (self.root / run / MASKS).is_file():
            return None
        content = self.read(run, MASKS)
        try:
            return None if content is None else Masks.from_bytes(content, source=f"{run}/{MASKS}")
        except ValueError as error:
            self.gaps.append(str(error))
            return None

    def weights(self, run: str) -> dict[str, Tensor]:
        """The tensors of a run's network by name; empty, and a gap, where they cannot be read."""
        content = self.read(run, WEIGHTS)
        try:
            return {} if content is None else safetensors.torch.load(content)
        except safetensors.SafetensorError as error:
            self.gaps.append(f"{run}/{WEIGHTS}: not a safetensors file ({error})")
            return {}

    def json(self, run: str, name: str) -> dict[str, Any] | None:
        """A JSON object of a run directory; None, and a gap, where it cannot be read."""
        content = self.read(run, name)
        if content is None:
            return None
        found = _json_object(content)
        if not found:
            self.gaps.append(f"{run}/{name}: not a JSON object")
        return found or None

    def matches(self, run: str) -> dict[str, Matches] | None:
        """Of an evaluated detector, by metric: which detections are right; None, and a gap, without them."""
        return self._kept(run, self._run(run).matches, matches_from_bytes)

    def correct(self, run: str) -> NDArray[np.bool_] | None:
        """Of a classifier: whether each test image was classified right (N,); None, and a gap, without them."""
        return self._kept(run, self._run(run).correct, _booleans)

    def _kept(self, run: str, file: Path, parse: Callable[[bytes, str], Kept]) -> Kept | None:
        """What a run keeps of each test image, which those of older versions do not."""
        if not file.is_file():
            self.gaps.append(
                f"{run}: ran before {file.name} was kept, so it is not known how its result depends on the test"
                f" images; delete its result.json to run it again"
            )
            return None
        content = self.read(run, file.name)
        try:
            return None if content is None else parse(content, f"{run}/{file.name}")
        except ValueError as error:
            self.gaps.append(str(error))
            return None

    def _run(self, run: str) -> RunDir:
        return RunDir(self.root / run)

    def picture(self, run: str, name: str) -> bytes | None:
        """A PNG of the detections folder; None, and a gap, where it is absent or no PNG."""
        content = self.read(run, f"{DETECTIONS}/{name}")
        if content is not None and not content.startswith(_PNG_SIGNATURE):
            self.gaps.append(f"{run}/{DETECTIONS}/{name}: not a PNG file")
            return None
        return content

    def scene_count(self, run: str) -> int:
        """How many consecutive scenes the stage drew."""
        folder = self.root / run / DETECTIONS
        count = 0
        while (folder / f"{DETECTIONS}_{count}.png").is_file():
            count += 1
        return count


User = tuple[Route, int, Step]  # route, seed, step of its chain


def steps(route: Route, *kinds: str) -> Iterator[tuple[int, Step]]:
    """(seed, step of the chain) of a route, in order, limited to `kinds`."""
    for row in route.rows:
        for step in row.chain:
            if step.kind in kinds:
                yield row.seed, step


def users_of_runs(routes: Iterable[Route], *kinds: str) -> dict[str, list[User]]:
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


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
