"""The demo, as small as it can be: seconds a stage, every kind of stage, numbers without meaning."""

from pathlib import Path

from study.plan.load import load_study

DIGITS = Path(__file__).parents[2] / "configs" / "pipelines" / "digits.yaml"

TINY = [
    "name=tiny",
    "seeds=[0]",
    "classifier.arch=resnet10",
    "classifier.options.width=0.125",
    "classifier.dataset.options={image_size: 32, n_train: 48, n_val: 20, n_test: 20}",
    "classifier.train.epochs=2",
    "classifier.train.batch_size=16",
    "classifier.fine_tune={epochs: 1, lr: 0.004}",
    "detector.dataset.digits={image_size: 64, train: 8, val: 2, test: 4}",
    "detector.dataset.digits.digits_per_scene=[1, 2]",
    "detector.dataset.digits.digit_size=[24, 32]",
    "detector.model.image_size=64",
    "detector.model.max_image_size=64",
    "detector.model.fpn_channels=16",
    "detector.model.box_head_dim=32",
    "detector.model.pre_nms_topk=50",
    "detector.model.train_proposals=20",
    "detector.model.test_proposals=20",
    "detector.train.iterations=4",
    "detector.train.batch_size=2",
    "evaluate={scenes: 1, latency_rounds: 2}",
    "machine.threads=1",
    "machine.checkpoint_minutes=0",
]


def tiny(*overrides: str):
    """The config and routes of the tiny study, with changes."""
    return load_study(DIGITS, [*TINY, *overrides])


ALL = list(tiny()[0].pipelines)
