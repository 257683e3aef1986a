"""A classifier's training on the pretended GPU, as the tests here and their faults run it."""

import tempfile
from pathlib import Path

import torch

from classify.distillation import Distillation, Teacher
from classify.step import TrainingStep
from classify.train import train_classifier
from pruning.graph.groups import find_groups
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from pruning.methods import METHODS, Request
from pruning.select import Selection
from support.pretended_gpu import OnGpu, pretended_gpu
from support.processes_training import Killed, images
from support.small_networks import Plain
from support.told import told
from training.layout import channels_last

SETTINGS = {
    "epochs": 2, "batch_size": 8, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3, "precision": "float32",
    "report_every": 100, "checkpoint_minutes": 1,
}  # fmt: skip
OPTIONS = {
    "gradual_magnitude": {"every": 3},
    "rigl": {"every": 3, "end": 1.0},
    "group_fisher": {"every": 3, "start": 0.2},
}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def network():
    torch.manual_seed(0)
    return Plain(3)


def data():
    """18 images: the third batch of an epoch is of two."""
    return images(18)


def method_of(name):
    """The training effect of a pruning method for a model, wherever that is."""

    def made(model):
        method, example = METHODS[name], torch.zeros(1, 3, 8, 8)  # costs are worked out on the CPU
        groups = find_groups(network(), example)
        level = "global" if name == "group_fisher" else "layer"
        options = method.options(**OPTIONS.get(name, {}))
        asked = Request(groups, Selection(0.3, level=level), options, seed=0, example=example)
        return [method.training_effect(model, asked)]

    return made


def held_masks(model):
    """Masks as they are read from a file, on the CPU."""
    mask = torch.ones(8, 3, 3, 3, dtype=torch.bool)
    mask[:, 1] = False
    return [HoldMasks(model, Masks({"0.weight": mask}))]


EFFECTS = {"none": lambda model: [], "held masks": held_masks} | {
    name: method_of(name) for name, method in METHODS.items() if method.training_effect is not None
}


def teacher():
    torch.manual_seed(1)
    return Teacher(Plain(3).to("cuda"), Distillation())


def steps_without_waiting(effect="none", precision="float32", *, distilled=False, **changes):
    """AssertionError if the CPU waits for the GPU in a step, but for those in which masks change."""
    values = told(SETTINGS, **changes)
    pixels, labels = data().images[:8], data().labels[:8]
    with pretended_gpu() as gpu:
        model = network().to("cuda")
        effects = EFFECTS[effect](model)
        with channels_last(model, dtype=DTYPES[precision]):
            taught = teacher() if distilled else None
            training = TrainingStep(model, values["settings"], values["run"], DTYPES[precision], effects, taught)
            for part in effects:
                part.plan_for(6, training.optimizer)
            for part in effects:
                part.at_start()
            waited = []
            for step in range(5):
                try:
                    with gpu.no_waits():
                        training.take(pixels, labels, 8, step=step, lr=0.05)
                except AssertionError as error:
                    waited.append(f"step {step}: {error}")
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        tensors += [t for state in training.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        assert all(isinstance(t, OnGpu) for t in tensors)
        # the first step fills tables of constants; a method whose masks change looks at the network before and then
        late = [said for said in waited if not said.startswith("step 0")]
        if len(late) > (2 if effect in OPTIONS else 0):
            raise AssertionError(late)


def trained(effect="none", *, on="cuda", kill_at=None, folder=None, distilled=False, **changes):
    """The state of a network on the CPU after its training; one that is killed is resumed and goes on."""
    folder = folder or Path(tempfile.mkdtemp())

    def report(step, total, metrics):
        if step == kill_at:
            raise Killed

    def train():
        model = network().to(on)
        train_classifier(
            model, data(), **told(SETTINGS, report_every=1, **changes), checkpoint=folder / "c.pt", report=report,
            effects=EFFECTS[effect](model), teacher=teacher() if distilled else None, validation=data(),
            snapshots={folder / "first.safetensors": 2},
        )  # fmt: skip
        return {name: tensor.cpu() for name, tensor in model.state_dict().items()}

    if on == "cpu":
        return train()
    with pretended_gpu():
        if kill_at is not None:
            try:
                train()
            except Killed:
                kill_at = None
            else:
                raise AssertionError("it was not killed")
        return train()
