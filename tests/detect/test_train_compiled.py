"""A detector whose backbone is compiled for its training: the same losses, weights and names as the plain one."""

import json

import pytest
import torch
from PIL import Image
from support.tiny_detector import make_detector, settings, two_squares

from detect.data import CocoDataset
from detect.data.loader import sizes_vary
from detect.distillation import Teacher
from detect.settings import Distillation
from detect.train import train_detector
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from training import compiled

pytestmark = pytest.mark.usefixtures("minute_a_step")


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def eager_kernels(monkeypatch):
    """Networks are taken apart as for a compiler, which any machine can do, and computed by PyTorch's own kernels."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


def train(dataset, checkpoint, *, kill_at=None, **changes):
    """Train a masked and distilled detector, which is measured after the second step."""
    losses = []

    def report(step, total, metrics):
        losses.append(metrics["loss"])
        if step == kill_at:
            raise Killed

    detector, cfg = make_detector(norm="FrozenBN")
    teacher, _ = make_detector(norm="FrozenBN")
    body = detector.backbone.bottom_up.body
    name, weight = next(iter(body.named_parameters()))
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:, 1] = False
    train_detector(
        detector, cfg, dataset=dataset, **settings(validate_every=2, checkpoint_minutes=1, **changes),
        checkpoint=checkpoint, validation=dataset, report=report,
        effects=[HoldMasks(body, Masks({name: mask}))], teacher=Teacher(teacher, Distillation()),
    )  # fmt: skip
    return detector, losses


def of_two_sizes(folder):
    """`two_squares`, of which one image is twice as wide."""
    two_squares(folder)
    content = json.loads((folder / "train.json").read_text())
    content["images"][0]["width"] = 128
    (folder / "train.json").write_text(json.dumps(content))
    Image.open(folder / "0.png").resize((128, 64)).save(folder / "0.png")
    return CocoDataset(folder / "train.json", folder)


@pytest.mark.parametrize("make", [two_squares, pytest.param(of_two_sizes, marks=pytest.mark.slow)])
def test_a_compiled_training_computes_what_the_plain_one_does(make, tmp_path, monkeypatch):
    dataset, programs = make(tmp_path), []
    compile_with = torch.compile

    def noted(plain, **options):
        programs.append((type(getattr(plain, "__self__", None)).__name__, options.get("dynamic")))
        return compile_with(plain, **options)

    monkeypatch.setattr(torch, "compile", noted)
    plain, losses = train(dataset, tmp_path / "plain.pt")
    fast, seen = train(dataset, tmp_path / "compiled.pt", compile=True)
    assert programs[-1] == ("FPN", make is of_two_sizes)
    assert seen == pytest.approx(losses, rel=1e-4)
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, tensor in fast.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_compiled_training_that_was_killed_ends_with_the_same_bits(tmp_path):
    dataset = two_squares(tmp_path)
    whole, _ = train(dataset, tmp_path / "whole.pt", compile=True)
    with pytest.raises(Killed):
        train(dataset, tmp_path / "killed.pt", compile=True, kill_at=3)
    with pytest.raises(ValueError, match=r"a training that was compiled; set machine\.compile to true"):
        train(dataset, tmp_path / "killed.pt")
    resumed, _ = train(dataset, tmp_path / "killed.pt", compile=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_sizes_vary_where_images_crops_or_scales_do(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    one, several = two_squares(tmp_path / "a"), of_two_sizes(tmp_path / "b")
    cfg = make_detector()[1]
    assert not sizes_vary(one, cfg) and sizes_vary(several, cfg)
    for key, value in (("CROP.ENABLED", True), ("MIN_SIZE_TRAIN", (64, 96))):
        other = cfg.clone()
        other.merge_from_list([f"INPUT.{key}", value])
        assert sizes_vary(one, other)
