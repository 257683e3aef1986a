"""The same scenes side by side: ground truth and the detections of every route, for the first seed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from study.report.artifacts import RunFiles, steps
from study.report.material import Material
from study.report.routes import describe_point, find_route, full_points
from study.report.rows import Point

MAX_SCENES = 6  # at a grid point: pictures are embedded
MAX_BYTES = 3_000_000  # of all pictures; a page is to stay below 10 MB, of which plotly.js takes 2
_LARGEST, _QUALITY, _EFFORT = 640, 60, 6  # pixels of the longer side; of WebP: some 15 kB a picture
GROUND_TRUTH = "ground truth"


@dataclass(frozen=True)
class Gallery:
    """Pictures as data URIs: `rows[scene][column]`, None where a picture is absent. `key`: what their lines mean."""

    place: str
    seed: int | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    key: str
    left_out: int
    gaps: tuple[str, ...]


def galleries(material: Material) -> list[Gallery]:
    """One gallery per grid point; of many points each has fewer scenes, and the last ones may have none.

    One alone, which says so, where nothing was drawn at any.
    """
    points, found, size = full_points(material.routes), [], 0
    for k, point in enumerate(points, 1):
        # shares add up: what earlier points left of theirs is there for this one
        gallery = _gallery(material, RunFiles(material.files.root), point, MAX_BYTES * k // len(points) - size, size)
        found.append(gallery)
        size += _size(gallery.rows)
    if not any(gallery.rows or gallery.left_out for gallery in found):  # a word for all points together
        return [replace(gallery, place="") for gallery in found[:1]]
    return found


def _gallery(material: Material, files: RunFiles, point: Point, share: int, size: int) -> Gallery:
    """`share`: bytes that these pictures may have, all but those of the first scene; `size`: what others have."""
    names = dict.fromkeys(route.name for route in material.routes)
    here = [route for name in names if (route := find_route(material.routes, name, point)) is not None]
    # one seed: pictures of all would fill the page
    seed = min((row.seed for route in here for row in route.rows), default=None)
    runs = {route.name: next((s.run for k, s in steps(route, "evaluate") if k == seed), None) for route in here}
    scenes = max((files.scene_count(run) for run in runs.values() if run), default=0)
    rows: list[tuple[str | None, ...]] = []
    for k in range(min(scenes, MAX_SCENES)):
        drawn = [_uri(files.picture(run, f"detections_{k}.png")) if run else None for run in runs.values()]
        row = (_ground_truth(files, runs.values(), k), *drawn)
        if _size([*rows, row]) > (share if rows else MAX_BYTES - size):
            break
        rows.append(row)
    gaps = [*files.gaps, *(f"{name}: no evaluation for seed {seed}" for name, run in runs.items() if not run)]
    if not scenes:
        gaps = ["No evaluation stage has drawn its detections."]
    key = _key([material.stages[run].part("pictures") for run in runs.values() if run])
    columns = (GROUND_TRUTH, *runs)
    return Gallery(describe_point(point), seed, columns, tuple(rows), key, scenes - len(rows), tuple(gaps))


def _size(rows: Iterable[Iterable[str | None]]) -> int:
    return sum(len(uri) for row in rows for uri in row if uri)


def _key(said: Sequence[Mapping[str, float]]) -> str:
    """What the lines mean; empty where a run does not say it, as those before it was drawn, or they differ."""
    if not said or not said[0] or any(other != said[0] for other in said):
        return ""
    return f" {meaning(said[0]['min_score'], said[0]['iou'])}"


def meaning(score: float, iou: float) -> str:
    """What the lines in pictures of detections mean."""
    return (
        f"with a score of at least {score:g}. Solid: found, a box of its class with an IoU of at least {iou:g};"
        " dashed: false alarms; dotted: missed"
    )


def _ground_truth(files: RunFiles, runs: Iterable[str | None], k: int) -> str | None:
    """The scene's boxes: every evaluation draws the same ones, so the first that has them serves."""
    # a picture that one evaluation lacks is no gap as long as another has it
    quiet = RunFiles(files.root)
    for run in runs:
        if run and (content := quiet.picture(run, f"ground_truth_{k}.png")) is not None:
            return _uri(content)
    files.gaps.append(f"ground_truth_{k}.png: in no evaluation")
    return None


def _uri(png: bytes | None) -> str | None:
    if png is None:
        return None
    with Image.open(io.BytesIO(png)) as picture:
        return picture_uri(picture)


def picture_uri(picture: Image.Image) -> str:
    """A picture as it is shown: no larger than a screen shows it beside others, and packed."""
    buffer, small = io.BytesIO(), picture.convert("RGB")
    small.thumbnail((_LARGEST, _LARGEST))
    small.save(buffer, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
