"""Vectors of the study's released code, kept beside the repository; tests that need them skip where they are absent."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
requires_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference data at {REFERENCE}")


def load_facts():
    """Widths, params and MACs of the published networks, and the rules of the released code."""
    return json.loads((REFERENCE / "facts.json").read_text(encoding="utf-8"))


def load_vector(name):
    """What the released code was given and what it made of it."""
    return torch.load(REFERENCE / "vectors" / f"{name}.pt", weights_only=True)


def input_state(vector):
    """The state of the network before pruning, drawn key by key from the vector's seed; checked by its hash."""
    state, drawn = {}, 0
    for key, shape in vector["keys"]:
        if key.endswith("indexes"):
            state[key] = vector.get("selection_indexes", {}).get(key, torch.ones(shape))
            continue
        rng = np.random.RandomState(vector["seed"] * 1000 + drawn)
        drawn += 1
        if key.endswith(("running_mean", "running_var")):
            state[key] = vector["bn_buffers"][key]
        else:
            state[key] = torch.from_numpy(_draw(rng, key, tuple(shape), vector["gamma_range"]).astype(np.float32))
    assert state_hash(state) == vector["input_state_sha256"]
    return state


def _draw(rng, key, shape, gamma_range):
    if len(shape) == 4:  # (out, in, kh, kw)
        return rng.standard_normal(shape) * np.sqrt(2 / (shape[2] * shape[3] * shape[0]))
    if len(shape) == 2:
        return rng.standard_normal(shape) * 0.05
    if key.endswith("weight"):
        return rng.uniform(*gamma_range, shape)
    return rng.standard_normal(shape) * 0.1


def load_state(model, state):
    """Load strictly, except that the released state does not count BatchNorm's batches."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)


def fixed_input(side):
    """The images (2, 3, side, side) on which the logits were recorded."""
    return torch.from_numpy(np.random.RandomState(12345).standard_normal((2, 3, side, side)).astype(np.float32))


def state_hash(state):
    """SHA-256 over the tensors of a state as float32, in order."""
    digest = hashlib.sha256()
    for tensor in state.values():
        digest.update(tensor.detach().contiguous().numpy().astype(np.float32).tobytes())
    return digest.hexdigest()
