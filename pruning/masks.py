"""Which single weights are left: 0/1 tensors by parameter name, kept apart from the weights themselves.

A mask is data of its own and never read off the zeros of a weight: a weight may pass through zero, and one that was
removed comes back as soon as an optimiser with momentum moves it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pruning.errors import Refusal


class Masks(Mapping[str, Tensor]):
    """Boolean tensors by parameter name, each of its parameter's shape; True where the weight stays.

    A parameter that is not named keeps all its weights. Raises ValueError for values other than 0 and 1.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        for name, tensor in tensors.items():
            if tensor.dtype != torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
                raise Refusal(f"the mask of {name!r} has values other than 0 and 1")
        self._tensors = {name: tensor.detach().bool() for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def kept(self) -> int:
        """Number of weights that stay in the named parameters."""
        return sum(int(mask.sum()) for mask in self.values())

    def density(self) -> float:
        """Kept share of all weights of the named parameters, 0 to 1."""
        return self.kept() / sum(mask.numel() for mask in self.values())

    def densities(self) -> dict[str, float]:
        """Kept share of each named parameter, 0 to 1."""
        return {name: float(mask.double().mean()) for name, mask in self.items()}

    def check_fit(self, model: nn.Module) -> None:
        """ValueError unless `model` has every named parameter in the mask's shape."""
        parameters = dict(model.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise Refusal(f"the masks name {name!r}, which {type(model).__name__} does not have")
            if parameters[name].shape != mask.shape:
                shapes = f"{tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
                raise Refusal(f"the mask of {name!r} has shape {shapes}")

    def apply(self, model: nn.Module) -> None:
        """Set the removed weights of `model` to zero, in place."""
        self.check_fit(model)
        for name, mask in self.items():
            weight = model.get_parameter(name).data
            weight.masked_fill_(~mask.to(weight.device), 0)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return safetensors.torch.save({name: mask.cpu().contiguous() for name, mask in self.items()})

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "masks") -> "Masks":
        """Inverse of `to_bytes`, in the names' alphabetical order; ValueError names `source`."""
        try:
            tensors = safetensors.torch.load(data)
        except safetensors.SafetensorError as error:
            raise Refusal(f"{source}: not a safetensors file ({error})") from error
        # sorted: the file has an order of its own, and what is drawn or ranked over masks must not depend on it
        return cls({name: tensors[name] for name in sorted(tensors)})

    @classmethod
    def load(cls, path: Path) -> "Masks":
        """Read a file of masks."""
        return cls.from_bytes(path.read_bytes(), source=str(path))
