"""Folders of results that appear whole or not at all."""

import pytest

from training.files import check_output_folder, whole_folder, write_bytes

KNOWN = frozenset({"a", "b"})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_all_files_appear_at_the_end(tmp_path, exists):
    out = tmp_path / "deep" / "out"
    if exists:
        out.mkdir(parents=True)
    with whole_folder(out, known=KNOWN) as folder:
        write_bytes(folder / "a", b"1")
        assert not out.exists() or files(out) == {}
    assert files(out) == {"a": b"1"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), whole_folder(tmp_path / "out", known=KNOWN) as folder:
        write_bytes(folder / "a", b"1")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_replacing_removes_what_is_out_of_date_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "b", "mine"):
        write_bytes(out / name, b"old")
    with whole_folder(out, known=KNOWN) as folder:
        write_bytes(folder / "a", b"new")
    assert files(out) == {"a": b"new", "mine": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_full_folder_needs_force(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    with pytest.raises(ValueError, match=r"exists and is not empty; name another folder, or .* --force"):
        check_output_folder(tmp_path, force=False)
    check_output_folder(tmp_path, force=True)
    check_output_folder(tmp_path / "new", force=False)


def test_file_in_its_place_is_refused(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        check_output_folder(tmp_path / "a", force=True)
