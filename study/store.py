"""Run directories: their names, their files, and writing so that nothing is ever half there."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(data: Any) -> str:
    """Twelve hexadecimal digits of SHA-256 over `canonical(data)`."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:12]


def write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` is the old file or the new one, never a part; its folder is made."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is the old file or the new one, never a part; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN is refused."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; ValueError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); delete it to make it again") from error


@dataclass(frozen=True)
class RunDir:
    """One run directory, `<kind>-<hash>/seed<k>`, and the only place where its files are named."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def masks(self) -> Path:
        return self.path / "masks.safetensors"

    @property
    def snapshot(self) -> Path:
        """The weights of an early iteration, for tickets that are rewound to it."""
        return self.path / "snapshot.safetensors"

    @property
    def pattern(self) -> Path:
        """What a guided design follows."""
        return self.path / "pattern.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def done(self) -> bool:
        """Is `result.json`, which is written last, there?"""
        return self.result.is_file()

    def read_result(self) -> dict[str, Any]:
        """The result of a finished run."""
        return read_json(self.result)
