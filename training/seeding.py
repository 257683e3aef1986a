"""Random generators seeded by position, so that a resumed training draws what an uninterrupted one does."""

import random

import numpy as np
import torch


def seed_generators(seed: int, *position: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from the seed and a position: a step, say."""
    for_python, for_numpy, for_torch = np.random.SeedSequence([seed, *position]).generate_state(3)
    random.seed(int(for_python))
    np.random.seed(for_numpy)
    # torch.manual_seed also queues a call, with a stack trace, for every GPU that is not in use: a millisecond each
    torch.default_generator.manual_seed(int(for_torch))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(for_torch))
