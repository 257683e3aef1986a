"""Pruning, calibration, evaluation and export of networks on a GPU that is pretended: the choices of the CPU."""

import pytest
import torch
from support.pruning_on_gpu import pruned_there, scored_there

from classify.export import Signature, export
from pruning.design.pattern import Pattern
from pruning.masks import Masks
from pruning.methods import METHODS
from pruning.methods.guided import GuidedOptions

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize("method", METHODS)
def test_every_method_chooses_there_what_it_does_on_the_cpu(method, tmp_path):
    options = None
    if method == "guided":
        (tmp_path / "pattern.json").write_text(Pattern(widths=(0.5,)).to_json(), encoding="utf-8")
        options = GuidedOptions(patterns=(str(tmp_path / "pattern.json"),))
    there, here = pruned_there(method, options)
    assert there.plan == here.plan and there.masks.keys() == here.masks.keys()
    assert Masks(there.masks).to_bytes() == Masks(here.masks).to_bytes()
    for name, tensor in here.model.state_dict().items():
        torch.testing.assert_close(there.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_accuracy_and_statistics_there_are_those_of_the_cpu():
    for there, here in zip(*scored_there(), strict=True):
        assert (there.top1, there.top5, there.n) == (here.top1, here.top5, here.n)
        assert there.loss == pytest.approx(here.loss, rel=1e-5) and torch.equal(there.correct, here.correct)


def test_what_was_pruned_there_is_exported_from_the_cpu():
    there, _ = pruned_there("l1_filter")
    signature = Signature("image", {0: "batch"}, {"logits": "batch"})
    content, difference = export(there.model, torch.randn(2, 3, 8, 8), signature, "torchscript")
    assert content and difference < 1e-4
