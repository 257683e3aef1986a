"""Writing a file so that it is the old one or the new one, never a part."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> Path:
    """Write `content` to `path` in one step; returns `path`."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path
