"""The same scenes side by side: ground truth and the detections of every route, for the first seed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from study.report.artifacts import RunFiles, steps
from study.report.material import Material
from study.report.routes import describe_point, find_route, full_points
from study.report.rows import Point

MAX_SCENES = 6  # pictures are embedded
_LARGEST, _QUALITY = 640, 72  # pixels of the longer side; of WebP: some 20 kB a picture
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
    """One gallery per grid point."""
    return [_gallery(material, RunFiles(material.files.root), point) for point in full_points(material.routes)]


def _gallery(material: Material, files: RunFiles, point: Point) -> Gallery:
    routes = material.routes
    names = dict.fromkeys(route.name for route in routes)
    here = [route for name in names if (route := find_route(routes, name, point)) is not None]
    seeds = [row.seed for route in here for row in route.rows]
    seed = min(seeds, default=None)
    runs = {route.name: next((s.run for k, s in steps(route, "evaluate") if k == seed), None) for route in here}
    scenes = max((files.scene_count(run) for run in runs.values() if run), default=0)
    rows = []
    for k in range(min(scenes, MAX_SCENES)):
        drawn = [_uri(files.picture(run, f"detections_{k}.png")) if run else None for run in runs.values()]
        rows.append((_ground_truth(files, runs.values(), k), *drawn))
    gaps = [*files.gaps, *(f"{name}: no evaluation for seed {seed}" for name, run in runs.items() if not run)]
    if not scenes:
        gaps = ["No evaluation stage has drawn its detections."]
    left_out = max(0, scenes - MAX_SCENES)
    key = _key([material.stages[run].part("pictures") for run in runs.values() if run])
    return Gallery(describe_point(point), seed, (GROUND_TRUTH, *runs), tuple(rows), key, left_out, tuple(gaps))


def _key(said: Sequence[Mapping[str, float]]) -> str:
    """What the lines mean; empty where a run does not say it, as those before it was drawn, or they differ."""
    if not said or not said[0] or any(other != said[0] for other in said):
        return ""
    score, iou = said[0]["min_score"], said[0]["iou"]
    return (
        f" with a score of at least {score:g}. Solid: found, a box of its class with an IoU of at least {iou:g};"
        " dashed: false alarms; dotted: missed"
    )


def _ground_truth(files: RunFiles, runs: Iterable[str | None], k: int) -> str | None:
    """The scene's boxes: every evaluation draws the same ones, so the first that has them serves."""
    quiet = RunFiles(files.root)
    for run in runs:
        if run and (content := quiet.picture(run, f"ground_truth_{k}.png")) is not None:
            return _uri(content)
    files.gaps.append(f"ground_truth_{k}.png: in no evaluation")
    return None


def _uri(png: bytes | None) -> str | None:
    """A picture as it is shown: no larger than a screen shows it beside others, and packed."""
    if png is None:
        return None
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_LARGEST, _LARGEST))
    small.save(buffer, format="WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
