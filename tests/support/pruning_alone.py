"""What tests of the one-command pruner share."""

from study.config.load import validate
from study.config.schema import PruneConfig
from study.prune_one.prune import prune_alone

SMALL = {"arch": "cifar_resnet", "options": {"depth": 8, "width": 0.5}}
HALF = {"method": "l1_filter", "ratio": 0.5}


def alone(out, prune, classifier=None, *, seed=0, force=False, device="auto"):
    """Prune into `out` by the sections of a config."""
    sections = {"seed": seed, "classifier": classifier or {}, "prune": prune, "device": device}
    return prune_alone(validate(PruneConfig, sections, source="config"), out, force=force)
