"""A training that one process or several run alike."""

import json
import multiprocessing
import os
import socket
from unittest import mock

import torch
from torch import nn

from classify.data.images import ImageSet
from classify.distillation import Distillation, Teacher
from classify.train import train_classifier
from pruning.graph.groups import find_groups
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from pruning.methods import METHODS, Effect
from pruning.methods.group_fisher import GroupFisherOptions
from pruning.methods.method import Request
from pruning.methods.slimming import SlimmingEffect, SlimmingOptions
from pruning.methods.soft_filter import SoftFilterEffect, filters_to_keep, find_filters
from pruning.select import Selection
from support.pretended_clock import a_minute_a_step
from support.told import told
from training.checkpoint import save_snapshot
from training.distributed import process_group, rank
from training.state import TrainingState
from training.stopping import Stopped, stop_on_signals

# 17 images in batches of 8: the last batch of an epoch is one image, and the second process has none of it
SETTINGS = {
    "epochs": 7,
    "batch_size": 8,
    "lr": 0.1,
    "mean": (0.5,) * 3,
    "std": (0.25,) * 3,
    "augmentation": "cifar",
    "precision": "float32",
    "report_every": 1,
    "checkpoint_minutes": 5,
}
CHANGES = {
    "plain": {},
    "parts": {"accumulate": 3},
    "adam": {"optimizer": "adam", "lr": 0.01, "norm_weight_decay": False},
    "effects": {},
    "fisher": {"accumulate": 2},
    "distilled": {"accumulate": 2},
}


class Killed(Exception):
    pass


def images(n=17):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 3, tuple("abc"))


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def soft_filters(model, ratio):
    widths = {name: len(model.get_parameter(f"{name}.weight")) for name in find_filters(model)}
    return SoftFilterEffect(model, {name: filters_to_keep(width, ratio) for name, width in widths.items()})


def group_fisher(model):
    """Channels go after every third step from the sixth on."""
    x = torch.zeros(1, 3, 8, 8)
    options = GroupFisherOptions(every=3, start=0.2)
    request = Request(find_groups(model, x), Selection(ratio=0.4, level="global"), options, seed=0, example=x)
    return METHODS["group_fisher"].training_effect(model, request)


def effects_of(model, name):
    if name == "fisher":
        return [group_fisher(model)]
    if name != "effects":
        return []
    mask = torch.ones_like(model[4].weight, dtype=torch.bool)
    mask[:, ::2] = False
    return [
        HoldMasks(model, Masks({"4.weight": mask})),
        SlimmingEffect(model, SlimmingOptions(s=0.01)),
        soft_filters(model, 0.3),
    ]


def teacher_of(name):
    if name != "distilled":
        return None
    unpruned = network()
    unpruned[9].bias.data += torch.arange(3)
    return Teacher(unpruned, Distillation())


def losses_of(name, folder, kill_at=None):
    """Train case `name`; returns the loss after each reported step and leaves the weights in `folder`."""
    losses = []

    def report(step, total, metrics):
        losses.append(metrics["loss"])
        if step == kill_at:
            raise Killed

    model = network()
    with a_minute_a_step():
        train_classifier(
            model,
            images(),
            **told(SETTINGS, **CHANGES[name]),
            checkpoint=folder / f"{name}.pt",
            snapshots={folder / f"{name}_snapshot.safetensors": 2},
            validation=images(5),
            report=report,
            effects=effects_of(model, name),
            teacher=teacher_of(name),
        )
    save_snapshot(folder / f"{name}_rank{rank()}.safetensors", model)
    return losses


def in_two_processes(work, *arguments):
    """Exit codes of two connected processes that each call `work(*arguments)`, which have at most ten minutes."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    # forked, not spawned: importing all that a training needs takes longer than the training
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_connected, args=(r, port, work, *arguments)) for r in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _connected(number, port, work, *arguments):
    os.environ.update(WORLD_SIZE="2", RANK=str(number), MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with process_group("cpu"):
        work(*arguments)


def train_together(folder, fault=""):
    """What each of two processes does; with a `fault` the second stops with it while the first one waits."""
    if fault and rank() == 1:
        raise RuntimeError(fault)
    losses = {name: losses_of(name, folder) for name in CHANGES}
    (folder / f"losses_rank{rank()}.json").write_text(json.dumps(losses))


class AskToEnd(Effect):
    """Counts the steps, and sends a signal to its own process after one of them."""

    def __init__(self, at, signum):
        self.at, self.signum, self.steps = at, signum, 0

    def after_step(self, lr):
        self.steps += 1
        if self.steps == self.at:
            os.kill(os.getpid(), self.signum)


def train_until_asked(folder, signum=0, asked=(), at=7):
    """Train; the processes `asked` get a signal after step `at`. Leaves the steps taken here, or the weights."""
    model, counter = network(), AskToEnd(at if rank() in asked else 0, signum)
    rarely = told(SETTINGS, report_every=1000)
    try:
        with stop_on_signals():
            train_classifier(model, images(), **rarely, checkpoint=folder / "c.pt", effects=[counter])
    except Stopped:
        (folder / f"steps_rank{rank()}").write_text(str(counter.steps))
        return
    save_snapshot(folder / f"rank{rank()}.safetensors", model)


def save_by_the_main_clock(folder):
    """Train, the clocks of the processes unlike: a minute a step in the main one, an hour in the others."""
    saved, save = [], TrainingState.save

    def noted(self, step):
        saved.append(step)
        save(self, step)

    with a_minute_a_step(1 if rank() == 0 else 60), mock.patch.object(TrainingState, "save", noted):
        train_classifier(network(), images(), **told(SETTINGS, checkpoint_minutes=8), checkpoint=folder / "c.pt")
    (folder / f"saved_rank{rank()}.json").write_text(json.dumps(saved))
