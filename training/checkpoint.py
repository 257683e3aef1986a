"""The state of an unfinished training: the last two checkpoints, each whole or not there; snapshots of a network.

A checkpoint ends with the SHA-256 of what is before it: PyTorch checks no sums when it reads one. The one before the
last is kept beside it as `<name>.previous.<suffix>` and used where the last is damaged.
"""

import hashlib
import io
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pruning.errors import Refusal
from training.distributed import any_process, is_main
from training.files import put_in_place, write_beside, write_bytes

_MOST_NAMES = 3
_DIGEST_BYTES = hashlib.sha256().digest_size
State = dict[str, Any]
"""What a checkpoint holds of a training, by name: tensors, and numbers, texts and plain containers of them."""
_log = logging.getLogger(__name__)


@dataclass
class CheckpointClock:
    """Says when a checkpoint is due: so many `minutes` after the last one or the start; 0: after each step."""

    minutes: float

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A checkpoint is written: the time begins anew."""
        self._since = monotonic()

    def due(self, device: str) -> bool:
        """Is it time to save? All processes of a training ask, and get the answer of the main one's clock."""
        return any_process(is_main() and monotonic() - self._since >= 60 * self.minutes, device)


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def damaged_checkpoint(path: Path) -> Path:
    """Where a checkpoint that cannot be read is put aside."""
    return path.with_name(f"{path.stem}.damaged{path.suffix}")


def save_checkpoint(path: Path, state: State) -> None:
    """Write tensors and plain containers; the checkpoint that was at `path` becomes the previous one.

    At any moment there is a whole checkpoint. OSError names `path` if the disk is full, say; then the last one is
    there, or the previous one.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    temporary = write_beside(path, data, hashlib.sha256(data).digest())
    put_in_place(temporary, path, keep_as=previous_checkpoint(path))


def save_snapshot(path: Path, model: nn.Module) -> None:
    """Write all tensors of a network, parameters and buffers, as safetensors; the file is whole or not there."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(state))


def last_checkpoint(path: Path, *, required: Collection[str], device: str = "cpu") -> State | None:
    """The state in the newest whole checkpoint, of those at `path` and before it; None if there is none.

    One that is damaged is put aside, and the log says so and what follows from it.
    """
    previous = previous_checkpoint(path)
    damaged = False
    for candidate in (path, previous):
        if not candidate.is_file():
            continue
        try:
            state = load_checkpoint(candidate, required=required, device=device)
        except ValueError as error:
            damaged = True
            with suppress(FileNotFoundError):  # another process of this training did it
                candidate.replace(damaged_checkpoint(candidate))
            _log.warning("%s", error)
            continue
        _log.info("going on from %s", candidate)
        return state
    if damaged:
        _log.warning("%s: no earlier checkpoint is whole either; the training starts over", path)
    else:
        _log.info("%s: not there yet; the training begins", path)
    return None


def training_to_continue(
    path: Path,
    *,
    required: Collection[str],
    identity: Mapping[str, int | str],
    settings: Mapping[str, object],
    device: str,
) -> State | None:
    """The state of `last_checkpoint`, whose training must agree with `identity` and `settings`: ValueError otherwise.

    `settings`: those that are not the default. A checkpoint from before they were kept in it has none to compare.
    """
    state = last_checkpoint(path, required=(*required, *identity), device=device)
    for key, value in identity.items():
        if state is not None and state[key] != value:
            raise Refusal(f"{path}: a checkpoint of a training with {key}={state[key]}, not {value}")
    theirs = settings if state is None else state.get("settings", settings)
    odd = [key for key in {**theirs, **settings} if theirs.get(key) != settings.get(key)]
    if odd:
        was, asked = (
            ", ".join(f"{key}={found[key]}" if key in found else f"{key} by default" for key in odd)
            for found in (theirs, settings)
        )
        raise Refusal(
            f"{path}: a checkpoint of a training with {was}, not {asked}; ask for the same to go on with it, or delete"
            " it to train from the start"
        )
    return state


def load_checkpoint(path: Path, *, required: Collection[str], device: str = "cpu") -> State:
    """Read a checkpoint that has the `required` keys; ValueError in one sentence if it is damaged or something else."""
    data = path.read_bytes()
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise Refusal(f"{path}: not a whole checkpoint: its checksum is wrong, so it was cut off or changed")
    try:
        state = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises many types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"{path}: not a readable checkpoint ({reason})") from error
    missing = set(required) - set(state if isinstance(state, dict) else ())
    if missing:
        raise Refusal(f"{path}: a checkpoint has {', '.join(sorted(missing))}, this file has not")
    return state


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoint at `path`, the one before it and what was put aside: of a training that is done."""
    for file in (path, previous_checkpoint(path)):
        file.unlink(missing_ok=True)
        damaged_checkpoint(file).unlink(missing_ok=True)


def check_same_network(path: Path, model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """ValueError unless the tensors `saved` in the checkpoint at `path` have the names and shapes of the model's."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    odd = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if odd:
        of = [f"{name} is {theirs.get(name, 'missing')} there, {ours.get(name, 'missing')} here" for name in odd]
        more = f" and {len(odd) - _MOST_NAMES} more" if len(odd) > _MOST_NAMES else ""
        raise Refusal(
            f"{path}: a checkpoint of another architecture: {'; '.join(of[:_MOST_NAMES])}{more};"
            " delete it to train from the start"
        )
