"""Which Detectron2 a result names: the user's own with its commit, or the wheel's."""

import json

import pytest

from study.stages import provenance


@pytest.fixture
def versions():
    provenance._versions.cache_clear()
    yield lambda: provenance.environment("cpu")["versions"]
    provenance._versions.cache_clear()


def install(folder, name, version, origin=None):
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))


CLONE = {"url": "file:///home/me/detectron2", "dir_info": {"editable": True}}
COMMIT = {"url": "https://example.org/detectron2.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef" * 2}}


@pytest.mark.parametrize(
    ("origin", "said"), [(COMMIT, "0.6 at 0123456789ab"), (CLONE, "0.6"), (None, "0.6")], ids=["git", "clone", "wheel"]
)
def test_a_detectron2_of_the_users_own_is_named_with_its_commit(origin, said, versions, tmp_path, monkeypatch):
    install(tmp_path, "detectron2", "0.6", origin)
    install(tmp_path, "sal-detectron2", "0.7.2")
    monkeypatch.syspath_prepend(tmp_path)
    assert versions()["detectron2"] == said


def test_the_wheel_is_named_where_there_is_no_other(versions, tmp_path, monkeypatch):
    install(tmp_path, "sal-detectron2", "9.9")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert versions()["detectron2"] == "9.9"
