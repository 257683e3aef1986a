"""What of a study's files defines its results: their contents. Where they are, and when they were written, does not.

Everything that a stage reads and no stage made is found by `Contents` before the stage has a name: data sets, given
weights, patterns. `check_unchanged` looks again when the stage runs.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from classify.data import data_pieces
from classify.data.content import Pieces
from classify.published import published_file, published_preset
from detect.data.open import annotations_now, detection_data, is_generated, open_detection, splits_of
from detect.settings import DetectorData
from pruning.errors import Refusal
from study.config.sections import ClassifierData, Machine
from study.stages.content_sums import content_sum
from study.stages.data import with_paths
from study.stages.settings import Data
from study.stages.stage import Stage
from training.files import canonical, file_digest, sha256
from training.remembered import FOLDER, alone, keys_of, stamps_of
from training.texts import Texts

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from detect.data import DetectionDataset

FoundT = TypeVar("FoundT")
_DETECTION = ("train_detector", "prune_detector", "evaluate")


@dataclass
class Contents:
    """Finds out what files hold, each once. `runs`: below it bytes that were read are remembered.

    `fetch`: get data sets that are not there if they may be downloaded; otherwise nothing is changed. `known`: what was
    found; a study keeps it, so that its report is made from the same results when the files are gone.
    """

    runs: Path | None = None
    fetch: bool = False
    known: dict[str, object] = field(default_factory=dict)

    def classification(self, data: ClassifierData, root: Path) -> Data:
        """Name, options and seed of a data set below `root`, and `content`, the SHA-256 of its files.

        `content` is None where they are not there; then `paths` says why: a study can be planned, not run.
        """
        asked = data.model_dump(mode="json")
        return self.once(["classification", asked, str(root)], lambda: self._classification(asked, root))

    def detection(self, data: DetectorData) -> dict[str, object]:
        """`detection_data`, and the SHA-256 of each split's images; ValueError if it cannot be read."""
        return self.once(["detection", data.model_dump(mode="json")], lambda: self._detection(data))

    def file(self, path: Path, key: str) -> dict[str, object]:
        """A file given by config key `key`: its SHA-256, and where it is."""
        return self.once(["file", str(path)], lambda: _given(path, key))

    def weights(self, weights: Path | str, arch: str) -> dict[str, object]:
        """The file of `classifier.weights`, of published ones with their name.

        The sum of published ones is empty where they are not there; then `paths` says why: a study can be planned, not
        run.
        """
        if isinstance(weights, Path):
            return self.file(weights, "classifier.weights")
        return self.once(["weights", weights, arch], lambda: _published(weights, arch, fetch=self.fetch))

    def once(self, asked: Sequence[object], find: Callable[[], FoundT]) -> FoundT:
        """What `find` finds out about `asked`, found once."""
        key = canonical(asked)
        if key not in self.known:
            self.known[key] = find()
        found: FoundT = json.loads(canonical(self.known[key]))  # a copy: stages keep what they are given
        return found

    def _classification(self, asked: Data, root: Path) -> Data:
        name, options = asked["name"], dict(asked["options"])
        # without the option nothing is downloaded: planning a study changes nothing on the disk
        if not self.fetch:
            options.pop("download", None)
        # the place is no part of what a stage is: it stands in `paths`, which hashes leave out
        found = {**asked, "options": {k: v for k, v in asked["options"].items() if k != "path"}}
        places = {k: v for k, v in asked["options"].items() if k == "path"}
        try:
            fetched = self.runs if options.get("download") else None
            with alone(fetched and fetched / FOLDER / "fetch"):  # of several processes one downloads
                pieces = data_pieces(name, root=root, **options)
            if pieces is None:  # made from its options
                return asked
            # all of a large data set takes minutes to read: the sums of its files are remembered by their time and size
            content = content_sum(_place(name, options, root), pieces, _memory(self.runs))
        except (ValueError, OSError) as error:
            return {**found, "content": None, "paths": {**places, "why": _absent(name, root, error)}}
        return {**found, "content": content, "paths": places}

    def _detection(self, data: DetectorData) -> dict[str, object]:
        root = None if self.runs is None else self.runs / "data"
        try:
            found = detection_data(data)
            if is_generated(found):
                return found
            return {**found, "images": {s: _images(found, s, root, self.runs) for s in splits_of(found)}}
        except ValueError as error:
            prefix = "" if str(error).startswith("detector.dataset") else "detector.dataset: "
            raise Refusal(f"{prefix}{error}") from error


