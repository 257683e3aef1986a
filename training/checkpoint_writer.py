"""Checkpoints written beside a training: it goes on while a thread writes a copy of its state."""

import copy
import logging
from collections.abc import MutableMapping
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from torch import Tensor

from training.checkpoint import State, save_checkpoint
from training.stopping import Stopped

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes the checkpoints at `path`, one at a time; used in a `with` block, at whose end all is written.

    What a write fails of, a full disk say, is raised in the training by the next call: an OSError that names `path`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: State) -> None:
        """Begin to write the state as it is now, once the checkpoint before it is written."""
        self.wait()
        self._thread = Thread(target=self._write, args=(_copied(state),), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what the last write failed of, if it is known yet."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Until nothing is being written; then as `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _write(self, state: State) -> None:
        try:
            save_checkpoint(self.path, state)
        except BaseException as error:  # for the training, which has to end of it
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.wait()
        except OSError as failed:
            if error is None or isinstance(error, Stopped):
                raise
            _log.warning("%s", failed)  # the training failed of something else, which is what there is to tell


def _copied(state: State) -> State:
    """The same containers with copies of their tensors, all on the CPU: what the next step changes is not in them."""

    def copied(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=True)
        if isinstance(value, MutableMapping):
            same = copy.copy(value)  # with its attributes: a network's state has its layers' versions in one
            same.update({key: copied(part) for key, part in value.items()})
            return same
        if isinstance(value, list | tuple):
            return type(value)(copied(part) for part in value)
        return copy.deepcopy(value)

    return {key: copied(value) for key, value in state.items()}
