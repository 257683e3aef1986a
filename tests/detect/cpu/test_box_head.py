"""The box head's product as a convolution is Detectron2's."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead

from detect.cpu.box_head import ConvolvedBoxHead


def test_values_and_gradients_equal_those_of_detectron2():
    torch.manual_seed(0)
    shape = ShapeSpec(channels=6, height=7, width=7)
    arguments = {"conv_dims": [4], "fc_dims": [16, 8]}
    theirs, ours = FastRCNNConvFCHead(shape, **arguments), ConvolvedBoxHead(shape, **arguments)
    ours.load_state_dict(theirs.state_dict())
    regions = torch.randn(5, 6, 7, 7)
    outputs = [head(regions) for head in (theirs, ours)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for (name, a), (_, b) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert theirs.fc1.weight.grad.abs().sum() > 1


def test_no_regions_give_no_features():
    head = ConvolvedBoxHead(ShapeSpec(channels=6, height=7, width=7), conv_dims=[], fc_dims=[16])
    assert head(torch.zeros(0, 6, 7, 7)).shape == (0, 16)
