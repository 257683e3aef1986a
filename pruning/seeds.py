"""One random stream for each purpose, from the seed of a run."""

import zlib

import torch


def random_stream(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on both, so that one layer's draws do not depend on what else is pruned."""
    # the CPU generator reads the low 32 bits of its seed only, so the two cannot be set side by side in 64
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
