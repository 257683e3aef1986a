"""Detector training: learning rates, resuming, effects, refusals."""

import json

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.layers import ROIAlign
from support.short_schedules import EACH_STEP
from support.tiny_detector import make_detector, settings, two_squares
from torch import nn
from torch.optim import SGD

from detect.data.loader import train_loader
from detect.train import clip_gradients, schedule_of, train_detector
from pruning.methods import Effect, Request, get_method
from pruning.select import Selection
from training.checkpoint import save_checkpoint
from training.schedule import lr_schedule
from training.seeding import seed_generators

pytestmark = pytest.mark.usefixtures("minute_a_step")


@pytest.fixture
def dataset(tmp_path):
    return two_squares(tmp_path)


def test_learning_rates_written_out():
    schedule = schedule_of(settings(warmup=0.0, milestones=(0.5, 0.75))["settings"])
    assert [schedule(k / 8) for k in range(8)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    warm = lr_schedule("step", warmup=0.5, warmup_factor=0.2, milestones=(0.75,))
    assert [warm(k / 4) for k in range(4)] == pytest.approx([0.2, 0.6, 1, 0.1])
    cosine = schedule_of(settings(warmup=0.0, schedule="cosine")["settings"])
    assert [cosine(k / 4) for k in range(4)] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-5)


def test_resumed_training_equals_uninterrupted_bit_for_bit(dataset, tmp_path, auto_is):
    class Killed(Exception):
        pass

    def kill_after_two(step, total, metrics):
        if step == 3:  # step 3 is lost; the checkpoint is of step 2
            raise Killed

    whole, cfg = make_detector()
    auto = settings(precision="auto", checkpoint_minutes=2)
    outcome = train_detector(whole, cfg, dataset=dataset, **auto, checkpoint=tmp_path / "whole.pt")
    assert outcome.precision.name == auto_is

    killed, _ = make_detector()
    arguments = {"dataset": dataset, **auto, "checkpoint": tmp_path / "killed.pt"}
    with pytest.raises(Killed):
        train_detector(killed, cfg, report=kill_after_two, **arguments)
    resumed, _ = make_detector()
    again = train_detector(resumed, cfg, **arguments)

    assert outcome.images_seen == again.images_seen == 8
    assert outcome.final_loss == again.final_loss
    fresh = make_detector()[0].state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(fresh["backbone.fpn_lateral2.weight"], whole.state_dict()["backbone.fpn_lateral2.weight"])

    # a finished training is loaded, not repeated
    loaded, _ = make_detector()
    assert train_detector(loaded, cfg, **arguments) == again
    assert torch.equal(
        loaded.state_dict()["backbone.fpn_lateral2.weight"], resumed.state_dict()["backbone.fpn_lateral2.weight"]
    )


