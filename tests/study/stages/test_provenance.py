"""Where a result says it comes from."""

import subprocess
from pathlib import Path

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