def check_there(stages: Sequence[Stage]) -> None:
    """ValueError, in one sentence, if a data set or weights that the stages start from are not there."""
    for why in absences(stages):
        raise Refusal(why)


def absences(stages: Sequence[Stage]) -> Iterator[str]:
    """Why a data set or weights are not there, for each stage that they are missing to."""
    for stage in stages:
        data, weights = stage.settings.get("dataset") or {}, stage.settings.get("weights") or {}
        if "content" in data and data["content"] is None:
            yield data["paths"]["why"]
        if weights and not weights["sha256"]:
            yield weights["paths"]["why"]


def check_unchanged(stage: Stage, runs: Path, machine: Machine) -> None:
    """ValueError if a file that a stage reads does not hold what it held when the stage got its name."""
    before = stage.with_ancestors()
    kind = "data" if stage.kind in _DETECTION else "dataset"
    # of the nearest stage that names any: a pruning has its images from the classifier's training before it
    data: Data = next((s.settings[kind] for s in reversed(before) if kind in s.settings), {})
    if "content" in data:
        options = with_paths(data)["options"]
        pieces = data_pieces(data["name"], root=machine.data_root, **options)
        place = _place(data["name"], options, machine.data_root)
        assert pieces is not None  # such a data set is made from its options, and has no content
        _same(place, data["content"], content_sum(place, pieces, _memory(runs)))
    if "images" in data:
        # first: which images there are follows from them
        _same("the annotations of detector.dataset", data, annotations_now(data))
        for split, content in data["images"].items():
            _same(f"the {split} images of detector.dataset", content, _images(data, split, runs / "data", runs))
    # pruning and evaluation build the detector that a training before describes, from files that it may name
    detectors = [s.settings["model"] for s in before if "model" in s.settings] if kind == "data" else []
    for file, digest in _files(stage.settings, detectors):
        _same(file, digest, file_digest(Path(file)))


def _files(*settings: object) -> Iterator[tuple[str, str]]:
    """Place and sum of every file given to a stage."""
    for value in settings:
        if isinstance(value, Mapping) and "sha256" in value and "file" in value.get("paths", {}):
            yield str(Path(value["paths"]["file"])), value["sha256"]
        elif isinstance(value, Mapping):
            yield from _files(*value.values())
        elif isinstance(value, list | tuple):
            yield from _files(*value)


def _same(what: str, before: object, now: object) -> None:
    if before != now:
        raise Refusal(
            f"{what}: the content has changed since this run was named after it; start again: what depends on it is"
            " made anew, and nothing is mixed"
        )


def _memory(runs: Path | None) -> Path | None:
    return None if runs is None else runs / FOLDER


def _place(name: str, options: Mapping[str, object], root: Path) -> str:
    return f"data set {name} in {(root / str(options.get('path', ''))).resolve()}"


def _absent(name: str, root: Path, error: Exception) -> str:
    return (
        f"classifier.dataset {name!r}: {error} (options are keys of classifier.dataset.options; machine.data_root is"
        f" {root})"
    )


def _images(data: Mapping[str, object], split: str, root: Path | None, runs: Path | None) -> str:
    """SHA-256 of the images of a split, in its order: their names are in the annotations."""
    dataset: DetectionDataset = open_detection(data, split, root)
    files = dataset.split.images.files
    names = Texts.of(b"%d" % number for number in range(len(files)))
    pieces = Pieces(names, keys_of(files), stamps_of(files), lambda index: sha256(Path(files[index])))
    return content_sum(f"{split} images of {dataset.split.source.resolve()}", pieces, _memory(runs))


def _given(path: Path, key: str) -> dict[str, object]:
    try:
        return {"sha256": file_digest(path), "paths": {"file": str(path)}}
    except ValueError as error:
        raise Refusal(f"{key}: {error}") from error


def _published(weights: str, arch: str, *, fetch: bool) -> dict[str, object]:
    name = published_preset(weights, arch).name
    try:
        file = published_file(weights, arch, fetch=fetch)
    except ValueError as error:
        return {"name": name, "sha256": "", "paths": {"why": f"classifier.weights {error}"}}
    return {"name": name, "sha256": file_digest(file), "paths": {"file": str(file)}}
