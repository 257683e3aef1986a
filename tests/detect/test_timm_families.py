"""Every timm family that docs/backbones.md lists, as its table says: built, trained, exported, dense and pruned."""

from pathlib import Path

import pytest
import torch
from support.timm_families import HEADING, NETWORKS, lively, tried

from classify.models import arch, build, channel_groups
from detect.backbone import ClassifierBackbone
from pruning.cut import prune
from pruning.select import Selection

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each():
    _, _, rows = PAGE.partition(HEADING)
    assert [row.split("|")[2].strip(" `") for row in rows.strip().splitlines()[: len(NETWORKS)]] == [
        network.name for network in NETWORKS
    ]


@pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=[] if n.name == "mnasnet_100" else [pytest.mark.slow], id=n.name) for n in NETWORKS],
)
def test_a_family_is_a_backbone(network, tmp_path):
    found = tried(network, tmp_path)
    assert max(found.differences) < 1e-4  # relative; a wrong cut shows as 0.1 and more
    assert found.pruned < 0.8 * found.params and found.pruned_inside < found.params
    assert found.row(network) in PAGE.splitlines()


@pytest.mark.parametrize(
    ("name", "scope", "message"),
    [
        ("regnetx_002", "inner", "one of its layers is a grouped convolution"),
        ("res2net50_14w_8s", "inner", "its channels are sliced apart"),
        ("repvgg_a0", "inner", "nothing to prune: .* in this scope that is not skipped; scope 'all' has 5"),
        ("convnextv2_atto", "all", "cannot be narrowed: .* is a LayerNorm2d"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_a_sentence(name, scope, message):
    model = lively(name)
    groups = channel_groups(f"timm/{name}", model, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=message) as error:
        batch = torch.zeros(1, 3, 64, 64)
        prune(model, arch(name), groups, "l1_filter", Selection(0.5, scope=scope), batch=batch, seed=0)
    assert "\n" not in str(error.value)


def test_a_csp_network_of_the_third_kind_cannot_be_traced_for_pruning():
    model = build("timm/cs3darknet_s", 2)
    assert ClassifierBackbone(model).output_shape()["s32"].stride == 32  # dense it is a backbone
    with pytest.raises(ValueError, match=r"CspNet cannot be traced with an input of shape"):
        channel_groups("timm/cs3darknet_s", model)
