"""Was a training over when it ended? The last tenth of its curve, over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from study.report import units
from study.report.artifacts import RunFiles
from study.report.curves import MEASURES
from study.report.material import Material
from study.report.routes import RouteResults
from study.report.statistics.simulated import CONFIDENCE
from study.report.statistics.simultaneous import StudentT
from study.report.statistics.summary import is_number, summarize

_LAST = 0.1  # of the steps
_FEWEST_POINTS = 5  # in that part; fewer make no slope
# what is better when it is higher (1) or lower (-1); the first that a run has counts
_BETTER = {"val_accuracy": 1, "val_AP": 1, "loss": -1}


def late_gain(steps: Sequence[float], values: Sequence[float]) -> float | None:
    """What a line through the last tenth of a curve gains over that tenth; None where it has too few points.

    `steps` ascend to the last step of the training.
    """
    share = [step / steps[-1] for step in steps]
    late = [point for point in zip(share, values, strict=True) if point[0] > 1 - _LAST]
    if len(late) < _FEWEST_POINTS:
        return None
    x, y = np.array(late, dtype=np.float64).T
    x = x - x.mean()
    # the least squares slope is the gain over a whole training; the last tenth has a tenth of it
    return float(_LAST * (x @ (y - y.mean())) / (x @ x))


def still_improving(material: Material) -> Iterator[str]:
    """A sentence on the routes whose last training still gained when it ended, where there is one.

    The intervals over seeds hold together for all routes with a probability of 95 %.
    """
    files = RunFiles(material.files.root)  # what is absent is told where curves are drawn
    gains = {route.label: _gains(route, material.topic.curves, files) for route in material.routes}
    known = {label: found for label, found in gains.items() if found is not None and len(found[1]) > 1}
    shown = []
    for label, (key, values) in known.items():
        summary = summarize(values)
        assert summary is not None and summary.std is not None
        half = StudentT(summary.n - 1, len(known)).quantile(CONFIDENCE) * summary.std / math.sqrt(summary.n)
        if summary.mean - half > 0:
            low, mean, high = (units.signed(_BETTER[key] * (summary.mean + d), 2) for d in (-half, 0.0, half))
            ends = (low, high) if _BETTER[key] > 0 else (high, low)
            shown.append(f"{label} ({MEASURES[key]} {mean} [{', '.join(ends)}], n = {summary.n})")
    if shown:
        yield (
            f"Still improving over the last tenth of the training: {'; '.join(shown)}; longer training could change"
            " the order of the routes."
        )


def _gains(route: RouteResults, kinds: Mapping[str, str], files: RunFiles) -> tuple[str, list[float]] | None:
    """The measure, and what each seed gained in it; None where the route does not end with a training that has one."""
    kind = next(iter(kinds))  # the first of them is what a route ends with
    found: dict[str, list[float]] = {}
    for row in route.rows:
        trained = [step for step in row.chain if step.kind in kinds or step.kind.startswith("prune")]
        if trained and trained[-1].kind == kind:
            records = files.metrics(trained[-1].run)
            key, gain = _gain(records)
            if gain is not None:
                found.setdefault(key, []).append(_BETTER[key] * gain)
    # seeds that recorded different measures have no common mean
    return next(iter(found.items())) if len(found) == 1 else None


def _gain(records: Sequence[Mapping[str, float]]) -> tuple[str, float | None]:
    """Of the first measure that a run recorded."""
    for key in _BETTER:
        points = [(r["step"], r[key]) for r in records if is_number(r.get(key))]
        if points:
            return key, late_gain(*zip(*points, strict=True))
    return "loss", None
