"""The test images on which each route does best and worst, and on which it differs most from the first reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from detect.data.images import ImageRecord
from detect.data.open import open_for
from detect.data.picture import DAMAGE
from detect.data.records import Detection, Split
from detect.marks import MIN_IOU, MIN_SCORE, Drawn, Tally, draw, found_boxes, judged, true_boxes
from pruning.errors import Refusal
from study.report import units
from study.report.artifacts import RunFiles, steps
from study.report.gallery import meaning, picture_uri
from study.report.material import Material
from study.report.routes import RouteResults, find_route
from study.report.rows import StageResult
from study.report.tables import references_of

MAX_BYTES = 1_500_000  # of all pictures


@dataclass(frozen=True)
class Shown:
    """What a route finds on an image: in words with its score, and as a data URI."""

    route: str
    words: str
    uri: str


@dataclass(frozen=True)
class Example:
    """An image that was chosen for a route, and why; what that route finds on it, after the reference if compared."""

    route: str
    title: str
    words: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Examples:
    """Those of all routes, for one seed. `left_out`: of how many more routes a larger page would show some."""

    rule: str
    examples: tuple[Example, ...]
    left_out: int
    gaps: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """What a route finds on each image of the split, in its order."""

    route: RouteResults
    split: Split
    boxes: Sequence[Sequence[Detection]]
    tallies: Sequence[Tally]

    @property
    def scores(self) -> list[float | None]:
        return [tally.f1 for tally in self.tallies]


@dataclass(frozen=True)
class _Choice:
    """An image by its place in the split, and what routes see on it: it was chosen for the last."""

    views: tuple[_Seen, ...]
    title: str
    words: str
    image: int


def examples(material: Material) -> Examples | None:
    """Route by route, as long as there is room; None where no run says what it was evaluated on."""
    reader, routes = _Reader(material), material.routes
    names = references_of(routes, material.topic)[:1]
    kept: list[Example] = []
    size = left_out = 0
    first: _Seen | None = None
    for route in routes:
        if size >= MAX_BYTES:
            left_out += 1
            continue
        view = reader.view(route)
        if view is None:
            continue
        first = first or view
        reference = next((r for name in names if (r := find_route(routes, name, route.point)) is not None), None)
        against = None if reference is None or reference is route else reader.view(reference)
        here = [_draw(choice, reader.files) for choice in _chosen(view, against)]
        more = sum(len(shown.uri) for example in here for shown in example.shown)
        if kept and size + more > MAX_BYTES:
            size, left_out = MAX_BYTES, left_out + 1  # and those after it, which may be smaller
            continue
        size += more
        kept += [example for example in here if example.shown]
    gaps = tuple(dict.fromkeys(reader.files.gaps))
    if first is None:
        return Examples("", (), 0, gaps) if gaps else None
    return Examples(_rule(reader.seed, names, first.scores), tuple(kept), left_out, gaps)


class _Reader:
    """What routes see, read once for each data set and, of those that others are compared with, for each route."""

    def __init__(self, material: Material):
        self.material, self.files = material, RunFiles(material.files.root)
        self.seed = min((row.seed for route in material.routes for row in route.rows), default=None)
        self._splits: dict[str, Split | None] = {}
        self._references: dict[int, _Seen | None] = {}

    def view(self, route: RouteResults) -> _Seen | None:
        """None where no run of the seed says what it was evaluated on; None, and a gap, where files are absent."""
        if route.name not in self.material.topic.references:
            return self._view(route)
        if id(route) not in self._references:
            self._references[id(route)] = self._view(route)
        return self._references[id(route)]

    def _view(self, route: RouteResults) -> _Seen | None:
        run = next((step.run for seed, step in steps(route, "evaluate") if seed == self.seed), None)
        split = None if run is None else self._split(self.material.stages[run])
        detections = None if run is None or split is None else self.files.detections(run)
        if split is None or detections is None:
            return None
        by_image: dict[int | str, list[Detection]] = {image.id: [] for image in split.images}
        # best first, as `judged` gives each box to the first detection that finds it
        for one in sorted(detections, key=lambda one: -one["score"]):
            if one["score"] >= MIN_SCORE and one["image_id"] in by_image and one["category_id"] in split.category_ids:
                by_image[one["image_id"]].append(one)
        boxes = [by_image[image.id] for image in split.images]
        tallies = [_judge(image, here, split)[1] for image, here in zip(split.images, boxes, strict=True)]
        return _Seen(route, split, boxes, tallies)

    def _split(self, stage: StageResult) -> Split | None:
        """The test images of an evaluation; a gap where they are not there, or not as they were."""
        settings, fingerprint = stage.part("settings"), str(stage.part("data").get("fingerprint"))
        if not settings.get("data"):
            return None
        if fingerprint not in self._splits:
            classes = tuple(settings.get("classes") or stage.part("per_class"))
            try:
                split = open_for(classes, settings["data"], self.files.root / "data").split
                if split.fingerprint() != fingerprint:
                    raise Refusal(f"{split.source}: not the images and boxes of the evaluations")
                self._splits[fingerprint] = split
            except (Refusal, OSError) as error:
                self.files.gaps.append(f"No test images to choose from: {error}")
                self._splits[fingerprint] = None
        return self._splits[fingerprint]


def _judge(
    image: ImageRecord, detections: Sequence[Detection], split: Split, *, masks: bool = False
) -> tuple[list[Drawn], Tally]:
    truth = true_boxes(image)
    drawn = judged(found_boxes(detections, split, masks=masks), truth)
    return drawn, Tally.of(drawn, truth)


def _chosen(view: _Seen, reference: _Seen | None) -> Iterator[_Choice]:
    """The best and the worst image of a route, and that on which it is furthest from the reference."""
    name, scores = view.route.label, view.scores
    of = sum(score is not None for score in scores)
    best, worst = (extreme([None if s is None else sign * s for s in scores], view.split) for sign in (1, -1))
    for word, k in (("best", best), ("worst", worst)):
        if k is not None and (word == "best" or worst != best):
            count = scores.count(scores[k])
            others = f"one of {count} with this F1" if count > 1 else "no other has this F1"
            yield _Choice((view,), f"{name}: {word}", f"{others}, of {of} images", k)
    if reference is None or reference.split is not view.split:
        return
    gaps = [None if a is None or b is None else a - b for a, b in zip(scores, reference.scores, strict=True)]
    k = extreme([None if gap is None else abs(gap) for gap in gaps], view.split)
    if k is not None and (gap := gaps[k]):
        title = f"{name} against {reference.route.name}: furthest apart"
        yield _Choice((reference, view), title, f"F1 {units.signed(gap, 2)}", k)


def extreme(values: Sequence[float | None], split: Split) -> int | None:
    """The place of the image with the highest value, of equals that with the lowest id; None without a value."""
    some = [k for k, value in enumerate(values) if value is not None]
    # ids are numbers or text, which Python does not compare: numbers go first
    first = sorted(some, key=lambda k: (isinstance(split.images[k].id, str), split.images[k].id))
    return max(first, key=lambda k: values[k] or 0.0, default=None)


def _draw(choice: _Choice, files: RunFiles) -> Example:
    """Without a picture, and with a gap, where the image cannot be read."""
    k, shown = choice.image, []
    route, split = choice.views[-1].route, choice.views[-1].split
    image = split.images[k]
    for view in choice.views:
        drawn, tally = _judge(image, view.boxes[k], split, masks=True)
        alarms = f"{tally.false_alarms} false alarm{'' if tally.false_alarms == 1 else 's'}"
        told = f"F1 {tally.f1:.2f}: {tally.found} found, {tally.missed} missed, {alarms}"
        try:
            shown.append(Shown(view.route.name, told, picture_uri(draw(image.file, drawn, split.classes))))
        except DAMAGE as error:
            files.gaps.append(f"{image.file}: {error}")
    return Example(route.name, choice.title, f"image {image.id}, {choice.words}", tuple(shown))


def _rule(seed: int | None, references: Sequence[str], scores: Sequence[float | None]) -> str:
    """How the images were chosen; `scores` of the first route's."""
    against = "".join(f", and the one on which its F1 is furthest from that of {name}" for name in references)
    empty = scores.count(None)
    of = f"{empty} of {len(scores)} test images"
    left_out = f" {of} have no box to find, so no F1, and are left out." if empty else ""
    return (
        f"For each route the test image with the highest F1 and the one with the lowest{against}, for seed {seed}; of"
        " equals the one with the lowest id. F1 is 2 × found / (2 × found + missed + false alarms) on one image, of"
        f" detections {meaning(MIN_SCORE, MIN_IOU)}.{left_out} Images that are chosen by their result illustrate it;"
        " they do not measure it, which the tables do."
    )
