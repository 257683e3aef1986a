"""What the study's released code was given and made of it, in vectors/: kept indices, masks' sums, logits."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

VECTORS = Path(__file__).parent / "vectors"


def load_vector(name):
    """What the released code was given and what it made of it; tensors stand under their dotted names.

    Masks are SHA-256 sums over their bits, packed. The input is `fixed_input` where none is named.
    """
    vector = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    for key, tensor in load_file(VECTORS / f"{name}.safetensors").items():
        _put(vector, key.split(".", 1), tensor)
    return vector


def _put(into, path, tensor):
    name, rest = path[0], path[1:]
    if not rest:
        into[name] = tensor
    elif name == "runs":  # runs.<number>.<name>
        number, key = rest[0].split(".")
        into["runs"][int(number)][key] = tensor
    else:  # buffers by their own dotted names
        into.setdefault(name, {})[rest[0]] = tensor


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