@pytest.mark.parametrize("method", EACH_STEP)
def test_masks_that_change_are_resumed_to_the_bit(dataset, tmp_path, method):
    """Killed after the third of four steps, with the checkpoint of the second."""

    class Killed(Exception):
        pass

    def kill(step, total, metrics):
        if step == 3:
            raise Killed

    def trained(name, report=None):
        detector, cfg = make_detector()
        entry = get_method(method)
        asked = Request([], Selection(0.5), entry.options(**EACH_STEP[method]), seed=0)
        effect = entry.training_effect(detector.backbone.bottom_up.body, asked)
        auto = settings(checkpoint_minutes=2, clip_norm=1.0)
        arguments = {"checkpoint": tmp_path / name, "report": report, "effects": [effect]}
        train_detector(detector, cfg, dataset=dataset, **auto, **arguments)
        return detector.state_dict(), effect.masks()

    whole, masks = trained("whole.pt")
    with pytest.raises(Killed):
        trained("killed.pt", kill)
    resumed, again = trained("killed.pt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert all(torch.equal(mask, again[name]) for name, mask in masks.items())
    assert masks.density() == pytest.approx(0.5, abs=0.01)
    for name, mask in masks.items():
        assert not bool(whole[f"backbone.bottom_up.body.{name}"][~mask].any())


def test_reports_and_effects_see_every_step(dataset, tmp_path):
    class Freeze(Effect):
        """Zeroes all gradients, so that only weight decay could change a weight."""

        starts = 0
        epochs = 0

        def __init__(self, model):
            self.model = model
            self.rates = []

        def at_start(self):
            self.starts += 1

        def after_backward(self):
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()

        def after_step(self, lr):
            self.rates.append(lr)

        def after_epoch(self):
            self.epochs += 1

    reports = []
    detector, cfg = make_detector()
    before = {n: p.clone() for n, p in detector.named_parameters()}
    effect = Freeze(detector)
    train_detector(
        detector,
        cfg,
        dataset=dataset,
        **settings(weight_decay=0.0, warmup=0.0, milestones=(0.5,)),
        checkpoint=tmp_path / "c.pt",
        report=lambda step, total, metrics: reports.append((step, total, metrics)),
        effects=[effect],
    )
    assert effect.starts == 1 and effect.epochs >= 1
    assert effect.rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert all(torch.equal(before[n], p) for n, p in detector.named_parameters())
    assert [(step, total) for step, total, _ in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [m["lr"] for *_, m in reports] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    first = reports[0][2]
    parts = sum(v for k, v in first.items() if k.startswith("loss_"))
    assert first["loss"] == pytest.approx(parts)


def test_a_step_equals_plain_detectron2(dataset, tmp_path):
    """Same loss, and the same weights after SGD, as Detectron2's RPN, ROIAlign and trainer."""
    plain, _ = make_detector(overrides={"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"})
    for name in ("0", "1", "2", "3"):
        old = plain.roi_heads.box_pooler.level_poolers.get_submodule(name)
        new = ROIAlign(old.output_size, old.spatial_scale, old.sampling_ratio, old.aligned)
        setattr(plain.roi_heads.box_pooler.level_poolers, name, new)
    ours, cfg = make_detector()
    plain.load_state_dict(ours.state_dict())
    loader = train_loader(dataset, cfg, batch_size=2, seed=0)
    trainer = SimpleTrainer(plain, loader, torch.optim.SGD(plain.parameters(), lr=0.01))
    batch = next(iter(loader))
    trainer._data_loader_iter_obj = iter([batch])
    seed_generators(0, 0)
    trainer.train(0, 1)
    plain_loss = sum(v.latest() for k, v in trainer.storage.histories().items() if k.startswith("loss_"))

    step = settings(iterations=1, momentum=0.0, weight_decay=0.0, warmup=0.0, clip_norm=None)
    outcome = train_detector(ours, cfg, dataset=dataset, **step, checkpoint=tmp_path / "c.pt")
    assert outcome.final_loss == pytest.approx(plain_loss, rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_bfloat16_trains_to_finite_float32_weights(dataset, tmp_path):
    detector, cfg = make_detector()
    train_detector(
        detector,
        cfg,
        dataset=dataset,
        **settings(iterations=2, precision="bfloat16"),
        checkpoint=tmp_path / "c.pt",
    )
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("most", [0.5, 4.9999, 5.0, 5.0001, 100.0, float("nan")])
def test_gradients_are_clipped_as_pytorch_clips_them(most):
    """Of a norm of 5, below it, at it and above."""
    results = []
    for clips in (lambda p: nn.utils.clip_grad_norm_([p], most), lambda p: clip_gradients(SGD([p], 0.1), most)):
        p = nn.Parameter(torch.zeros(2))
        p.grad = torch.tensor([3.0, 4.0])
        clips(p)
        results.append(p.grad)
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


def test_gradients_that_are_not_finite_are_left_to_pytorch():
    results = []
    for clips in (lambda p: nn.utils.clip_grad_norm_([p], 5.0), lambda p: clip_gradients(SGD([p], 0.1), 5.0)):
        p = nn.Parameter(torch.zeros(2))
        p.grad = torch.tensor([float("inf"), 1.0])
        clips(p)
        results.append(p.grad)
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


def test_a_loss_that_is_not_finite_names_its_step(dataset, tmp_path):
    class Poison(Effect):
        steps = 0

        def after_step(self, lr):
            self.steps += 1
            if self.steps == 2:
                detector.roi_heads.box_predictor.cls_score.bias.data.fill_(float("nan"))

    detector, cfg = make_detector()
    with pytest.raises(FloatingPointError, match="step 2: the loss is nan"):
        train_detector(detector, cfg, dataset=dataset, **settings(), checkpoint=tmp_path / "c.pt", effects=[Poison()])
    detector, cfg = make_detector()
    detector.proposal_generator.rpn_head.objectness_logits.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 0: .*diverged"):
        train_detector(detector, cfg, dataset=dataset, **settings(), checkpoint=tmp_path / "d.pt")


def test_a_truncated_checkpoint_is_put_aside_and_the_log_says_so(dataset, tmp_path, caplog):
    detector, cfg = make_detector()
    path = tmp_path / "c.pt"
    train_detector(detector, cfg, dataset=dataset, **settings(iterations=1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:5000])
    train_detector(detector, cfg, dataset=dataset, **settings(iterations=1), checkpoint=path)
    assert "c.pt: not a whole checkpoint" in caplog.text
    assert "the training starts over" in caplog.text
    assert (tmp_path / "c.damaged.pt").stat().st_size == 5000
    save_checkpoint(path, {"model": {}})
    train_detector(detector, cfg, dataset=dataset, **settings(iterations=1), checkpoint=path)
    assert "a checkpoint has batch_size, effects, iteration" in caplog.text


def test_a_checkpoint_of_another_training_is_refused(dataset, tmp_path):
    detector, cfg = make_detector()
    path = tmp_path / "c.pt"
    train_detector(detector, cfg, dataset=dataset, **settings(iterations=1), checkpoint=path)
    with pytest.raises(ValueError, match="seed=0, not 1"):
        train_detector(detector, cfg, dataset=dataset, **settings(iterations=1, seed=1), checkpoint=path)
    with pytest.raises(ValueError, match=r"a training with lr=0\.01, not lr=0\.02; ask for the same to go on with it"):
        train_detector(detector, cfg, dataset=dataset, **settings(iterations=1, lr=0.02), checkpoint=path)


def test_an_epoch_shows_each_image_with_a_box_once(dataset, tmp_path):
    """Two of eight images keep their boxes: with two images a step an epoch is one step, not four."""
    coco = json.loads(dataset.annotations.read_text())
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] < 2]
    dataset.annotations.write_text(json.dumps(coco))

    class Count(Effect):
        epochs = 0

        def after_epoch(self):
            self.epochs += 1

    (detector, cfg), effect = make_detector(), Count()
    path = tmp_path / "c.pt"
    train_detector(detector, cfg, dataset=dataset, **settings(), checkpoint=path, effects=[effect])
    assert effect.epochs == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "^settings.schedule: 'linear' does not fit; expected: one of step, cosine$"),
        ({"precision": "half"}, "precision='half' is not one of auto, float32, bfloat16"),
        ({"warmup": 1.5}, "^settings.warmup: 1.5 does not fit; expected: fraction"),
    ],
)
def test_wrong_settings_are_refused(dataset, tmp_path, changes, message):
    detector, cfg = make_detector()
    with pytest.raises(ValueError, match=message):
        train_detector(detector, cfg, dataset=dataset, **settings(**changes), checkpoint=tmp_path / "c.pt")


def test_a_data_set_with_other_classes_is_refused(dataset, tmp_path):
    detector, cfg = make_detector()
    content = json.loads(dataset.annotations.read_text())
    content["categories"].append({"id": 3, "name": "third"})
    dataset.annotations.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has 3 categories, the detector 2 classes"):
        train_detector(detector, cfg, dataset=dataset, **settings(), checkpoint=tmp_path / "c.pt")
