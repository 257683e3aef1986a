"""Faults that only a GPU shows, each put into the program for a moment: the checks of this folder find them."""

import textwrap
from contextlib import contextmanager
from functools import partial
from inspect import getsource
from pkgutil import resolve_name
from unittest import mock

import pytest
from support import detector_on_gpu, training_on_gpu
from support.pretended_gpu import MixedDevices
from support.pruning_on_gpu import pruned_there, scored_there

pytestmark = [pytest.mark.cpu_only, pytest.mark.usefixtures("minute_a_step")]

STEP = "classify.step:TrainingStep._backward"
steps, trained = training_on_gpu.steps_without_waiting, training_on_gpu.trained
# what it is, where, what stands there, what would be wrong, the check, what it says
FAULTS = [
    ("a constant made on the CPU", STEP, "loss / n_images", "loss * torch.ones(1)", steps, MixedDevices),
    (
        "a constant sent each step", STEP,
        "loss / n_images", "loss / torch.tensor(8, device=loss.device)", steps, "copy: ",
    ),
    ("a blocking copy", STEP, "images.to(self._device, non_blocking=True)", "images.to(self._device)", steps, "copy: "),
    ("labels left on the CPU", STEP, "labels.to(self._device, non_blocking=True)", "labels", steps, MixedDevices),
    (
        "a loss read each step", "classify.step:TrainingStep.take",
        "return torch.stack(losses).sum()", "return torch.tensor(torch.stack(losses).sum().item())", steps, "look: ",
    ),
    (
        "a mask left on the CPU", "pruning.masked_training:_beside",
        "mask.to(model.get_parameter(name).device)", "mask", partial(steps, "held masks"), MixedDevices,
    ),
    (
        "indices left on the CPU", "pruning.gate_gradients:GateGradients._watch",
        "device=self._device", 'device="cpu"', partial(steps, "group_fisher"), "look: ",
    ),
    (
        "a step that asks whether it was skipped", "pruning.methods.structure_selection:StructureEffect.after_step",
        "gradient.isfinite().all()", "torch.tensor(bool(gradient.isfinite().all()), device=gradient.device)",
        partial(steps, "structure_selection"), "look: ",
    ),
    (
        "a checkpoint loaded to the CPU", "training.checkpoint:load_checkpoint",
        "map_location=device", 'map_location="cpu"', partial(trained, "structure_selection", kill_at=5), MixedDevices,
    ),
    (
        "a calibration batch left on the CPU", "classify.calibration:CalibrationImages.losses",
        "self.inputs(i, i + batch_size).to(device)", "self.inputs(i, i + batch_size)", partial(pruned_there, "taylor"),
        MixedDevices,
    ),
    (
        "a pruned network left on the GPU", "pruning.cut:Pruned.cpu",
        "model=self.model.cpu()", "model=self.model", partial(pruned_there, "l1_filter"), "",
    ),
    ("an image left on the CPU", "classify.evaluate:evaluate_classifier",
     "pixels.to(device)", "pixels", scored_there, MixedDevices),
    (
        "answers left on the GPU", "classify.evaluate:evaluate_classifier",
        "hits[:, 0].cpu()", "hits[:, 0]", scored_there, "",
    ),
]  # fmt: skip
OF_DETECTORS = [
    (
        "a blocking copy", "detect.train:on_device",
        'record["image"].to(device, non_blocking=True)', 'record["image"].to(device)', "copy: ",
    ),
    (
        "a loss read each step", "detect.train:DetectorTrainer.run_step",
        "self._watch(loss)", "self._watch(loss); float(loss)", "look: ",
    ),
    (
        "the proposals of the CPU on a GPU", "detect.cpu.proposals:BatchedRPN.predict_proposals",
        'pred_objectness_logits[0].device.type != "cpu" or torch.jit.is_tracing()', "torch.jit.is_tracing()",
        MixedDevices,
    ),
]  # fmt: skip


@contextmanager
def put_in(place, right, wrong):
    """Within the block the function at `place` says `wrong` where it says `right`."""
    owner, name = place.replace(":", ".").rsplit(".", 1)
    function, owner = resolve_name(place), resolve_name(owner)
    source = getsource(function)
    assert source.count(right) == 1
    body = textwrap.indent(textwrap.dedent(source.replace(right, wrong)), "    ")
    made = {}
    code = compile(f"def make(__class__):\n{body}\n    return {name}", function.__code__.co_filename, "exec")
    exec(code, function.__globals__, made)
    with mock.patch.object(owner, name, made["make"](owner)):
        yield


def assert_found(check, said):
    kind, words = (AssertionError, said) if isinstance(said, str) else (said, "")
    with pytest.raises(kind, match=words):
        check()


@pytest.mark.parametrize(("name", "place", "right", "wrong", "check", "said"), FAULTS)
def test_a_fault_is_found(name, place, right, wrong, check, said):
    with put_in(place, right, wrong):
        assert_found(check, said)


@pytest.mark.parametrize(("name", "place", "right", "wrong", "said"), OF_DETECTORS)
def test_a_fault_of_detectors_is_found(name, place, right, wrong, said, tmp_path):
    with put_in(place, right, wrong):
        assert_found(partial(detector_on_gpu.steps_without_waiting, tmp_path), said)
