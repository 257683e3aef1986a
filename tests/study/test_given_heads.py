"""The head of given weights, and other parts of a file that a network does not take."""

import pytest
import torch
import torchvision
from support.given_files import WIDTH, given, refused, settings_of
from support.tiny_classification import tiny

from classify.models import build
from pruning.plan import PruningPlan
from study.stages.given_weights import check_given, load_given
from study.stages.network import Network
from study.stages.settings import TrainClassifier
from training.files import file_digest
from training.strict_yaml import ConfigError


def test_a_head_for_other_classes_is_refused_with_the_key_that_allows_it(tmp_path):
    given(tmp_path / "w.pt", classes=1000)
    message = refused({"classifier.weights": str(tmp_path / "w.pt"), "pipelines": ["unpruned"]})
    assert (
        "(fc.weight, fc.bias) has 1000 classes, data set 'digits' has 10; set classifier.replace_head: true" in message
    )


def test_a_file_without_a_head_is_refused_with_the_key_that_allows_it(tmp_path):
    weights = given(tmp_path / "w.pt")
    torch.save({name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}, tmp_path / "w.pt")
    changes = {"classifier.weights": str(tmp_path / "w.pt"), "pipelines": ["unpruned"]}
    assert "(fc.weight, fc.bias) is not in the file" in refused(changes)
    stage = tiny({**changes, "classifier.replace_head": True})[1][0].evaluation
    network = Network(PruningPlan("resnet10", WIDTH), 10, 32, (0.0,) * 3, (1.0,) * 3)
    check_given(network, stage)


def test_a_file_that_lacks_more_than_the_head_is_refused_whatever_the_key_says(tmp_path):
    weights = given(tmp_path / "w.pt", classes=1000)
    del weights["bn1.weight"]
    torch.save(weights, tmp_path / "w.pt")
    for replace in (False, True):
        changes = {"classifier.weights": str(tmp_path / "w.pt"), "classifier.replace_head": replace}
        assert "1 missing: bn1.weight" in refused({**changes, "pipelines": ["unpruned"]})


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet20", ["fc.weight", "fc.bias"]),
        ("mobilenet_v2", ["classifier.1.weight", "classifier.1.bias"]),
        ("squeezenet1_1", ["classifier.1.weight", "classifier.1.bias"]),  # a convolution
        ("timm/resnet18", ["fc.weight", "fc.bias"]),
        ("tf_efficientnet_b0", ["classifier.weight", "classifier.bias"]),
    ],
)
def test_the_head_is_what_depends_on_the_classes(tmp_path, arch, head):
    if not arch.startswith(("resnet", "mobilenet", "squeezenet")):
        pytest.importorskip("timm")
    weights = given(tmp_path / "w.pt", arch, 7, {})
    file = {"sha256": file_digest(tmp_path / "w.pt"), "paths": {"file": str(tmp_path / "w.pt")}, "replace_head": True}
    network = Network(PruningPlan(arch), 10, 32, (0.0,) * 3, (1.0,) * 3)
    model = network.build()
    asked = {"arch": arch, "arch_options": {}, "dataset": {"name": "digits"}, "regime": "base", "weights": file}
    settings = TrainClassifier(**asked, train={"epochs": 1, "batch_size": 8, "lr": 0.1})
    notes = load_given(model, network, settings)
    assert f"the head ({', '.join(head)}) was drawn anew" in notes[-1]
    assert all(torch.equal(t, weights[n]) for n, t in model.state_dict().items() if n not in head)


def test_replacing_the_head_of_no_weights_is_refused():
    with pytest.raises(ConfigError, match="replace_head: there is no file of weights"):
        tiny({"classifier.replace_head": True})


def test_classifiers_that_only_help_a_training_are_left_out_and_named(tmp_path):
    torch.manual_seed(1)
    model = torchvision.models.googlenet(weights=None, num_classes=10, aux_logits=True, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    settings = settings_of(
        {
            "classifier.arch": "googlenet",
            "classifier.options": {},
            "classifier.weights": str(tmp_path / "w.pt"),
            "pipelines": ["unpruned"],
        }
    )[0]
    network = Network(PruningPlan("googlenet"), 10, 32, (0.0,) * 3, (1.0,) * 3)
    built = network.build()
    notes = load_given(built, network, TrainClassifier(**settings))
    assert torch.equal(built.state_dict()["conv1.conv.weight"], model.state_dict()["conv1.conv.weight"])
    assert notes == [
        "w.pt was taken for a finished training and counted as 2 epochs",
        "aux1 and aux2 of the given weights, classifiers that only help a training, were left out",
    ]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("googlenet", {"aux_logits": True}, "built without its training-only classifiers; drop aux_logits"),
        ("timm/resnet18", {"checkpoint_path": "x.pt"}, "give weights as classifier.weights"),
        ("resnet18", {"in_channels": 3, "pretrained": True}, "does not take these options"),
        ("mobilenet_v2", {"weights": "DEFAULT"}, "does not take these options"),
    ],
)
def test_weights_do_not_come_in_by_the_options_of_an_architecture(arch, options, message):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        build(arch, 10, options)
