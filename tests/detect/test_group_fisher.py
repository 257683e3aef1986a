"""Group Fisher pruning while a detector trains: what it removes, alone or with the FPN, is what pruning cuts."""

import pytest
import torch
from support.tiny_detector import SMALL, settings, two_squares
from support.told import altered

from classify.models import arch, build
from detect.build import build_detector
from detect.prune import backbone_groups, prune_detector
from detect.pyramid import join, pyramid_groups
from detect.train import train_detector
from pruning.methods import METHODS, Request
from pruning.methods.group_fisher import GroupFisherOptions
from pruning.select import Selection

pytestmark = pytest.mark.usefixtures("minute_a_step")

OPTIONS = {"width": 0.125}
SETTINGS = altered(SMALL, strides=(4, 8, 16, 32), fpn_channels=12)
SELECTION = Selection(ratio=0.4, level="global")
EXAMPLE = torch.zeros(1, 3, 64, 64)


class Killed(Exception):
    pass


def trained(folder, scope, *, kill_at=None):
    """The detector after eight iterations with the effect, its groups, and what is gone by the effect."""
    torch.manual_seed(0)
    classifier = build("resnet10", 3, OPTIONS)
    detector, cfg = build_detector(classifier, SETTINGS, num_classes=2)
    if scope == "backbone":
        groups = backbone_groups(classifier, EXAMPLE, strides=SETTINGS.strides)
        network = detector.backbone.bottom_up.body
    else:
        groups = pyramid_groups(detector.backbone, classifier, EXAMPLE, strides=SETTINGS.strides)
        network = join(detector.backbone)
    options = GroupFisherOptions(every=2, start=0.25, by="macs")
    effect = METHODS["group_fisher"].training_effect(network, Request(groups, SELECTION, options, 0, example=EXAMPLE))

    def report(step, total, metrics):
        if step == kill_at:
            raise Killed

    train_detector(
        detector,
        cfg,
        dataset=two_squares(folder),
        **settings(iterations=8, checkpoint_minutes=3),
        checkpoint=folder / "checkpoint.pt",
        report=report,
        effects=[effect],
    )
    left = effect._narrowing.left
    return detector, groups, {name: (~mask).nonzero().flatten().tolist() for name, mask in left.items()}


@pytest.mark.parametrize("scope", ["backbone", "backbone+fpn"])
def test_what_went_in_training_is_cut_and_the_features_stay(tmp_path, scope):
    detector, groups, gone = trained(tmp_path, scope)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pruned = prune_detector(
        detector, arch("resnet10", OPTIONS), groups, "group_fisher", SELECTION, batch=x, scope=scope
    )
    widths = {group.name: group.width for group in groups}
    cut = {name: sorted(set(range(widths[name])) - set(kept)) for name, kept in pruned.plan.keep.items()}
    assert cut == gone
    assert sum(map(len, gone.values())) == int(0.4 * sum(widths[name] for name in gone))
    assert pruned.difference < 1e-4
    with torch.no_grad():
        before, after = detector.eval().backbone(x), pruned.detector.eval().backbone(x)
    for name, feature in before.items():
        torch.testing.assert_close(after[name], feature, rtol=1e-4, atol=1e-5)


def test_killed_between_two_removals_it_ends_with_the_same_bits(tmp_path):
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    whole, _, gone = trained(folders[0], "backbone+fpn")
    with pytest.raises(Killed):
        trained(folders[1], "backbone+fpn", kill_at=5)  # the checkpoint is of step 3
    resumed, _, gone_again = trained(folders[1], "backbone+fpn")
    assert gone_again == gone
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
