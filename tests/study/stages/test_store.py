"""Results vouch for themselves and for every file of their run."""

import pytest

from study.stages.store import RunDir
from training.files import read_json


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "prune-0/seed0")
    run.path.mkdir(parents=True)
    run.plan.write_text("a plan")
    run.weights.write_bytes(b"weights")
    (run.path / "detections").mkdir()
    (run.path / "detections/detections_0.png").write_bytes(b"png")
    run.log.write_text("not part of the result")
    run.checkpoint.write_bytes(b"neither")
    run.write_result({"metrics": {"top1": 91.5, "loss": 0.1 + 0.2}, "pair": (1, 2)})
    return run


def test_a_result_comes_back_with_the_sums_of_its_artifacts(run):
    result = run.read_result()
    assert result["metrics"] == {"top1": 91.5, "loss": 0.1 + 0.2}
    assert list(result["artifacts"]) == ["detections/detections_0.png", "plan.json", "weights.safetensors"]
    # printf 'a plan' | sha256sum
    assert result["artifacts"]["plan.json"].startswith("a27fa2bacd5796b8")
    assert run.whole(run.plan) == run.plan


@pytest.mark.parametrize(("old", "new"), [("91.5", "93.5"), ('"checksum"', '"sum"'), ("weights.safe", "other.safe")])
def test_a_change_of_the_result_is_found(run, old, new):
    run.result.write_text(run.result.read_text().replace(old, new))
    with pytest.raises(ValueError, match="does not have its checksum"):
        run.read_result()


def test_white_space_is_no_change(run):
    run.result.write_text(run.result.read_text().replace("\n", "\n\n"))
    assert run.read_result()["metrics"]["top1"] == 91.5


def test_a_changed_or_missing_artifact_is_found(run):
    run.weights.write_bytes(b"weighty")
    with pytest.raises(ValueError, match=r"weights\.safetensors: this is not the file that the run wrote"):
        run.whole(run.weights)
    run.plan.unlink()
    with pytest.raises(ValueError, match=r"plan\.json: this file of a finished run is missing"):
        run.whole(run.plan)
    run.masks.write_bytes(b"smuggled in")
    with pytest.raises(ValueError, match="not the file that the run wrote"):
        run.whole(run.masks)


def test_a_cut_off_result_names_its_file(run):
    run.result.write_text(run.result.read_text()[:40])
    with pytest.raises(ValueError, match=r"result\.json: not readable as JSON"):
        read_json(run.result)
    run.result.write_text("[]")
    with pytest.raises(ValueError, match="does not have its checksum"):
        run.read_result()
