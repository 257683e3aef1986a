"""What every analysis works on: the routes of a comparison, the files of its runs, and its topic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from classify.models import build
from pruning.cost import map_areas
from study.plan.named import Look
from study.report.artifacts import RunFiles
from study.report.routes import RouteResults, distinct_names, group_routes, looks
from study.report.rows import Comparison, StageResult
from study.report.topic import Topic, topic_of
from training.files import canonical


@dataclass(frozen=True)
class Material:
    """`stages` by run, `looks` by pipeline name."""

    topic: Topic
    routes: list[RouteResults]
    looks: Mapping[str, Look]
    files: RunFiles
    stages: Mapping[str, StageResult]

    @classmethod
    def of(cls, comparison: Comparison, runs: Path) -> Material:
        """What a comparison has."""
        routes = group_routes(comparison.rows, comparison.missing)
        return cls(topic_of(comparison), routes, looks(distinct_names(routes)), RunFiles(runs), comparison.stages)

    def named(self, name: str) -> list[RouteResults]:
        """The routes of a pipeline that have a result, at all their grid points."""
        return [r for r in self.routes if r.name == name and r.mean(self.topic.primary.key) is not None]

    def areas(self, run: str) -> dict[str, int]:
        """Output pixels of each layer of the dense network behind a run; empty where it is not recorded."""
        network = self.stages[run].part("network")
        plan = self.files.plan(run)
        if plan is None or "image_size" not in network:
            return {}
        return _areas(
            plan.arch, canonical(plan.options), network["num_classes"], len(network["mean"]), network["image_size"]
        )


@lru_cache(maxsize=16)
def _areas(arch: str, options: str, classes: int, channels: int, size: int) -> dict[str, int]:
    """`options` as JSON, for which there is a place in a cache whatever their values are."""
    return map_areas(build(arch, classes, json.loads(options)), torch.zeros(1, channels, size, size))
