"""One step of a Detectron2 detector, as a project of a user's own would take it."""

import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage


def loss_step(detector):
    """The training loss of one image of 64 x 64 with one box and its mask, and its gradients."""
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 8:40, 8:40] = True
    objects = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]])), gt_classes=torch.tensor([3]))
    objects.gt_masks = BitMasks(mask)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with EventStorage():
        loss = sum(detector.train()([{"image": image, "instances": objects}]).values())
    loss.backward()
    return loss.detach()
