"""The normalisation that comes with given weights, or that a user sets, from the classifier to the export."""

import pytest
import torch
from support.given_files import IMAGENET, WIDTH, given, refused, settings_of
from support.pruning_alone import alone
from support.stages_alone import run_alone
from support.tiny_classification import train
from support.tiny_study import tiny as tiny_detection

from classify.calibration import CalibrationImages
from classify.models import build, example_input, in_channels
from classify.models.normalization import published_normalization
from study.export import export_run
from study.stages.detector import load_detector
from study.stages.network import Network
from training.strict_yaml import ConfigError


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("resnet18", IMAGENET),  # ours, which takes torchvision's weights
        ("mobilenet_v2", IMAGENET),
        ("googlenet", ([0.5] * 3, [0.5] * 3)),
        ("resnet20", None),  # of CIFAR
        ("resnet10", None),
    ],
)
def test_weights_bring_the_normalisation_of_their_architecture(tmp_path, arch, expected):
    given(tmp_path / "w.pt", arch, 10, {})
    changes = {
        "classifier.arch": arch,
        "classifier.options": {},
        "classifier.weights": str(tmp_path / "w.pt"),
        "prune": {"method": "l1_filter", "ratio": 0.5},
        "pipelines": ["unpruned", "scratch_e"],
    }
    for settings in settings_of(changes):
        found = settings.get("normalization")
        assert (found and (found["mean"], found["std"])) == expected
    for settings in settings_of({**changes, "classifier.normalization": "dataset"}):
        assert "normalization" not in settings
    mine = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    for settings in settings_of({**changes, "classifier.normalization": mine}):
        assert {key: settings["normalization"][key] for key in mine} == mine
    without = {key: value for key, value in changes.items() if key != "classifier.weights"}
    assert all("normalization" not in settings for settings in settings_of(without))


def test_timm_says_what_its_weights_were_trained_with():
    timm = pytest.importorskip("timm")
    for name in ("tf_efficientnet_b0.ap_in1k", "vit_tiny_patch16_224", "timm/resnet18"):
        config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
        found = published_normalization(name)
        assert (found.mean, found.std) == (config.mean, config.std)
        assert config.tag in found.source
    assert published_normalization("tf_efficientnet_b0.ap_in1k").mean == (0.5, 0.5, 0.5)


def test_inceptions_own_transform_of_the_input_wants_imagenets():
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 64, 64)
    plain, own = build("googlenet", 10).eval(), build("googlenet", 10, {"transform_input": True}).eval()
    own.load_state_dict(plain.state_dict())

    def normalised(options):
        found = published_normalization("googlenet", options)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (found.mean, found.std))
        return (pixels - mean) / std

    with torch.no_grad():
        expected = own(normalised({"transform_input": True}))
        torch.testing.assert_close(plain(normalised({})), expected, rtol=1e-4, atol=1e-5)
    assert published_normalization("googlenet", {"transform_input": True}).mean == tuple(IMAGENET[0])


