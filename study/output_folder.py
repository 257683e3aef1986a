"""A folder of results that appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output_folder(out: Path, *, force: bool) -> None:
    """ValueError unless results may be written into `out`: absent, empty, or to be replaced by `force`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder")
    if not force and out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; name another folder, or replace its files with --force")


@contextmanager
def whole_folder(out: Path, *, known: frozenset[str]) -> Iterator[Path]:
    """A new folder beside `out` to write into; its files move to `out` when the block ends without an error.

    An `out` that is absent or empty gets all files at once. In any other each file is replaced on its own, and
    those of `known` (all names that a run may write) that are not written now are removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield staging
        staging.chmod(0o755)
        if not out.exists() or not any(out.iterdir()):
            staging.replace(out)
            return
        written = {file.name for file in staging.iterdir()}
        for file in staging.iterdir():
            file.replace(out / file.name)
        for name in known - written:
            (out / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write and flush to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
