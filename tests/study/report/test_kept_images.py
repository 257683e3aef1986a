"""What runs keep of each test image, as the report reads it: there, not yet kept, damaged."""

import io
import json

import numpy as np
import pytest
from support.scenes_and_guesses import guesses, scenes

from detect.matches import to_bytes
from detect.voc_metrics import voc_matches
from study.report.artifacts import RunFiles
from study.stages.store import RunDir


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def run(tmp_path):
    (tmp_path / "evaluate-a/seed0").mkdir(parents=True)
    return RunDir(tmp_path / "evaluate-a/seed0")


def test_matches_and_correct_images_come_back(run):
    split = scenes(5, voc_year=2007)
    matches = voc_matches(split, guesses(split))
    run.matches.write_bytes(to_bytes({"VOC": matches}))
    run.correct.write_bytes(_npy(np.array([True, False, True])))
    files = RunFiles(run.path.parents[1])
    np.testing.assert_array_equal(files.matches("evaluate-a/seed0")["VOC"].flags, matches.flags)
    assert files.correct("evaluate-a/seed0").tolist() == [True, False, True]
    assert files.gaps == []


def test_a_run_of_an_older_version_is_a_gap(run):
    files = RunFiles(run.path.parents[1])
    assert files.matches("evaluate-a/seed0") is None and files.correct("evaluate-a/seed0") is None
    assert files.gaps == [
        f"evaluate-a/seed0: ran before {name} was kept, so it is not known how its result depends on the test images;"
        " delete its result.json to run it again"
        for name in ("matches.npz", "correct.npy")
    ]


@pytest.mark.parametrize(
    "content", [b"", b"text", _npy(np.zeros(3)), _npy(np.zeros((2, 2), dtype=bool)), _npy(np.zeros(9, dtype=bool))[:-4]]
)
def test_damaged_files_are_gaps(run, content):
    run.correct.write_bytes(content)
    run.matches.write_bytes(content)
    files = RunFiles(run.path.parents[1])
    assert files.matches("evaluate-a/seed0") is None and files.correct("evaluate-a/seed0") is None
    assert [gap.partition(": ")[0] for gap in files.gaps] == [
        f"evaluate-a/seed0/{name}" for name in ("matches.npz", "correct.npy")
    ]


@pytest.mark.parametrize("name", ["matches", "correct"])
def test_a_result_vouches_for_what_is_kept(run, name):
    file = getattr(run, name)
    file.write_bytes(b"as it was")
    run.write_result({"kind": "evaluate"})
    assert list(json.loads(run.result.read_text())["artifacts"]) == [file.name]
    assert run.whole(file) == file
    file.write_bytes(b"as it is not")
    with pytest.raises(ValueError, match="this is not the file that the run wrote"):
        run.whole(file)
