"""The single-level head in a config: what it refuses, and that older runs keep their hashes."""

import pytest
from pydantic import ValidationError

from detect.settings import DetectorSettings


def test_the_pyramid_is_not_named_so_that_hashes_of_runs_before_there_was_a_choice_stay():
    assert "head" not in DetectorSettings().as_json()
    assert "head" not in DetectorSettings(head="fpn").as_json()
    assert DetectorSettings().as_json()["strides"] == [4, 8, 16, 32]
    assert DetectorSettings(head="c4", strides=(16,)).as_json()["head"] == "c4"


def test_settings_of_the_pyramid_mean_nothing_with_one_level():
    with pytest.raises(ValidationError, match="head: c4 has no fpn_channels and no box_head_dim; set it to null"):
        DetectorSettings(head="c4", strides=(16,), fpn_channels=64, box_head_dim=128)
    with pytest.raises(ValidationError, match="unknown head 'c5'; choose from fpn, cascade, mask, c4, retinanet"):
        DetectorSettings(head="c5")
