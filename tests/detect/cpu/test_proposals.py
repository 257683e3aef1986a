"""The faster selection keeps what Detectron2's keeps."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import RPN
from torchvision.ops import nms

from detect.cpu.proposals import BatchedRPN, suppress

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
SCORES = torch.tensor([4.0, 3, 2, 1])
# IoU of neighbours 9/11 = 0.82, of the first and third 8/12 = 0.67


def test_a_suppressed_box_suppresses_nothing():
    assert suppress(BOXES, SCORES, torch.zeros(4), 0.7, limit=10).tolist() == [0, 2, 3]


def test_levels_do_not_suppress_each_other_and_the_limit_holds():
    assert suppress(BOXES, SCORES, torch.tensor([0, 1, 0, 0]), 0.6, limit=10).tolist() == [0, 1, 3]
    assert suppress(BOXES, SCORES, torch.zeros(4), 0.7, limit=2).tolist() == [0, 2]


@pytest.mark.parametrize("limit", [1, 100, 1500])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_equals_torchvision_however_often_more_boxes_are_looked_at(threshold, limit):
    torch.manual_seed(0)
    corner = torch.rand(1500, 2) * 100
    boxes = torch.cat([corner, corner + 5 + 30 * torch.rand(1500, 2)], 1)
    scores = torch.arange(1500, 0, -1.0)
    expected = nms(boxes, scores, threshold)[:limit]
    assert torch.equal(suppress(boxes, scores, torch.zeros(1500), threshold, limit=limit), expected)


@pytest.fixture
def rpns():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16.0], [32.0]]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 300, 40
    shapes = {"p2": ShapeSpec(channels=4, stride=4), "p3": ShapeSpec(channels=4, stride=8)}
    return RPN(cfg, shapes), BatchedRPN(cfg, shapes)


def _predictions(rpn):
    torch.manual_seed(1)
    features = [torch.zeros(2, 4, 16, 16), torch.zeros(2, 4, 8, 8)]
    anchors = rpn.anchor_generator(features)
    return (
        anchors,
        [torch.randn(2, len(a)) for a in anchors],
        [0.3 * torch.randn(2, len(a), 4) for a in anchors],
        [(64, 64), (60, 48)],
    )


def test_proposals_equal_those_of_detectron2(rpns):
    theirs, ours = rpns
    predictions = _predictions(theirs)
    for a, b in zip(theirs.predict_proposals(*predictions), ours.predict_proposals(*predictions), strict=True):
        assert len(a) == len(b) == 40
        assert torch.equal(a.objectness_logits, b.objectness_logits)
        assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)


def test_a_score_that_is_not_finite_stops_training(rpns):
    _, ours = rpns
    predictions = _predictions(ours)
    predictions[1][0][0, 3] = float("inf")
    with pytest.raises(FloatingPointError, match="diverged"):
        ours.predict_proposals(*predictions)
