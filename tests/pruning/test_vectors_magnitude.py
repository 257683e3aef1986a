"""Magnitude pruning against the released code of the study: the same masks and the same logits."""

from hashlib import sha256

import numpy as np
import pytest
import torch
from support.reference import fixed_input, input_state, load_state, load_vector

from classify.models import build
from pruning.methods import Request, get_method
from pruning.methods.magnitude import MagnitudeOptions
from pruning.select import Selection


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def vector():
    return load_vector("wl_preresnet110")


@pytest.mark.parametrize("run", range(4))
def test_released_masks_and_logits_are_met(vector, run):
    model = build("preresnet110", 10).eval()
    load_state(model, input_state(vector))
    run = vector["runs"][run]
    request = Request([], Selection(run["percent"]), MagnitudeOptions(exact=False), 0)
    masks = get_method("magnitude").prune(model, request).masks
    assert [name.removesuffix(".weight") for name in masks] == vector["conv_names_in_threshold_order"]
    for layer, digest in run["mask_sha256"].items():
        bits = np.packbits(masks[f"{layer}.weight"].flatten().numpy())
        assert sha256(bits.tobytes()).hexdigest() == digest, layer
    with torch.no_grad():
        assert relative(model(fixed_input(32)), vector["logits_before"]) <= 1e-4
        masks.apply(model)
        assert relative(model(fixed_input(32)), run["logits"]) <= 1e-4
