"""Detectors on a GPU that is pretended: trained, evaluated and pruned with nothing left on the CPU."""

import pytest
import torch
from support.detector_on_gpu import ONE_STAGE, classifier, detector_on, steps_without_waiting
from support.pretended_gpu import OnGpu, pretended_gpu
from support.tiny_detector import SMALL, two_squares

from detect.data.loader import train_loader
from detect.evaluate import evaluate_detector
from detect.prune import backbone_groups, detection_losses, prune_detector
from pruning.cut import Arch
from pruning.select import Selection

pytestmark = pytest.mark.cpu_only


@pytest.mark.parametrize(
    ("precision", "changes"),
    [
        ("float32", {"norm": "BN", "distilled": True}),
        ("float16", {"norm": "SyncBN"}),
        ("bfloat16", {"norm": "FrozenBN", "freeze_at": 2}),
        ("float32", {**ONE_STAGE, "norm": "GN"}),
    ],
)
def test_no_step_waits_for_the_gpu_by_a_line_of_ours(precision, changes, tmp_path):
    steps_without_waiting(tmp_path, precision, **changes)


def test_scores_and_choices_there_are_those_of_the_cpu(tmp_path):
    dataset, found, plans = two_squares(tmp_path), [], []
    groups = backbone_groups(classifier(), torch.zeros(1, 3, 64, 64), strides=SMALL.strides)

    def run(device):
        detector, cfg = detector_on(device)
        scores = evaluate_detector(detector, cfg, dataset=dataset)
        found.append([scores["AP"], scores["detections"]])
        batch = next(iter(train_loader(dataset, cfg, batch_size=2, seed=0)))
        pruned = prune_detector(
            detector, Arch("net", {}), groups, "taylor", Selection(0.4), losses=detection_losses([batch]),
            batch=detector.preprocess_image(batch).tensor, seed=0,
        )  # fmt: skip
        plans.append(pruned.plan)
        return pruned.detector

    with pretended_gpu():
        assert all(isinstance(p, OnGpu) for p in run("cuda").parameters())
    run("cpu")
    assert found[0] == pytest.approx(found[1]) and plans[0] == plans[1]
