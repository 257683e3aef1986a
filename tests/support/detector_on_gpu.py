"""A detector on the pretended GPU, as the tests there and their faults run it."""

import linecache

import torch
from detectron2.utils.events import EventStorage
from torchvision.models.resnet import BasicBlock, ResNet

from classify.optimizers import fused_sgd
from detect.build import build_detector
from detect.data.loader import train_loader
from detect.distillation import Teacher
from detect.settings import Distillation
from detect.train import DetectorTrainer
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from support.pretended_gpu import OURS, ROOT, OnGpu, pretended_gpu
from support.tiny_detector import SMALL, settings, two_squares
from support.told import altered
from training.layout import channels_last

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
ONE_STAGE = {
    "head": "retinanet", "strides": (8, 16, 32), "anchor_sizes": None, "rpn_batch_size": None, "roi_batch_size": None,
    "pre_nms_topk": None, "train_proposals": None, "test_proposals": None, "box_head_dim": None,
}  # fmt: skip


def classifier():
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)


def detector_on(device, **changes):
    return build_detector(classifier(), altered(SMALL, **changes), num_classes=2, device=device)


def _allowed(kind, line):
    """Detectron2 waits in lines of its own and in the gradients of its indexing; RetinaNet's losses need a number."""
    file, _, number = line.rpartition(":")
    in_gradients = ".backward()" in linecache.getline(str(ROOT / file), int(number))
    return not line.startswith(OURS) or (kind == "look" and (in_gradients or file == "detect/one_stage.py"))


def steps_without_waiting(folder, precision="float32", *, distilled=False, **changes):
    """AssertionError if the CPU waits for the GPU in a line of ours, or copies anything where it waits."""
    dataset, dtype = two_squares(folder), DTYPES[precision]
    with pretended_gpu() as gpu:
        detector, cfg = detector_on("cuda", **changes)
        teacher = Teacher(detector_on("cuda", **changes)[0], Distillation(logits=0.0)) if distilled else None
        name, weight = next(iter(detector.backbone.bottom_up.body.named_parameters()))
        effect = HoldMasks(detector.backbone.bottom_up.body, Masks({name: torch.ones(weight.shape).bool()}))
        told = settings(report_every=100)
        with channels_last(detector, dtype=dtype), EventStorage():
            optimizer = fused_sgd(list(detector.train().parameters()), 0.01, 0.9)
            trainer = DetectorTrainer(detector, optimizer, told["settings"], told["run"], dtype, teacher)
            trainer.data_loader = train_loader(dataset, cfg, batch_size=2, seed=0)
            trainer.max_iter = 100
            trainer.after_backward = effect.after_backward
            for trainer.iter in range(2):
                if trainer.iter:
                    with gpu.no_waits(_allowed):
                        trainer.run_step()
                else:
                    trainer.run_step()
                effect.after_step(0.01)
            trainer.iter += 1
            trainer.settle()
        assert all(isinstance(p, OnGpu) for p in detector.parameters()) and trainer.last_loss > 0
