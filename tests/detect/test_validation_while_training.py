"""AP on a validation split while a detector trains: which iteration is kept, an early end, a resume."""

import pytest
import torch
from support.tiny_detector import make_detector, settings, two_squares

import detect.train
from detect.settings import TrainSettings
from detect.train import train_detector
from detect.validation import Kept

pytestmark = pytest.mark.usefixtures("minute_a_step")


@pytest.fixture
def dataset(tmp_path):
    return two_squares(tmp_path)


def scripted(monkeypatch, *values):
    """The measured AP, one value a measurement; the detectors that were measured are kept."""
    seen, left = [], list(values)

    def evaluate(detector, cfg, **_):
        seen.append({name: value.clone() for name, value in detector.state_dict().items()})
        return {"AP": left.pop(0)}

    monkeypatch.setattr(detect.train, "evaluate_detector", evaluate)
    return seen


def trained(dataset, path, report=None, **changes):
    detector, cfg = make_detector()
    asked = settings(**changes)
    outcome = train_detector(
        detector, cfg, dataset=dataset, validation=dataset, **asked, checkpoint=path, report=report
    )
    return detector.state_dict(), outcome


def assert_equal(one, other):
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_measuring_changes_no_weight_and_is_reported(dataset, tmp_path):
    rows = []
    plain, _ = trained(dataset, tmp_path / "plain.pt")
    weights, outcome = trained(
        dataset, tmp_path / "c.pt", lambda step, total, metrics: rows.append((step, metrics)), validate_every=3
    )
    assert_equal(plain, weights)
    measured = [(step, metrics["val_AP"]) for step, metrics in rows if "val_AP" in metrics]
    assert [step for step, _ in measured] == [3, 4]  # every third iteration, and the last
    assert all(0 <= ap <= 100 for _, ap in measured) and "loss" in rows[0][1]
    assert outcome.kept == Kept(4, measured[-1][1]) and outcome.iterations == 4


def test_the_best_iteration_is_kept_and_the_cost_is_of_all(dataset, tmp_path, monkeypatch):
    seen = scripted(monkeypatch, 10.0, 30.0, 30.0, 20.0)
    weights, outcome = trained(dataset, tmp_path / "c.pt", validate_every=1, keep="best")
    assert outcome.kept == Kept(2, 30.0)  # of equal ones the earlier
    assert outcome.iterations == 4 and outcome.images_seen == 8
    assert_equal(seen[1], weights)
    scripted(monkeypatch)  # a finished training is loaded, not measured again
    again, found = trained(dataset, tmp_path / "c.pt", validate_every=1, keep="best")
    assert found == outcome
    assert_equal(weights, again)


@pytest.mark.parametrize(("keep", "kept"), [("last", Kept(3, 10.0)), ("best", Kept(1, 30.0))])
def test_patience_ends_a_training_that_gets_no_better(dataset, tmp_path, monkeypatch, keep, kept):
    changes = {"validate_every": 1, "keep": keep, "patience": 2}
    seen = scripted(monkeypatch, 30.0, 20.0, 10.0)
    weights, outcome = trained(dataset, tmp_path / "c.pt", **changes)
    assert outcome.kept == kept and outcome.iterations == 3 and outcome.images_seen == 6
    assert_equal(seen[kept.iteration - 1], weights)
    scripted(monkeypatch)
    again, found = trained(dataset, tmp_path / "c.pt", **changes)
    assert found == outcome
    assert_equal(weights, again)


def test_a_killed_training_remembers_its_best(dataset, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(step, total, metrics):
        if step == 3:  # lost; the checkpoint is of step 2
            raise Killed

    changes = {"validate_every": 1, "keep": "best", "patience": 3, "checkpoint_minutes": 2}
    seen = scripted(monkeypatch, 30.0, 20.0, 10.0, 5.0)
    whole, outcome = trained(dataset, tmp_path / "whole.pt", **changes)
    scripted(monkeypatch, 30.0, 20.0, 10.0)
    with pytest.raises(Killed):
        trained(dataset, tmp_path / "killed.pt", kill, **changes)
    scripted(monkeypatch, 10.0, 5.0)
    resumed, again = trained(dataset, tmp_path / "killed.pt", **changes)
    assert again.kept == outcome.kept == Kept(1, 30.0)
    assert_equal(whole, resumed)
    assert_equal(seen[0], resumed)


def test_what_goes_by_ap_needs_it_measured(dataset, tmp_path):
    for changes, words in (({"keep": "best"}, "keep: best goes by AP"), ({"patience": 2}, "patience: 2 goes by AP")):
        with pytest.raises(ValueError, match=f"{words} on the validation split; set validate_every too"):
            TrainSettings(iterations=1, batch_size=1, lr=0.1, **changes)
    detector, cfg = make_detector()
    with pytest.raises(ValueError, match="validate_every=2 needs a validation split"):
        train_detector(detector, cfg, dataset=dataset, **settings(validate_every=2), checkpoint=tmp_path / "c.pt")
