"""One stage alone: what `tools/train_cls.py` and `tools/train_det.py` call."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classify.distributed import launched_processes
from study.builder import StageBuilder
from study.config import ClassifyConfig, DetectConfig
from study.detector_sections import Detector
from study.execute import Outcome, run_stages
from study.load import load_config
from study.run import check_detection_data, check_writable
from study.sections import Classifier, Evaluation, Pruning
from study.stages import Stage, load_stage
from study.together import run_together


@dataclass(frozen=True)
class _Sections:
    """The sections that a single stage needs; the others are not asked for."""

    classifier: Classifier = None  # type: ignore[assignment]
    detector: Detector = None  # type: ignore[assignment]
    prune: Pruning = field(default_factory=Pruning)
    evaluate: Evaluation = field(default_factory=Evaluation)
    guide: None = None

    def guided_classifier(self) -> Classifier:
        return self.classifier


def train_classifier_alone(
    path: Path, overrides: list[str], *, pruned: Path | None, runs: Path
) -> tuple[Path, Outcome] | None:
    """Train the classifier of a config, or train the pruned architecture in run directory `pruned` by its regime.

    Of the processes that torchrun started all train it, and all but the first return None.
    """
    config = load_config(ClassifyConfig, path, overrides)
    builder = StageBuilder(_Sections(classifier=config.classifier), config.seed)
    if (config.regime == "base") != (pruned is None):
        need = (
            "starts from nothing; leave out --pruned" if pruned else "starts from a pruned network; give --pruned RUN"
        )
        raise ValueError(f"{path}: regime {config.regime!r} {need}")
    stage = builder.train_pruned(config.regime, load_stage(pruned), {}) if pruned else builder.classify(None, {})
    if launched_processes() > 1:
        return run_together(stage, config.machine, runs, lambda machine: _run([stage], machine, runs))
    return _run([stage], config.machine, runs)


def train_detector_alone(path: Path, overrides: list[str], *, backbone: Path, runs: Path) -> tuple[Path, Outcome]:
    """Train and evaluate a detector around the network in run directory `backbone`."""
    config = load_config(DetectConfig, path, overrides)
    builder = StageBuilder(_Sections(detector=config.detector, evaluate=config.evaluate), config.seed)
    parent = load_stage(backbone)
    if config.init == "inherited" and parent.kind == "prune" and not parent.parents:
        raise ValueError(f"{backbone}: this network was never trained; use init: random")
    phase = "from_scratch" if config.init == "random" else "train"
    trained = builder.detect(parent, {}, phase, parent.kind)
    return _run([trained, builder.evaluate(trained)], config.machine, runs)


def _run(stages: list[Stage], machine: Any, runs: Path) -> tuple[Path, Outcome]:
    check_writable(runs)
    check_detection_data(stages, runs)
    names = {s.id: f"{s.kind} (seed {s.seed})" for s in stages}
    outcome = run_stages(stages, names, runs, machine)
    return stages[-1].run(runs).path, outcome
