"""Where a result says it comes from: the commit of our code, and the user's own Detectron2 or the wheel's."""

import json
import subprocess
from pathlib import Path

import pytest

from study.stages import provenance


def test_the_commit_is_of_the_repository_that_the_code_is_in_and_not_of_one_around_it(tmp_path, monkeypatch):
    """An installed package lies in the `.venv` of a user's project, whose commit says nothing of ours."""

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    installed = tmp_path / ".venv" / "study" / "stages" / "provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text(Path(provenance.__file__).read_text(encoding="utf-8"))
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "a project")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance._git.__wrapped__() == {"commit": None, "dirty": None}
    git("add", "-f", ".venv")
    git("commit", "-q", "-m", "with our code in it")
    found = provenance._git.__wrapped__()
    assert len(found["commit"]) == 40 and found["dirty"] is False


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
