"""Work on many files in threads, for work that leaves Python's lock: waiting for a disk, hashing, Pillow's decoding."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from training.device import usable_cores

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")
_MOST_THREADS = 32
_LARGEST_SHARE = 64  # items that a thread is given at once


def side_by_side(work: Callable[[ItemT], DoneT], items: Sequence[ItemT]) -> Iterator[DoneT]:
    """`work` of each item, in their order, two at a time for each core that this process may use.

    However many items there are, only a few shares of them are handed out at any time. When the iteration ends early,
    the shares that nobody has begun are dropped.
    """
    n_threads = min(_MOST_THREADS, 2 * usable_cores())
    size = max(1, min(_LARGEST_SHARE, len(items) // (4 * n_threads)))
    shares = (items[start : start + size] for start in range(0, len(items), size))
    threads = ThreadPoolExecutor(n_threads)
    try:
        waiting = deque(threads.submit(_each, work, share) for share in islice(shares, 2 * n_threads))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(threads.submit(_each, work, share) for share in islice(shares, 1))
    finally:
        threads.shutdown(cancel_futures=True)


def _each(work: Callable[[ItemT], DoneT], items: Sequence[ItemT]) -> list[DoneT]:
    return [work(item) for item in items]
