"""Trainings and an evaluation of a detector that one process or several run alike."""

import json
import os
import signal
from unittest import mock

import torch

from detect.distillation import Teacher
from detect.evaluate import evaluate_detector
from detect.settings import Distillation
from detect.train import train_detector
from pruning.methods import Effect
from support.pretended_clock import a_minute_a_step
from support.tiny_detector import make_detector, settings
from training.checkpoint import save_snapshot
from training.distributed import process_group, rank, world_size
from training.stopping import Stopped, stop_on_signals

ITERATIONS, CHECKPOINT_AT, KILLED_AT = 5, 2, 3
NORMS = ("FrozenBN", "SyncBN")
# no detection is too weak to count: a detector this new has no strong ones
EVERYTHING = {"overrides": {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}}
_SAMPLERS = ("proposal_generator.rpn", "roi_heads.roi_heads")


class Killed(Exception):
    pass


def first_ones(labels, num_samples, positive_fraction, bg_label):
    """Detectron2's `subsample_labels`, taking the first instead of random ones: each process draws its own numbers."""
    positive = ((labels != -1) & (labels != bg_label)).nonzero()[:, 0][: int(num_samples * positive_fraction)]
    return positive, (labels == bg_label).nonzero()[:, 0][: num_samples - len(positive)]


def train(
    dataset, folder, name, *, norm="FrozenBN", report=None, effects=None, validation=None, teacher=None, **changes
):
    """Train `name` without chance in the samples; returns the detector, its config and the outcome."""
    detector, cfg = make_detector(norm=norm, **EVERYTHING)
    changes = {
        "iterations": ITERATIONS,
        "batch_size": 4,
        "lr": 0.002,
        "warmup": 0.0,
        "checkpoint_minutes": CHECKPOINT_AT,
    } | changes
    patches = [mock.patch(f"detectron2.modeling.{module}.subsample_labels", first_ones) for module in _SAMPLERS]
    with patches[0], patches[1], a_minute_a_step():
        outcome = train_detector(
            detector,
            cfg,
            dataset=dataset,
            **settings(**changes),
            checkpoint=folder / f"{name}.pt",
            validation=validation,
            report=report,
            effects=effects(detector) if effects else (),
            teacher=teacher,
        )
    return detector, cfg, outcome


def losses_of(dataset, folder, norm, kill_at=None):
    """Train with `norm`; returns the metrics of each reported step and leaves the weights in `folder`."""
    reported = []

    def report(step, total, metrics):
        reported.append({"step": step, **metrics})
        if step == kill_at:
            raise Killed

    detector, cfg, outcome = train(dataset, folder, norm, norm=norm, report=report)
    save_snapshot(folder / f"{norm}_rank{rank()}.safetensors", detector)
    scores = evaluate_detector(detector, cfg, dataset=dataset, out_dir=folder / f"{norm}_scores_rank{rank()}")
    scores.pop("seconds", None)
    return {"reported": reported, "scores": scores, "final_loss": outcome.final_loss, "images": outcome.images_seen}


class Signal(Effect):
    """A signal to the last process alone, after its first step."""

    def __init__(self, detector):
        self.steps = 0

    def after_step(self, lr):
        self.steps += 1
        if self.steps == 1 and rank() == world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Poison(Signal):
    """A weight of the last process alone that is no number, after its second step."""

    def __init__(self, detector):
        super().__init__(detector)
        self.bias = detector.roi_heads.box_predictor.cls_score.bias

    def after_step(self, lr):
        self.steps += 1
        if self.steps == 2 and rank() == world_size() - 1:
            self.bias.data.fill_(float("nan"))


def early_end(dataset, folder):
    """A training that gets no better after its second iteration: the main process alone learns what was measured."""
    left = [10.0, 30.0, 20.0]

    def evaluate(*arguments, **named):
        found = evaluate_detector(*arguments, **named)  # shared out, so that a process that left it out would hang
        return {**found, "AP": left.pop(0)} if found else {}

    changes = {"validate_every": 1, "keep": "best", "patience": 1}
    with mock.patch("detect.train.evaluate_detector", evaluate):
        detector, _, outcome = train(dataset, folder, "early", validation=dataset, **changes)
    save_snapshot(folder / f"early_rank{rank()}.safetensors", detector)
    return {"trained": outcome.iterations, "kept": vars(outcome.kept)}


def distilled(dataset, folder):
    """The losses after each step of a training with a teacher that knows other features and classes."""
    dense, _ = make_detector(norm="FrozenBN", **EVERYTHING)
    dense.backbone.fpn_output2.bias.data += 0.5
    dense.roi_heads.box_predictor.cls_score.bias.data[0] += 2
    losses = []
    detector, *_ = train(
        dataset,
        folder,
        "distilled",
        teacher=Teacher(dense, Distillation()),
        report=lambda step, total, metrics: losses.append(metrics),
    )
    save_snapshot(folder / f"distilled_rank{rank()}.safetensors", detector)
    return losses


def ends(dataset, folder):
    """How trainings end that go on in one process only as they do in the other."""
    found = {}
    with stop_on_signals():
        try:
            train(dataset, folder, "stopped", effects=lambda d: [Signal(d)], report_every=2, checkpoint_minutes=100)
        except Stopped as stopped:
            found["stopped"] = stopped.signum
    try:
        train(dataset, folder, "poisoned", effects=lambda d: [Poison(d)])
    except FloatingPointError as error:
        found["poisoned"] = str(error)
    try:
        train(dataset, folder, "odd", batch_size=3)
    except ValueError as error:
        found["odd"] = str(error)
    return found


def train_together(number, port, dataset, folder):
    """What process `number` of two does."""
    os.environ.update(WORLD_SIZE="2", RANK=str(number), MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with process_group("cpu"):
        found = {norm: losses_of(dataset, folder, norm) for norm in NORMS}
        found["early"] = early_end(dataset, folder)
        found["distilled"] = distilled(dataset, folder)
        found["ends"] = ends(dataset, folder)
    (folder / f"rank{number}.json").write_text(json.dumps(found))
