"""One stage alone: what `prune-transfer train-cls` and `prune-transfer train-det` call."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from classify.regimes import BASE, get_regime
from detect.budgets import BUDGETS
from pruning.errors import Refusal
from study.config.load import load_config
from study.config.schema import ClassifyConfig, DetectConfig
from study.config.sections import Classifier, Machine
from study.plan.checks import check_detection_data, check_scored, check_writable
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.sections import GivenSections
from study.plan.steps import StageBuilder
from study.run.executors import check_executor
from study.run.launch import finish, launch
from study.run.scheduler import Outcome, run_stages
from study.run.together import run_here
from study.stages.contents import Contents, check_there
from study.stages.data import classification_info
from study.stages.network import Network
from study.stages.settings import TrainClassifier
from study.stages.stage import Stage, Task, device_of, load_stage
from training.device import set_threads
from training.distributed import any_process, is_main, launched_processes, process_group

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from detect.processes import Processes

Result = TypeVar("Result")


def run_together(stage: Stage, machine: Machine, runs: Path, run: Callable[[Machine], Result]) -> Result | None:
    """As `share_stage`, of a classifier, in the processes that torchrun started."""
    machine = share_of(machine, int(os.environ["LOCAL_WORLD_SIZE"]))
    with process_group(device_of(machine)):
        return share_stage(stage, machine, runs, run)


def share_of(machine: Machine, processes: int) -> Machine:
    """What each of so many processes on this machine has of it.

    Unless the machine section says how many threads, they share its cores. The stage runs here, whatever the executor.
    """
    # the number is written down, so that the executor, which sets threads for one job, comes to the same share
    set_threads(machine.threads, jobs=processes)
    here = {"jobs": 1, "executor": "local", "threads": torch.get_num_threads(), "gpus_per_stage": 1}
    return machine.model_copy(update=here)


def share_stage(stage: Stage, machine: Machine, runs: Path, run: Callable[[Machine], Result]) -> Result | None:
    """The main process calls `run(machine)`, which writes the run directory; the others compute with it, and get None.

    All wait for the main process to come, so that what it wrote before can be read.
    """
    # All must take the same branch, or some would wait in a collective operation for ever: whether the run is done is
    # asked of one and told to all. The main process goes through `run` in either case, which reports what is there.
    device = device_of(machine)
    done = any_process(is_main() and stage.run(runs).done, device)
    if is_main():
        return run(machine)
    if not done:
        run_here(Task(stage, "", runs, machine), None)  # the main process reports
    return None


def train_classifier_alone(
    path: Path, overrides: list[str], *, pruned: Path | None, runs: Path
) -> tuple[Path, Outcome] | None:
    """Train the classifier of a config, or train the pruned architecture in run directory `pruned` by its regime.

    Of the processes that torchrun started all train it, and all but the first return None.
    """
    config = load_config(ClassifyConfig, path, overrides)
    builder = StageBuilder(
        GivenSections(classifier=config.classifier, machine=config.machine),
        config.seed,
        contents=Contents(runs, fetch=True),
        alone=True,
    )
    if (config.regime == BASE) != (pruned is None):
        need = (
            "starts from nothing; leave out --pruned" if pruned else "starts from a pruned network; give --pruned RUN"
        )
        raise Refusal(f"{path}: regime {config.regime!r} {need}")
    if pruned:
        parent = _parent(pruned, runs)
        stage = builder.train_pruned(config.regime, parent, {})
        _check_input(config.classifier, parent, stage, runs, config.machine)
    else:
        stage = builder.classify(None, {})
    if launched_processes() > 1:
        return run_together(stage, config.machine, runs, partial(_run, [stage], runs, path=path, overrides=overrides))
    return _run([stage], runs, config.machine, path, overrides)


def _check_input(classifier: Classifier, pruned: Stage, stage: Stage, runs: Path, machine: Machine) -> None:
    """ValueError where the config is of another network than the pruned one, which alone is trained.

    Of another architecture, for other images or classes, from other weights, or with another normalisation.
    """
    # A regime that inherits weights takes them from the pruned run. Weights in the config are then only a statement of
    # where they come from, which must be true; scratch regimes read nothing of the file but its normalisation.
    origins = [s.settings["weights"]["sha256"] for s in pruned.with_ancestors() if "weights" in s.settings]
    given, inherits = classifier.weights, get_regime(stage.read(TrainClassifier).regime).init == "inherited"
    if given is not None and inherits and Contents().weights(given, classifier.arch)["sha256"] not in origins:
        raise Refusal(
            f"classifier.weights {given}: {pruned.id} was not pruned from these weights, and this training goes on from"
            " its own; leave the key out"
        )
    found, network = stage.read(TrainClassifier).normalization, Network.load(pruned.run(runs))
    _check_network(stage.read(TrainClassifier), network, pruned, runs, machine)
    if found is not None and (found.mean, found.std) != (network.mean, network.std):
        raise Refusal(
            f"the normalisation {found.source} (mean {list(found.mean)}, std {list(found.std)}) is not that of"
            f" {pruned.id} (mean {list(network.mean)}, std {list(network.std)}), which a pruned network keeps; set"
            " classifier.normalization to these"
        )


def _check_network(asked: TrainClassifier, network: Network, pruned: Stage, runs: Path, machine: Machine) -> None:
    of = network.plan.arch, dict(network.plan.options)
    if (asked.arch, asked.arch_options) != of:
        raise Refusal(
            f"classifier.arch {asked.arch!r} with options {asked.arch_options}: {pruned.id} is a pruned {of[0]!r} with"
            f" options {of[1]}, and this is what would be trained; name the same in the config"
        )
    data = classification_info(asked.dataset, machine, runs)
    there, wanted = (data.shape[-1], data.num_classes), (network.image_size, network.num_classes)
    if there != wanted:
        raise Refusal(
            f"classifier.dataset {asked.dataset['name']!r} has images of {there[0]} pixels in {there[1]} classes,"
            f" {pruned.id} is for {wanted[0]} pixels and {wanted[1]} classes"
        )


def train_detector_alone(path: Path, overrides: list[str], *, backbone: Path, runs: Path) -> tuple[Path, Outcome]:
    """Train and evaluate a detector around the network in run directory `backbone`."""
    if launched_processes() > 1:
        raise Refusal("torchrun starts a classifier's processes; a detector's are started by --num-gpus")
    config, stages = _detector_stages(path, overrides, backbone, runs)
    return _run(stages, runs, config.machine, path, overrides)


def train_detector_together(
    path: Path, overrides: list[str], *, backbone: Path, runs: Path, processes: "Processes"
) -> int:
    """As `train_detector_alone`, in several processes; the main one says what came of it. Returns the exit code."""
    from detect.processes import run_in_processes

    config, stages = _detector_stages(path, overrides, backbone, runs)
    processes.check(device_of(config.machine))
    # once, before the processes are there: they would all read the data and say the same
    if processes.machine_rank == 0:
        _check(stages, runs, config.machine, path, overrides)
    return run_in_processes(_train_with_others, (path, overrides, backbone, runs, processes.num_gpus), processes)


def evaluate_detector_alone(path: Path, overrides: list[str], *, run: Path, runs: Path) -> tuple[Path, Outcome]:
    """Score the detector of the finished `run` on the test images of a config's data set, whatever it was trained on.

    Of the config, `detector.dataset`, `evaluate` and `machine` are read.
    """
    from study.stages.detector import finished_detector  # Detectron2, which classification works without

    config = load_config(DetectConfig, path, overrides)
    detector, classes = finished_detector(run)
    _check_place(run, runs)
    sections = GivenSections(detector=config.detector, evaluate=config.evaluate, machine=config.machine)
    stage = StageBuilder(sections, detector.seed, contents=Contents(runs, fetch=True)).evaluate(detector)
    stage = replace(stage, settings={**stage.settings, "classes": list(classes)})
    check_executor(config.machine)
    check_writable(runs)
    for untold in check_scored(stage, runs):
        print(f"note: {untold}", file=sys.stderr)
    return _run_checked([stage], runs, config.machine)


def _train_with_others(path: Path, overrides: list[str], backbone: Path, runs: Path, on_this_machine: int) -> None:
    """What each of the processes does."""

    def work() -> int:
        config, stages = _detector_stages(path, overrides, backbone, runs)
        machine = share_of(config.machine, on_this_machine)
        outcome = Outcome()
        for stage in stages:
            ours = share_stage(stage, machine, runs, partial(_run_checked, [stage], runs))
            outcome = ours[1] if ours else outcome
            if not outcome.complete:
                break
        return finish(stages[-1].run(runs).path, outcome) if is_main() else 0

    code = launch(work)
    if code:
        sys.exit(code)


def _detector_stages(path: Path, overrides: list[str], backbone: Path, runs: Path) -> tuple[DetectConfig, list[Stage]]:
    """The config, its training stage and its evaluation."""
    config = load_config(DetectConfig, path, overrides)
    if BUDGETS[config.detector.budget] is not None:
        raise Refusal(
            f"detector.budget: {config.detector.budget} is what the routes of a study share; a detector alone trains"
            " for detector.train.iterations"
        )
    sections = GivenSections(detector=config.detector, evaluate=config.evaluate, machine=config.machine)
    builder = StageBuilder(sections, config.seed, contents=Contents(runs, fetch=True), alone=True)
    parent = _parent(backbone, runs)
    if config.init == "inherited" and parent.kind == "prune" and not parent.parents:
        raise Refusal(f"{backbone}: this network was never trained; use init: random")
    phase = "from_scratch" if config.init == "random" else "train"
    trained = builder.detect(parent, {}, phase, parent.kind)
    return config, [trained, builder.evaluate(trained)]


def _parent(run: Path, runs: Path) -> Stage:
    """The stage of a finished run directory, which must be in the folder that the new one will be in."""
    stage = load_stage(run)
    _check_place(run, runs)
    return stage


def _check_place(run: Path, runs: Path) -> None:
    # stages name their parents by their place below one folder of runs
    folder = run.resolve().parents[1]
    if folder != runs.resolve():
        raise Refusal(f"{run} is not in the folder of runs {runs}; set --runs to {folder}")


def _run(stages: list[Stage], runs: Path, machine: Machine, path: Path, overrides: list[str]) -> tuple[Path, Outcome]:
    check_executor(machine)
    _check(stages, runs, machine, path, overrides)
    return _run_checked(stages, runs, machine)


def _run_checked(stages: list[Stage], runs: Path, machine: Machine) -> tuple[Path, Outcome]:
    names = {s.id: f"{s.kind} (seed {s.seed})" for s in stages}
    outcome = run_stages(stages, names, runs, machine)
    return stages[-1].run(runs).path, outcome


def _check(stages: list[Stage], runs: Path, machine: Machine, path: Path, overrides: list[str]) -> None:
    check_there(stages)
    check_writable(runs)
    foresee(stages, Estimator(runs, machine), path, overrides)
    check_detection_data(stages, runs)
