"""Exported classifiers compute what PyTorch computes."""

import io

import onnxruntime
import pytest
import torch
from torch import nn

from classify.export import Signature, export
from classify.models import rebuild
from pruning.graph.layers import SelectConv2d
from pruning.plan import PruningPlan

LOGITS = Signature("images", {0: "batch"}, {"logits": "batch"})


def with_lively_norms(model):
    """Statistics and scales away from 0 and 1, so that a wrong folding shows."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return model.eval()


def narrowed():
    """Two of the eight filters of a block's first convolution, and two blocks dropped."""
    options = {"depth": 18, "width": 0.125}
    plan = PruningPlan("imagenet_resnet", options, {"layer1.0.conv1": (1, 6)}, {"layer1.0.conv1": 8})
    return rebuild(plan.then(PruningPlan(plan.arch, options, drop=("layer2.1", "layer3.1"))), 5)


def selecting():
    """A pre-activation network, two layers of which read a choice of the trunk's channels."""
    select = {"layer1.0.conv1": (0, 3, 5), "layer2.0.conv1": (1, 2)}
    return rebuild(PruningPlan("cifar_preresnet", {"depth": 11}, select=select), 5)


MODELS = {"narrowed and dropped blocks": narrowed, "selecting": selecting}


def run(content, file_format, images):
    if file_format == "torchscript":
        return torch.jit.load(io.BytesIO(content))(images)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0].copy())


@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_pytorchs_on_another_batch(name, file_format):
    model = with_lively_norms(MODELS[name]())
    content, difference = export(model, torch.randn(2, 3, 32, 32), LOGITS, file_format)
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(run(content, file_format, images), expected, rtol=1e-4, atol=1e-5)
    assert difference < 1e-5


def test_the_selecting_network_does_select():
    assert any(isinstance(layer, SelectConv2d) for layer in selecting().modules())


def test_what_was_given_is_not_changed():
    model = with_lively_norms(narrowed()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, torch.randn(2, 3, 32, 32), LOGITS, "torchscript")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Forgetful(nn.Module):
    """A trace keeps the number that was drawn while tracing."""

    def forward(self, x):
        return x + float(torch.rand(1))


class Odd(nn.Module):
    """No exporter knows it."""

    def forward(self, x):
        return torch.linalg.eigvals(x)


def test_what_does_not_compute_the_same_is_refused():
    with pytest.raises(ValueError, match=r"the exported network's logits differ from PyTorch's by"):
        export(Forgetful(), torch.ones(2, 3), LOGITS, "torchscript")


class OneBatch(nn.Module):
    """A trace keeps how many images there were; with the traced number all is well."""

    def forward(self, x):
        return x * float(len(x))


@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
def test_what_holds_for_one_batch_alone_is_refused(file_format):
    two, three = torch.ones(2, 3), torch.ones(3, 3)
    export(OneBatch(), two, LOGITS, file_format)
    message = rf"OneBatch cannot be exported as {file_format}: on an input of shape \(3, 3\): .* differ from PyTorch's"
    with pytest.raises(ValueError, match=message):
        export(OneBatch(), two, LOGITS, file_format, others=[three])


def test_an_operator_that_cannot_be_exported_is_one_sentence():
    with pytest.raises(ValueError, match="Odd cannot be exported as onnx: ") as caught:
        export(Odd(), torch.randn(1, 3, 3), LOGITS, "onnx")
    assert "\n" not in str(caught.value)


def test_format_and_packages_are_asked_for(monkeypatch):
    with pytest.raises(ValueError, match="unknown format 'tflite'; choose from torchscript, onnx"):
        export(nn.Identity(), torch.ones(1), LOGITS, "tflite")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="format 'onnx' needs onnx and onnxruntime: pip install onnx onnxruntime"):
        export(nn.Identity(), torch.ones(1), LOGITS, "onnx")
