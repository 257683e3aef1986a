"""Operations that give the same bits each time, where PyTorch has them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic

# cuBLAS needs it, before its first use, to give the same bits each time
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms(wanted: bool | None, device: str) -> Iterator[None]:
    """Within the block PyTorch uses deterministic algorithms, if `wanted`; None: on the CPU yes, elsewhere no.

    On the CPU an operation that has none raises RuntimeError. On a GPU it warns and runs: ROIAlign's gradient, for
    one, has none there.
    """
    on = wanted if wanted is not None else device == "cpu"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if on and device != "cpu":
        os.environ.setdefault(_CUBLAS, ":4096:8")
        logging.getLogger(__name__).info("deterministic on %s: operations without such a form only warn", device)
    try:
        torch.use_deterministic_algorithms(on, warn_only=device != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
