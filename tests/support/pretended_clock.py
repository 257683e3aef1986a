"""A clock for checkpoints on which each step of a training takes a minute."""

from contextlib import contextmanager
from itertools import count
from unittest import mock


@contextmanager
def a_minute_a_step(minutes=1):
    """Within the block the clock, which is read once a step, is so many minutes later each time it is read."""
    reads = count()
    with mock.patch("training.checkpoint.monotonic", lambda: 60.0 * minutes * next(reads)):
        yield
