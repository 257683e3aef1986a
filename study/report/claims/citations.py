"""What a study rests on, by keys of references.bib: the paper it follows, pruning methods, detectors, statistics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

LIU: Final = "liu2019rethinking"
HOLM: Final = "holm1979simple"
SMYTH: Final = "smyth2004linear"
PYTORCH: Final = "paszke2019pytorch"
DEPENDENCIES: Final = "fang2023depgraph"
# A method that is not here is a control of Liu et al. or the user's own.
BY_METHOD: Final = {
    "l1_filter": "li2017pruning",
    "random": "mittal2018recovering",
    "thinet": "luo2017thinet",
    "reconstruction": "he2017channel",
    "magnitude": "han2015learning",
    "lottery": "frankle2019lottery",
    "slimming": "liu2017learning",
    "structure_selection": "huang2018data",
    "soft_filter": "he2018soft",
    "taylor": "molchanov2019importance",
    "fpgm": "he2019filter",
    "lamp": "lee2021layer",
    "snip": "lee2019snip",
    "synflow": "tanaka2020pruning",
    "gradual_magnitude": "zhu2017prune",
    "rigl": "evci2020rigging",
    "group_norm": DEPENDENCIES,
    "group_fisher": "liu2021group",
}
# of retraining; the other regimes are Liu et al.'s
BY_REGIME: Final = {
    "lr_rewind": "renda2020comparing",
    "weight_rewind": "renda2020comparing",
    "cyclic": "le2021network",
    "one_cycle": "smith2017superconvergence",
}
# by the name of the report's topic
BY_TOPIC: Final = {"detection": ("ren2015faster", "lin2014microsoft", "wu2019detectron2")}


def entries() -> dict[str, str]:
    """The BibTeX entries of references.bib by their keys."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    # an entry has no empty line in it, and the next one begins behind one
    return {re.split("[{,]", entry, maxsplit=2)[1]: entry for entry in text.strip().split("\n\n")}
