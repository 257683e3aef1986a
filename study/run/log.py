"""The log of a run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from study.stages.store import RunDir


class _LogFile(logging.FileHandler):
    """A full disk is reported by what fails next, not by its log."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


@contextmanager
def log_into(run: RunDir) -> Iterator[None]:
    """Within the block log records go to the run's log.txt."""
    handler = _LogFile(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    # the root logger, so that warnings of Detectron2 and of data loading are kept with the run that they are about
    root = logging.getLogger()
    level = root.level
    try:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
