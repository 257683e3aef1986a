"""Stop between two steps: a signal asks for it, the training writes its checkpoint and ends.

Slurm announces the end of a job's time by SIGUSR1 or SIGUSR2, preemption by SIGTERM.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_ORPHAN_SECONDS = 5.0


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; what it trained is in the checkpoint."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def is_time_limit(self) -> bool:
        """Did Slurm announce the end of the job's time?"""
        return self.signum in (signal.SIGUSR1, signal.SIGUSR2)

    def __reduce__(self) -> tuple[type, tuple[int]]:  # it travels from worker processes
        return type(self), (self.signum,)


@dataclass
class _Asked:
    """Signals belong to the whole process, and so does this."""

    signum: int | None = None
    loops: int = 0  # trainings that look for themselves


_asked = _Asked()


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within the block a signal raises Stopped: at once, or after the step of a training that is under way.

    A second Ctrl-C does not wait for the step. Elsewhere than in the main thread, where Python takes no signals,
    the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def ask(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked process that loads data; its parent ends it
            _end_child(signum)
            return
        again = _asked.signum is not None and signum == signal.SIGINT
        _asked.signum = _asked.signum or signum
        if again or not _asked.loops:
            raise Stopped(_asked.signum)

    before = {signum: signal.signal(signum, ask) for signum in ASKING}
    _asked.signum = None
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _asked.signum = None


def end_with_parent() -> None:
    """From now on this process is asked to end when its parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ask this process to end: again and again, until a training hears it after its step."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_SECONDS)


@contextmanager
def between_steps() -> Iterator[None]:
    """Within the block signals wait until the training looks (`stop_asked`, `end_if`), or until the block ends."""
    _asked.loops += 1
    try:
        yield
    finally:
        _asked.loops -= 1
    end_if(stop_asked())


def stop_asked() -> bool:
    """Has a signal asked to end? Then save, and call `end_if(True)`."""
    return _asked.signum is not None


def end_if(asked: bool) -> None:
    """Raise Stopped if a signal asked to end, this process or another one of its training."""
    if asked:
        raise Stopped(_asked.signum or signal.SIGTERM)


def _end_child(signum: int) -> None:
    if signum == signal.SIGINT:  # a terminal sends it to all
        return
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