def test_the_result_records_the_normalisation_and_the_children_follow(tmp_path):
    given(tmp_path / "w.pt", "resnet18")
    runs = tmp_path / "runs"
    changes = {
        "classifier.arch": "resnet18",
        "classifier.weights": str(tmp_path / "w.pt"),
        "prune": {"method": "l1_filter", "ratio": 0.5},
        "pipelines": ["unpruned", "fine_tune", "scratch_e"],
        "machine.precision": "float32",
    }
    found = train(runs, changes)
    for route in found.values():
        for stage in route.stages:
            network = stage.run(runs).read_result()["network"]
            assert (network["mean"], network["std"]) == IMAGENET
            assert network["normalization"] == "of torchvision's weights of resnet18"
    notes = found["unpruned", 0].evaluation.run(runs).read_result()["data"]["notes"]
    assert any("those of torchvision's weights of resnet18, not the data set's" in note for note in notes)
    # the network that a study wrote says itself what it was trained with, whatever its file is called
    copied = tmp_path / "elsewhere.safetensors"
    copied.write_bytes(found["unpruned", 0].evaluation.run(runs).weights.read_bytes())
    assert settings_of({**changes, "classifier.weights": str(copied)})[0]["normalization"]["mean"] == IMAGENET[0]
    plain = train(runs, {k: v for k, v in changes.items() if k != "classifier.weights"} | {"pipelines": ["unpruned"]})
    copied.write_bytes(plain["unpruned", 0].evaluation.run(runs).weights.read_bytes())
    own = Network.load(plain["unpruned", 0].evaluation.run(runs))
    assert own.mean != tuple(IMAGENET[0])
    kept = settings_of({**changes, "classifier.weights": str(copied)})[0]["normalization"]
    assert (kept["mean"], kept["source"]) == (list(own.mean), "of the file of weights")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classifier.dataset": {"name": "mnist"}},
            "classifier.arch 'resnet10' reads 3 channels, the images of data set 'mnist' have 1",
        ),
        (
            {"classifier.normalization": {"mean": [0.5], "std": [0.5]}},
            "the normalisation of classifier.normalization is of 1 channels, the images of data set 'digits' have 3",
        ),
        ({"classifier.normalization": {"mean": [0.5, 0.5], "std": [0.5]}}, "mean has 2 channels, std 1"),
        ({"classifier.normalization": {"mean": [0.5], "std": [0.0]}}, "greater than 0"),
    ],
)
def test_channels_that_do_not_agree_are_refused_before_any_work(changes, message):
    assert message in refused({**changes, "pipelines": ["unpruned"]})


def test_detectors_of_a_study_read_images_as_their_classifier_does(tmp_path):
    """The mean of a detector's input is that of the configuration, as are the export's and every stage's."""
    config, routes = tiny_detection(
        "classifier.normalization={mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6]}",
        "pipelines=[transfer_then_prune]",
        "machine.precision=float32",
    )
    run_alone(config, routes, tmp_path)
    stages = [s for s in routes[0].stages if s.kind != "evaluate"]
    for stage in stages:
        network = stage.run(tmp_path).read_result()["network"]
        assert (network["mean"], network["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
        assert network["normalization"] == "of classifier.normalization"
    _, detector, cfg = load_detector(stages[-1], tmp_path, 10, device="cpu")
    torch.testing.assert_close(detector.pixel_mean.flatten(), torch.tensor([0.1, 0.2, 0.3]) * 255)
    torch.testing.assert_close(detector.pixel_std.flatten(), torch.tensor([0.4, 0.5, 0.6]) * 255)
    assert cfg.INPUT.FORMAT == "RGB"
    about = export_run(stages[0].run(tmp_path).path, "torchscript", out=tmp_path / "net.pt")
    normalisation = about["input"]["normalisation"]
    assert normalisation["mean"] == [0.1, 0.2, 0.3]
    assert normalisation["source"] == "of classifier.normalization"


def test_a_network_for_grey_images_is_refused_as_a_backbone():
    grey = "classifier.dataset={name: mnist}"
    with pytest.raises(ConfigError, match=r"detect.*: detectors read RGB images, classifier\.arch 'resnet10' reads 1"):
        tiny_detection("pipelines=[unpruned]", grey, "classifier.options={width: 0.125, in_channels: 1}")


def test_one_command_pruning_shows_the_weights_images_as_they_want_them(tmp_path, monkeypatch):
    given(tmp_path / "w.pt", "resnet18", 10)
    source = {"name": "digits", "options": {"image_size": 32}}
    network = {"arch": "resnet18", "options": WIDTH, "num_classes": 10, "weights": tmp_path / "w.pt", "dataset": source}
    seen = []
    inputs = CalibrationImages.inputs
    monkeypatch.setattr(CalibrationImages, "inputs", lambda self, a, b: seen.append(self.mean) or inputs(self, a, b))
    found = alone(tmp_path / "out", {"method": "thinet", "ratio": 0.5, "calibration": {"images": 10}}, network)
    assert seen[-1] == IMAGENET[0]
    assert found["normalization"]["source"] == "of torchvision's weights of resnet18"


def test_timm_calls_the_channels_otherwise():
    pytest.importorskip("timm")
    assert (
        in_channels("timm/resnet18", {"in_chans": 1}) == example_input("timm/resnet18", {"in_chans": 1}).shape[1] == 1
    )
