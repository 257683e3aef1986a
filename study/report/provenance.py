"""Where the numbers come from (versions, devices, precisions, code, data), and what makes them less comparable."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from study.report.kept_iterations import kept_iterations
from study.report.rates import rates_warnings
from study.report.rows import Comparison, Json, StageResult
from study.stages.progress import time_in_words
from study.stages.store import WrittenResult
from training.device import Precision

_AND = " and "
_SHOWN_REASONS, _SHOWN_LAYERS = 3, 3
_OFF = 0.01  # of the dense network's cost


@dataclass(frozen=True)
class Provenance:
    """The distinct versions, devices, precisions and commits of all stages, each in order of appearance.

    `command`: what runs the study again. `date`: when the first of its stages began and the last one ended; empty where
    none says. `time`: what they took, one after the other. `latency`: where and when that was measured.
    """

    command: str
    date: str
    time: str
    versions: list[str]
    device: list[str]
    precision: list[str]
    commit: list[str]
    latency: list[str]


def provenance(comparison: Comparison) -> Provenance:
    """What the results of all stages record of it."""
    results, timed = comparison.stages.values(), comparison.timed
    seconds = sum(float(s.result.get("seconds") or 0) for s in results)
    return Provenance(
        command=shlex.join(["prune-transfer", "run", comparison.config_file, *comparison.overrides]),
        date=_date([s.result for s in results]),
        time=f"{time_in_words(seconds)} for {len(results)} stages, one after the other",
        versions=_distinct(", ".join(f"{k} {v}" for k, v in sorted(s.part("versions").items())) for s in results),
        device=_distinct(_words(s.part("device")) for s in results),
        precision=_distinct(_chosen(s.precision) for s in results if s.precision),
        commit=_distinct(_commit(s.part("git")) for s in results),
        latency=[f"{timed.date}, {_words(timed.device)} ({timed.run})"] if timed else [],
    )


def _date(results: Sequence[WrittenResult]) -> str:
    """ "2026-11-26 17:18 to 17:25 UTC": of the stages that say when they ran, and how many do not."""
    told = [result for result in results if "started" in result and "finished" in result]
    if not told:
        return ""
    first = min(datetime.fromisoformat(result["started"]) for result in told)
    last = max(datetime.fromisoformat(result["finished"]) for result in told)
    end = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
    untold = len(results) - len(told)
    more = f", {untold} of {len(results)} stages do not say when they ran" if untold else ""
    return f"{first:%Y-%m-%d %H:%M} to {end} UTC{more}"


def _words(device: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in device.items())


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word))


def _commit(git: Json) -> str:
    return f"{git['commit']}{' (with uncommitted changes)' if git.get('dirty') else ''}" if git.get("commit") else ""


def _chosen(precision: Precision) -> str:
    """How a precision came to be chosen: "bfloat16 (auto, by measuring; bfloat16 measured 1.85 times as fast ...)"."""
    if precision.asked != "auto":
        return f"{precision.words} (as asked)"
    speedup = precision.bfloat16_speedup
    measured = f"; bfloat16 measured {speedup:.2f} times as fast as float32" if speedup is not None else ""
    return f"{precision.words} (auto, by {precision.by}{measured})"


def precision_of(stages: Iterable[StageResult]) -> str:
    """The precisions of trainings, each once: "float32", or "float32 and bfloat16"; empty if none trained."""
    return _AND.join(_distinct(stage.precision.words for stage in stages if stage.precision))


def warnings(comparison: Comparison) -> list[str]:
    """What makes the rows less comparable: mixed versions, devices, precisions or data, a dirty tree, absent seeds."""
    stages = comparison.stages.values()
    seen = provenance(comparison)
    mixable = {"sets of versions": seen.versions, "devices": seen.device, "states of the code": seen.commit}
    messages = [
        f"The stages ran with {len(found)} different {name}: {'; '.join(found)}."
        for name, found in mixable.items()
        if len(found) > 1
    ]
    if dirty := sum(bool(stage.part("git").get("dirty")) for stage in stages):
        messages.append(
            f"{dirty} of {len(stages)} stages ran on code with uncommitted changes: "
            "their commit does not identify what was run."
        )
    messages += _precisions(comparison)
    messages += _processes(stages)
    messages += _changed_data(stages)
    for key, name in (("data", "Data"), ("given_weights", "Given weights")):
        notes = (note for stage in stages for note in stage.part(key).get("notes") or ())
        messages += [f"{name}: {note}" for note in dict.fromkeys(notes)]
    messages += _out_of_reach(stages)
    messages += _off_target(stages)
    messages += rates_warnings(comparison.tuning)
    messages += kept_iterations(comparison)
    messages += comparison.gaps
    if count := len(comparison.missing):
        messages.append(f"{count} {'run is' if count == 1 else 'runs are'} missing: see “What is missing”.")
    return messages


def _precisions(comparison: Comparison) -> list[str]:
    """Rows of different precisions, and trainings in another one than the study asks for."""
    messages = []
    rows: dict[str, dict[str, None]] = {}
    for row in comparison.rows:
        if row.precision:
            rows.setdefault(row.precision, {})[row.pipeline] = None
    if len(rows) > 1 or any(_AND in precision for precision in rows):
        mixed = "; ".join(f"{precision}: {', '.join(routes)}" for precision, routes in rows.items())
        messages.append(f"The rows mix precisions, so that not the routes alone differ: {mixed}.")
    asked = comparison.config.get("machine", {}).get("precision", "auto")
    names = [stage.precision.name for stage in comparison.stages.values() if stage.precision]
    others = [name for name in names if name != asked]
    if asked != "auto" and others:
        messages.append(
            f"machine.precision asks for {asked}, and {len(others)} of {len(names)} trainings were made in "
            f"{_AND.join(_distinct(others))} by an earlier run: remove their run directories to train them again."
        )
    return messages


def _processes(stages: Iterable[StageResult]) -> Iterator[str]:
    """A sentence for trainings of one kind of which some ran in other numbers of processes."""
    found: dict[str, Counter[int]] = {}
    for stage in stages:
        if stage.kind.startswith("train_"):
            processes = stage.result.get("processes")  # absent where there was one
            found.setdefault(stage.kind, Counter())[processes if isinstance(processes, int) else 1] += 1
    for kind, counts in found.items():
        if len(counts) > 1:
            numbers = ", ".join(f"{counts[number]} in {number}" for number in sorted(counts))
            yield (
                f"The trainings of kind {kind} ran in different numbers of processes ({numbers}): their batches are"
                " drawn, and normalised, otherwise."
            )


def _changed_data(stages: Iterable[StageResult]) -> list[str]:
    """A sentence for each data set, of the same name and options, that was not the same data in all stages."""
    found: dict[str, set[str]] = {}
    kinds = {}
    for stage in stages:
        settings, fingerprint = stage.part("settings"), stage.part("data").get("fingerprint")
        data = settings.get("dataset") or settings.get("data")
        if data and fingerprint:
            # trainings and evaluations read different splits, whose fingerprints differ in any case
            asked = json.dumps([stage.kind, settings.get("split"), data], sort_keys=True)
            kinds[asked] = stage.kind
            found.setdefault(asked, set()).add(fingerprint)
    return [
        f"The stages of kind {kinds[asked]} ran on {len(prints)} different contents of one data set: "
        "its files changed between them."
        for asked, prints in found.items()
        if len(prints) > 1
    ]


def _out_of_reach(stages: Iterable[StageResult]) -> list[str]:
    """A sentence for each way in which a pruning left channels of its scope whole, whatever the seed."""
    found = []
    for stage in stages:
        achieved, settings = stage.part("achieved"), stage.part("settings")
        if beyond := achieved.get("beyond"):
            method, unit = settings.get("method") or settings.get("target") or "pruning", achieved["unit"]
            of_asked = f" of {achieved['asked']:,} asked" if achieved["asked"] is not None else ""
            reasons = [_reason(item, unit) for item in beyond[:_SHOWN_REASONS]]
            if len(beyond) > _SHOWN_REASONS:
                reasons.append(f"{len(beyond) - _SHOWN_REASONS} more reasons are in the result")
            removed = f"{method} removed {achieved['removed']:,}{of_asked} {unit}"
            found.append(f"{removed}; out of its reach: {'; '.join(reasons)}.")
    return _distinct(found)


def _off_target(stages: Iterable[StageResult]) -> list[str]:
    """A sentence for each pruning that whole channels kept from the cost that was asked for, whatever the seed."""
    words = {"macs": "multiply-adds", "params": "parameters"}
    found = []
    for stage in stages:
        reached = stage.part("achieved").get("reached")
        if reached and abs(reached["left"] - reached["asked"]) > _OFF:
            asked, left = (f"{100 * reached[key]:.1f} %" for key in ("asked", "left"))
            method = stage.part("settings").get("method")
            found.append(f"{method} was to leave {asked} of the {words[reached['quantity']]} and leaves {left}.")
    return _distinct(found)


def _reason(beyond: Json, unit: str) -> str:
    layers = beyond["layers"]
    shown = ", ".join(layers[:_SHOWN_LAYERS]) + (", ..." if len(layers) > _SHOWN_LAYERS else "")
    count = f"{len(layers)} layer{'' if len(layers) == 1 else 's'}"
    return f"{beyond['channels']:,} {unit} of {count} ({shown}): {beyond['why']}"
