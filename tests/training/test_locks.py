"""Who waits for a lock is told who holds it, where only a file can say that."""

import errno
import logging
import multiprocessing
import os
import signal
import threading
import time

import pytest

from training.locks import locked

pytestmark = pytest.mark.filterwarnings("ignore:flock not supported")


@pytest.fixture
def without_flock(monkeypatch):
    def missing(descriptor, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", missing)


def wait_in_a_thread(lock, caplog, words):
    """A thread that wants the lock, once the log has these words."""
    entered = threading.Event()

    def work():
        with locked(lock):
            entered.set()

    thread = threading.Thread(target=work, daemon=True)
    with caplog.at_level(logging.INFO):
        thread.start()
        end = time.monotonic() + 60
        while words not in caplog.text:
            assert time.monotonic() < end, caplog.text
            time.sleep(0.01)
    assert not entered.is_set()
    return thread


@pytest.mark.parametrize(
    ("content", "holder"),
    [
        ("4242\nnode7\n", "process 4242 on node7"),
        ("7\nbox?pidns-f0001234\n12\n", "process 7 on box"),
        ("", "a process without a name"),
    ],
)
def test_without_flock_the_log_says_who_holds_it_and_removing_the_file_frees_it(
    tmp_path, without_flock, caplog, content, holder
):
    lock = tmp_path / ".lock"
    lock.write_text(content)
    thread = wait_in_a_thread(lock, caplog, "waiting for it")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{lock}: {holder} holds this lock, as this file system has none of its own; waiting for it; if that process"
        " is gone, remove this file"
    )
    lock.unlink()
    thread.join(60)
    assert not thread.is_alive()


def test_without_flock_one_holds_it_at_a_time_and_leaves_nothing(tmp_path, without_flock, caplog):
    lock = tmp_path / ".lock"
    with locked(lock):
        assert lock.read_text().splitlines()[0] == str(os.getpid())
    assert not lock.exists() and not caplog.records


@pytest.mark.cpu_only
def test_without_flock_what_a_dead_process_of_this_machine_left_is_no_lock(tmp_path, without_flock):
    lock = tmp_path / ".lock"

    def die():
        with locked(lock):
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    assert lock.read_text().splitlines()[0] == str(process.pid)
    with locked(lock):
        assert lock.read_text().splitlines()[0] == str(os.getpid())


def test_a_lock_of_the_system_is_waited_for_without_that_advice(tmp_path, caplog):
    lock = tmp_path / ".lock"
    with locked(lock):
        thread = wait_in_a_thread(lock, caplog, "another process holds this lock; waiting for it")
    thread.join(60)
    assert not thread.is_alive() and "remove" not in caplog.text


def test_a_disk_that_gives_no_locks_is_named(tmp_path, monkeypatch):
    def none_left(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none_left)
    with pytest.raises(OSError, match=r"No locks available: '.*/\.lock'"), locked(tmp_path / ".lock"):
        pass
