"""The named pipelines: their steps, and what a report says of them. To add one: an entry in one of the two tables."""

from collections.abc import Mapping
from dataclasses import dataclass

DENSE = "unpruned"


@dataclass(frozen=True)
class Look:
    """How figures draw a pipeline: a colour and, since colours are not the same to everyone, a marker and a hatching.

    `marker`, `hatching`: as Plotly names them. `sign`: the marker in text.
    """

    colour: str
    marker: str
    sign: str
    hatching: str


# Any two are 15 units of CIELAB apart, to normal sight and without either of its three cones, and all have a contrast
# of 3:1 with the page, light and dark (tests/study/report/test_looks.py).
_GREY = Look("#78808b", "circle", "\u25cf", "")
_BLUE = Look("#0d6d93", "square", "\u25a0", "/")
_ORANGE = Look("#cc8209", "diamond", "\u25c6", "\\")
_GREEN = Look("#6d9d77", "triangle-up", "\u25b2", ".")
_VIOLET = Look("#6d4ec8", "triangle-down", "\u25bc", "x")
_LAVENDER = Look("#8985ef", "pentagon", "\u2b1f", "+")
_PINK = Look("#dd4ab9", "star", "\u2605", "-")
_SKY = Look("#3d9cd0", "cross", "\u271a", "|")
_GOLD = Look("#af8a44", "hexagon", "\u2b22", "/")
OTHER_LOOKS = (  # of pipelines that a user made; repeated when they run out
    Look("#c22e0e", "x", "\u2716", "\\"),
    Look("#996142", "bowtie", "\u29d3", "."),
    Look("#786259", "hourglass", "\u29d7", "x"),
)


@dataclass(frozen=True)
class Pipeline:
    """A chain of steps (of study.plan.steps.STEPS) and how it is told from others.

    `paper`: its name in Liu et al. (ICLR 2019), or what we call it. `print_name`: in tables and figures for a paper.
    `explanation`: the chain in words. `look`: of all that is drawn of it, the same in both tables. `reference`: the
    report says of every other how far it is from it. `drawn`: False for one so far below the others that it would
    flatten the figures; tables have it.
    """

    chain: tuple[str, ...]
    paper: str
    print_name: str
    explanation: str
    look: Look
    reference: bool = False
    drawn: bool = True


# Where a method's layer widths do not depend on trained weights, `shape` costs nothing; otherwise it trains a
# classifier and prunes it.
PIPELINES: dict[str, Pipeline] = {
    DENSE: Pipeline(
        ("classify", "detect"),
        "dense",
        "Unpruned",
        "dense classifier, transferred to the detector",
        _GREY,
        reference=True,
    ),
    "prune_then_transfer": Pipeline(
        ("classify_for_pruning", "prune", "fine_tune", "detect"),
        "Prune-C",
        "Prune-C",
        "classifier pruned and fine-tuned, then transferred to the detector",
        _BLUE,
        reference=True,
    ),
    "prune_then_detect": Pipeline(
        ("classify_for_pruning", "prune", "detect"),
        "Prune-C without fine-tuning",
        "Prune and detect",
        "classifier pruned, BatchNorm estimated anew on the detection images, and transferred without fine-tuning it",
        _SKY,
    ),
    "transfer_then_prune": Pipeline(
        ("classify_for_pruning", "detect_before_pruning", "prune_detector", "fine_tune_detector"),
        "Prune-D",
        "Prune-D",
        "dense detector trained, then its backbone pruned and fine-tuned",
        _ORANGE,
    ),
    "scratch_e": Pipeline(
        ("shape", "scratch_e", "detect"),
        "Scratch-E",
        "Scratch-E",
        "pruned classifier trained from random weights, same epochs, then transferred",
        _GREEN,
    ),
    "scratch_b": Pipeline(
        ("shape", "scratch_b", "detect"),
        "Scratch-B",
        "Scratch-B",
        "pruned classifier trained from random weights, same compute, then transferred",
        _VIOLET,
    ),
    "scratch_b_fair": Pipeline(
        ("shape", "scratch_b_fair", "detect_fair"),
        "our control",
        "Scratch-B, fair",
        "as Scratch-B, with all that prune_then_transfer spends on training: the epochs of fine-tuning are added to the"
        " classifier, and what whole epochs, or their cap, leave of its compute to the detector; what a method spends"
        " to find the shape is not counted",
        _LAVENDER,
    ),
    "detect_from_scratch": Pipeline(
        ("shape", "detect_from_scratch"),
        "our control",
        "No pretraining",
        "pruned architecture trained on detection alone, no pretraining",
        _PINK,
    ),
}

# The same for a study without a detector, which compares classifiers. A ticket starts from the dense network's own
# weights, rewound; its control is scratch_e, the same pruned network from other random weights.
CLASSIFIER_PIPELINES: dict[str, Pipeline] = {
    DENSE: Pipeline(("classify",), "dense", "Unpruned", "dense classifier", _GREY, reference=True),
    "pruned": Pipeline(
        ("classify_for_pruning", "prune"),
        "no training after",
        "Pruned only",
        "dense classifier pruned, and nothing trained after that",
        _GOLD,
        drawn=False,
    ),
    "fine_tune": Pipeline(
        ("classify_for_pruning", "prune", "fine_tune"),
        "Fine-tuned",
        "Fine-tuned",
        "dense classifier pruned, then fine-tuned from the weights left",
        _BLUE,
        reference=True,
    ),
    "scratch_e": Pipeline(
        ("shape", "scratch_e"),
        "Scratch-E",
        "Scratch-E",
        "pruned architecture trained from random weights, same epochs",
        _GREEN,
    ),
    "scratch_b": Pipeline(
        ("shape", "scratch_b"),
        "Scratch-B",
        "Scratch-B",
        "pruned architecture trained from random weights, same compute",
        _VIOLET,
    ),
    "scratch_b_fair": Pipeline(
        ("shape", "scratch_b_fair"),
        "our control",
        "Scratch-B, fair",
        "as Scratch-B, with the epochs of fine-tuning added",
        _LAVENDER,
    ),
    "ticket": Pipeline(
        ("classify_for_pruning", "prune", "ticket"),
        "winning ticket",
        "Winning ticket",
        "pruned network rewound to its own early weights, then trained for the dense epochs",
        _ORANGE,
    ),
}


def look_of(name: str) -> Look | None:
    """The look of a named pipeline; None for one that a user made."""
    tables: tuple[Mapping[str, Pipeline], ...] = (PIPELINES, CLASSIFIER_PIPELINES)
    return next((table[name].look for table in tables if name in table), None)
