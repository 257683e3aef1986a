"""What is known of published weights without reading them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """`name`: with the tag that a default stands for. `mean`, `std`: of the network's input, RGB in 0..1.

    `image_size`: side in pixels of the images they were trained for. `num_classes`: of their head. `how`: what gets
    them, for a person who has not got them.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    num_classes: int
    how: str
