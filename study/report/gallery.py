"""The same scenes side by side: ground truth and the detections of every route, for the first seed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.report.artifacts import RunFiles, steps
from study.report.material import Material
from study.report.routes import RouteResults, describe_point, find_route, full_points
from study.report.rows import Point

MAX_SCENES = 6  # pictures are embedded: six scenes of seven columns are a few megabytes
GROUND_TRUTH = "ground truth"


@dataclass(frozen=True)
class Gallery:
    """Pictures as data URIs: `rows[scene][column]`, None where a picture is absent."""

    place: str
    seed: int | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    left_out: int
    gaps: tuple[str, ...]


def galleries(material: Material) -> list[Gallery]:
    """One gallery per grid point."""
    return [_gallery(material.routes, RunFiles(material.files.root), point) for point in full_points(material.routes)]


def _gallery(routes: Sequence[RouteResults], files: RunFiles, point: Point) -> Gallery:
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
    return Gallery(describe_point(point), seed, (GROUND_TRUTH, *runs), tuple(rows), left_out, tuple(gaps))


def _ground_truth(files: RunFiles, runs: Iterable[str | None], k: int) -> str | None:
    """The scene's boxes: every evaluation draws the same ones, so the first that has them serves."""
    quiet = RunFiles(files.root)
    for run in runs:
        if run and (content := quiet.picture(run, f"ground_truth_{k}.png")) is not None:
            return _uri(content)
    files.gaps.append(f"ground_truth_{k}.png: in no evaluation")
    return None


def _uri(png: bytes | None) -> str | None:
    return None if png is None else "data:image/png;base64," + base64.b64encode(png).decode("ascii")
