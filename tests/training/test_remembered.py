"""What was found out about files is known again, unless they changed; without harm where nothing can be remembered."""

import os
from multiprocessing import get_context

import numpy as np
import pytest

from training import remembered as module
from training.files import PARTIAL
from training.remembered import Asked, remembered, stamps_of
from training.texts import Texts, to_bytes, to_name

WHAT = "what is in them"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Ten files; what was written a moment ago counts as settled."""
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    made = [tmp_path / "files" / f"{k}.txt" for k in range(10)]
    made[0].parent.mkdir()
    for k, file in enumerate(made):
        file.write_text(f"text {k}")
    return made


def ask(folder, files, find=None, what=WHAT):
    """The answers, and which files were looked at for them."""
    looked = []

    def look(index):
        looked.append(files[index].name)
        return files[index].read_bytes() if files[index].exists() else b"none", True

    asked = Asked(Texts.of(to_bytes(str(file)) for file in files), stamps_of(files))
    return [text.decode() for text in remembered(folder, what, asked, find or look)], sorted(looked)


CONTENTS = [f"text {k}" for k in range(10)]
NAMES = [f"{k}.txt" for k in range(10)]


def test_files_are_looked_at_once(files, tmp_path):
    assert ask(tmp_path / "runs", files) == (CONTENTS, NAMES)
    assert ask(tmp_path / "runs", files) == (CONTENTS, [])
    assert ask(tmp_path / "runs", files[::-1]) == (CONTENTS[::-1], [])
    assert ask(tmp_path / "runs", files, what="another question") == (CONTENTS, NAMES)
    assert ask(None, files) == ask(None, files) == (CONTENTS, NAMES)
    assert ask(tmp_path / "runs", []) == ([], [])


@pytest.mark.parametrize("change", ["longer", "as long", "as long and with the old time", "touched", "replaced"])
def test_of_files_that_changed_the_bytes_are_looked_at_again(files, tmp_path, change):
    ask(tmp_path, files)
    before = files[3].stat()
    text = "longer than before" if change == "longer" else "text x"
    if change == "touched":
        text = "text 3"
        files[3].touch()
    elif change == "replaced":
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(files[3])
    else:
        files[3].write_text(text)
    if change == "as long and with the old time":
        os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(tmp_path, files) == ([*CONTENTS[:3], text, *CONTENTS[4:]], ["3.txt"])
    assert ask(tmp_path, files) == ([*CONTENTS[:3], text, *CONTENTS[4:]], [])


def test_a_file_that_is_gone_is_looked_for_each_time_and_known_when_it_is_back(files, tmp_path):
    ask(tmp_path, files)
    files[3].rename(tmp_path / "elsewhere")
    for _ in range(2):
        assert ask(tmp_path, files) == ([*CONTENTS[:3], "none", *CONTENTS[4:]], ["3.txt"])
    files[3].write_text("text 3")
    assert ask(tmp_path, files)[0] == CONTENTS
    assert ask(tmp_path, files)[1] == []


def test_what_need_not_last_is_not_remembered(files, tmp_path):
    looked = []

    def look(index):
        looked.append(index)
        return b"so far", index != 4

    for _ in range(3):
        assert ask(tmp_path, files, look)[0] == ["so far"] * 10
    assert looked[10:] == [4, 4]


def test_what_was_written_a_moment_ago_is_not_remembered(files, tmp_path, monkeypatch):
    """It could be written again within one tick of the clock, and look the same."""
    monkeypatch.setattr(module, "_SETTLED_NS", 3600 * 10**9)
    assert ask(tmp_path, files)[1] == ask(tmp_path, files)[1] == NAMES
    assert not list(tmp_path.glob("*.npz"))


def test_questions_about_some_of_the_files_do_not_make_the_others_forgotten(files, tmp_path):
    assert ask(tmp_path, files[:6])[1] == NAMES[:6]
    assert ask(tmp_path, files[4:])[1] == NAMES[6:]
    files[5].write_text("text five")
    assert ask(tmp_path, files[5:])[1] == ["5.txt"]
    assert ask(tmp_path, files) == ([*CONTENTS[:5], "text five", *CONTENTS[6:]], [])


def damaged(content):
    """A memory cut short, and with one byte changed here and there."""
    yield from (b"", b"nonsense", b"\x93NUMPY", b"PK\x03\x04", content[:-1], content[: len(content) // 2])
    for place in range(0, len(content), 97):
        yield content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


def test_a_damaged_memory_is_none_and_is_made_again(files, tmp_path):
    ask(tmp_path, files)
    (memory,) = tmp_path.glob("*.npz")
    whole = memory.read_bytes()
    for content in damaged(whole):
        memory.write_bytes(content)
        assert ask(tmp_path, files)[0] == CONTENTS
        assert ask(tmp_path, files) == (CONTENTS, [])
    array = tmp_path / "array.npy"
    np.save(array, np.zeros(3))
    array.replace(memory)
    assert ask(tmp_path, files) == (CONTENTS, NAMES)


def test_a_memory_that_cannot_be_written_is_none(files, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    assert ask(tmp_path / "a file", files) == ask(tmp_path / "a file", files) == (CONTENTS, NAMES)

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    ask(tmp_path, files[:5])
    monkeypatch.setattr(module, "write_bytes", read_only)
    monkeypatch.setattr(module, "locked", read_only)
    assert ask(tmp_path, files) == ask(tmp_path, files) == (CONTENTS, NAMES[5:])  # what is there is read


def test_what_a_killed_process_was_writing_is_removed_by_the_next_that_writes(files, tmp_path):
    ask(tmp_path / "runs", files[:5])
    (memory,) = (tmp_path / "runs").glob("*.npz")
    left, of_another = memory.with_name(f".{memory.name}.0123{PARTIAL}"), memory.with_name(f".other.npz.0123{PARTIAL}")
    left.write_bytes(b"half")
    of_another.write_bytes(b"half")
    assert ask(tmp_path / "runs", files) == (CONTENTS, NAMES[5:])
    assert not left.exists() and of_another.exists()


def test_what_was_found_before_an_interruption_is_remembered(files, tmp_path, monkeypatch):
    monkeypatch.setattr("training.side_by_side._MOST_THREADS", 1)
    monkeypatch.setattr("training.side_by_side._LARGEST_SHARE", 1)

    def look(index):
        if index == 4:
            raise KeyboardInterrupt
        return files[index].read_bytes(), True

    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, files, look)
    assert ask(tmp_path, files) == (CONTENTS, NAMES[4:])


def look_in_a_process(folder, files, log, barrier):
    """Ask as soon as all are there, and write a line for each file that was looked at."""
    module._SETTLED_NS = 0

    def look(index):
        with log.open("a") as lines:
            lines.write(f"{files[index].name}\n")
        return files[index].read_bytes(), True

    barrier.wait()
    assert ask(folder, files, look)[0] == [f"text {file.stem}" for file in files]


@pytest.mark.parametrize("parts", [[slice(10)] * 3, [slice(6), slice(4, 10), slice(2, 8)]], ids=["same", "overlapping"])
def test_processes_that_ask_at_once_look_at_each_file_once(files, tmp_path, parts):
    context = get_context("fork")
    barrier, log = context.Barrier(len(parts)), tmp_path / "log"
    processes = [
        context.Process(target=look_in_a_process, args=(tmp_path, files[part], log, barrier)) for part in parts
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(parts)
    assert sorted(log.read_text().split()) == NAMES
    assert ask(tmp_path, files) == (CONTENTS, [])


def test_how_far_it_is_is_said_where_it_takes_long(files, tmp_path, monkeypatch, capsys, caplog):
    ask(tmp_path / "one", files)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_MANY", 10)
    monkeypatch.setattr(module, "_EVERY_SECONDS", 0.0)
    ask(tmp_path / "two", files)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{WHAT}: 0 of 10 files read, to know them again"
    assert len(lines) == 10 and lines[-1].startswith(f"{WHAT}: 9 of 10")
    ask(tmp_path / "two", files)
    assert capsys.readouterr().err == ""


def test_texts_are_what_was_packed():
    texts = [b"", b"one", b"", "zwölf".encode(), b"\xff\xfe", b""]
    packed = Texts.of(texts)
    assert list(packed) == [packed[k] for k in range(len(packed))] == texts
    assert packed.same(Texts.of(texts)) and not packed.same(Texts.of(texts[:-1]))
    assert not Texts.of([b"ab", b"c"]).same(Texts.of([b"a", b"bc"]))
    assert to_bytes(to_name(b"\xff.png")) == b"\xff.png"
