"""How each route's network was trained and pruned: the settings that its stages recorded, under the config's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classify.regimes import BASE, FINE_TUNE, REGIMES, RETRAINING
from pruning.methods import METHODS
from study.report.artifacts import steps
from study.report.claims.statement import AUTOMATIC, PREDEFINED, UNSTRUCTURED
from study.report.routes import RouteResults
from study.report.rows import Json, StageResult
from study.stages.store import RunDir
from training.files import canonical

_CLASSIFIERS = ("train_classifier", "take_weights")
_PRUNING = ("prune", "prune_detector")
_NETWORK = ("arch", "arch_options", "dataset", "normalization")


@dataclass(frozen=True)
class PrunedBy:
    """What the settings of a route's stages say; empty where nothing was pruned or nothing is recorded.

    `facts`: settings by their keys in a config, such as `classifier.train.lr`, of the last network.
    """

    method: str = ""
    kind: str = ""
    target: str = ""
    arch: str = ""
    ratios: tuple[float, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def pruned_by(routes: Iterable[RouteResults], stages: Mapping[str, StageResult], runs: Path) -> dict[str, PrunedBy]:
    """Route label -> how it was pruned; `stages` by run, `runs` tells where masks were written."""
    return {route.label: _pruned_by(route, stages, runs) for route in routes}


def _pruned_by(route: RouteResults, stages: Mapping[str, StageResult], runs: Path) -> PrunedBy:
    if not route.rows:
        return PrunedBy()
    kinds = (*_CLASSIFIERS, "train_detector", *_PRUNING)
    # all seeds have the same settings, so the first stands for the route
    chain = [step for seed, step in steps(route, *kinds) if seed == route.rows[0].seed]
    settings = {step.run: stages[step.run].part("settings") for step in chain}
    arch = next((s["arch"] for step in reversed(chain) if (s := settings[step.run]).get("arch")), "")
    classifiers = [settings[step.run] for step in chain if step.kind in _CLASSIFIERS]
    facts = _training_facts(classifiers) | _detector_facts([(step.kind, settings[step.run]) for step in chain])
    pruning = [step.run for step in chain if step.kind in _PRUNING]
    if not pruning:
        return PrunedBy(arch=arch, facts=facts)
    last = settings[pruning[-1]]  # guided designs prune the networks that they follow first
    method, selection = last.get("method", ""), last.get("selection") or {}
    facts |= {f"prune.{key}": value for key, value in {**last, **selection}.items() if key not in _NETWORK}
    # its keys now stand by themselves, as in a config
    facts.pop("prune.selection", None)
    ratios = tuple(selection.get("ratio") or ())
    if selection.get("target_macs") or selection.get("target_params"):  # the ratio stands for nothing then
        ratios = ()
        del facts["prune.ratio"]
    else:
        facts["prune.ratio"] = ratios[0] if len(ratios) == 1 else ratios
    if method in METHODS and METHODS[method].follows_patterns:
        facts["guide"] = _guide(classifiers, last)
    # masks say it of any method: some remove channels or single weights, as their options ask
    kind = _kind(method, selection, masks=RunDir(runs / pruning[-1]).masks.is_file())
    return PrunedBy(method, kind, last.get("target") or "", arch, ratios, facts)


def _training_facts(trainings: list[Json]) -> dict[str, object]:
    """Of the last network: how it was trained, and how fine-tuned; those of networks that a design follows are left."""
    facts: dict[str, object] = {}
    # from the last one back: what it says is not overwritten (`setdefault`)
    for settings in reversed(trainings):
        found, regime = {key: settings.get(key) for key in _NETWORK}, settings.get("regime")
        # as text, here and below: that there was none is a fact too, "null", where None would be left out at the end
        if regime in RETRAINING:
            found |= {"retrain": regime, "distill": canonical(settings.get("distill"))}
        elif regime in REGIMES and REGIMES[regime].same_compute:
            found["scratch_b_cap"] = canonical(settings.get("cap"))
        elif regime == BASE:
            found["weights"] = canonical((settings.get("weights") or {}).get("sha256"))
        # under keys of its own, so that it does not hide how the dense network before it was trained
        section = "fine_tune" if regime in RETRAINING else "train"
        found |= {f"{section}.{key}": value for key, value in (settings.get("train") or {}).items()}
        for key, value in found.items():
            facts.setdefault(f"classifier.{key}", value)
    return {key: value for key, value in facts.items() if value is not None}


def _detector_facts(chain: Sequence[tuple[str, Json]]) -> dict[str, object]:
    """Of the last detector, its model and its trainings, from kinds and settings of a chain.

    What a route changes of a config by itself has a name of its own, so that it sets no two routes apart.
    """
    facts: dict[str, object] = {}
    kinds = [kind for kind, _ in chain]
    for place in reversed(range(len(chain))):
        (kind, settings), before = chain[place], chain[place - 1] if place else ("", {})
        if kind != "train_detector":
            continue
        scratch, after = settings.get("init") == "random", before[0] == "prune_detector"
        # a training with a pruning inside the detector still ahead ends where that begins
        cut_short = not after and "prune_detector" in kinds[place:]
        section = "fine_tune" if after else "train"
        training = {f"{section}.{key}": value for key, value in (settings.get("train") or {}).items()}
        if cut_short:  # by prune_at
            training["iterations before pruning"] = training.pop("train.iterations", None)
        found = {"dataset": settings.get("data"), "from_scratch" if scratch else "model": settings.get("model")}
        if after:
            found["retrain"] = settings.get("retrain") or FINE_TUNE
        if not scratch and (before[0] in _PRUNING or before[1].get("regime") in RETRAINING):
            found["distill"] = canonical(settings.get("distill"))
        if not cut_short:
            found["budget"] = canonical(settings.get("budget"))
        for key, value in {**found, **training}.items():
            facts.setdefault(f"detector.{key}", value)
    return {key: value for key, value in facts.items() if value is not None}


def _guide(trainings: Sequence[Mapping[str, object]], design: Mapping[str, object]) -> str:
    """Whether a design follows networks of its own architecture and data, others, or a file that does not say."""
    if design.get("files"):
        return "file"
    # guides are trained before the network that follows them, and the design says which network it makes
    guide, own = ({key: each.get(key) for key in _NETWORK} for each in (trainings[0], design))
    return "own" if canonical(guide) == canonical(own) else "other"


def _kind(method: str, selection: Mapping[str, object], *, masks: bool) -> str:
    if masks:
        return UNSTRUCTURED
    if method not in METHODS:
        return ""
    by_layer = selection.get("level", "layer") == "layer"
    return PREDEFINED if METHODS[method].predefined and by_layer else AUTOMATIC
