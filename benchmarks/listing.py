"""Starts on a data set of many files: seconds and memory of listing and checking ImageNet's layout, against the plain
way, which lists paths and looks at every file anew.

Run: python benchmarks/listing.py [--share 10], for a tenth of ImageNet's 1,281,167 + 50,000 files; 100 is quick

The files are hard links to a few photographs. A start is what a study does: it names the data set after its content,
then opens its splits, the beginning of each file looked at. Each start is a process of its own; the second one has the
memory that the first one left. What the system keeps of files that were read is warm for all of them.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

from classify.data import data_pieces, open_splits
from study.stages.content_sums import content_sum
from training.device import usable_cores

CLASSES, TRAIN, VAL = 1000, 1281, 50  # images of a class
KINDS = 40  # photographs; a file system allows for some 65,000 links to one
SETTLED_SECONDS = 2.5  # what was written a moment ago is not remembered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, default=10, help="one in so many of ImageNet's classes")
    parser.add_argument("--folder", type=Path, help="where to make the files (default: the system's temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        root = Path(name)
        n_files = make(root / "imagenet", CLASSES // given.share)
        time.sleep(SETTLED_SECONDS)
        print(f"{n_files:,} files, {usable_cores()} cores; seconds of the clock : of this process")
        for label, start in (("plain", plain), ("plain again", plain), ("first start", ours), ("second start", ours)):
            with get_context("spawn").Pool(1) as process:  # of which the peak is this start's alone
                times, more = process.apply(start, (root,))
            parts = "  ".join(f"{what} {clock:.2f} : {own:.2f}" for what, (clock, own) in times.items())
            print(f"{label:>12}  {parts}  peak +{more:.0f} MB", flush=True)


def make(folder: Path, n_classes: int) -> int:
    """Photographs of ImageNet's usual size, linked under other names; returns how many."""
    (folder / "kinds").mkdir(parents=True)
    kinds = list(photographs(folder / "kinds"))
    count = 0
    for split, n_images in (("train", TRAIN), ("val", VAL)):
        for label in range(n_classes):
            wnid = f"n{label:08d}"
            (folder / split / wnid).mkdir(parents=True)
            for i in range(n_images):
                os.link(kinds[count % KINDS], folder / split / wnid / f"{wnid}_{i}.JPEG")
                count += 1
    for file in kinds:
        file.unlink()
    (folder / "kinds").rmdir()
    return count


def photographs(folder: Path) -> Iterator[Path]:
    """Parts of scikit-learn's two photographs, 500 x 375, about 80 kB."""
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for i in range(KINDS):
        left, top = 3 * i, i
        file = folder / f"{i}.jpg"
        whole[i % len(whole)].crop((left, top, left + 500, top + 375)).save(file, quality=92)
        yield file


Measured = tuple[dict[str, tuple[float, float]], float]


def plain(root: Path) -> Measured:
    """Paths in a list, all of them handed to threads that look at their headers; nothing is remembered."""
    before, start = peak(), now()
    files = sorted(path for path in (root / "imagenet").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(has_header, files))
    assert len(sizes) == len(files)
    return {"list and look": since(start)}, peak() - before


def has_header(file: Path) -> bool:
    with Image.open(file) as image:
        return image.size[0] > 0


def ours(root: Path) -> Measured:
    """What a study does, with its memory below `root`."""
    before, start, times = peak(), now(), {}
    pieces = data_pieces("imagenet", root=root)
    assert pieces is not None
    content_sum("imagenet", pieces, root / "runs")
    times["list and sum"], start = since(start), now()
    splits = open_splits("imagenet", root=root, memory=root / "runs")
    times["list and look"] = since(start)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == len(pieces.names)
    return times, peak() - before


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    clock, own = now()
    return clock - start[0], own - start[1]


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
