"""A network as a file that runs without this project: TorchScript or ONNX, checked against the network itself."""

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.modes import evaluation_mode

FORMATS: dict[str, str] = {"torchscript": ".pt", "onnx": ".onnx"}
"""Formats and the endings of their files."""

TOLERANCE = 1e-4  # largest difference from PyTorch's output, relative to its largest value
_OPSET = 17  # the newest that PyTorch's tracing exporter writes in full


@dataclass(frozen=True)
class Signature:
    """The input's name and its axes of free size, {0: "batch"}; the outputs' names, each with its first axis's."""

    input: str
    free_axes: Mapping[int, str]
    outputs: Mapping[str, str]


def export(model: nn.Module, example: Tensor, signature: Signature, file_format: str) -> tuple[bytes, float]:
    """The file's content, and the largest relative difference of its outputs from the model's on `example`.

    `model` maps one tensor to a tensor or a tuple of tensors; weights become constants and BatchNorm is folded
    into convolutions. ValueError if the format or one of its packages is missing, if the network cannot be
    exported, or if what was exported computes something else.
    """
    if file_format not in FORMATS:
        raise ValueError(f"unknown format {file_format!r}; choose from {', '.join(FORMATS)}")
    _check_packages(file_format)
    write, read = (_write_torchscript, _read_torchscript) if file_format == "torchscript" else (_write_onnx, _read_onnx)
    with evaluation_mode(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracers, about what becomes constant and about themselves
        expected = _as_tuple(model(example))
        try:
            content = write(model, example, signature)
        except Exception as error:  # an exporter runs the network's own code on proxies: anything may be raised
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{type(model).__name__} cannot be exported as {file_format}: {reason}") from error
        found = read(content)(example)
    return content, _difference(expected, found, list(signature.outputs))


def _check_packages(file_format: str) -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if file_format == "onnx" and missing:
        raise ValueError(f"format 'onnx' needs {' and '.join(missing)}: pip install onnx onnxruntime")


def _write_torchscript(model: nn.Module, example: Tensor, signature: Signature) -> bytes:
    buffer = io.BytesIO()
    traced = torch.jit.trace(model, (example,), check_trace=False)
    torch.jit.save(torch.jit.freeze(traced), buffer)
    return buffer.getvalue()


def _read_torchscript(content: bytes) -> Callable[[Tensor], tuple[Tensor, ...]]:
    loaded = torch.jit.load(io.BytesIO(content))
    return lambda image: _as_tuple(loaded(image))


def _write_onnx(model: nn.Module, example: Tensor, signature: Signature) -> bytes:
    """By tracing (`dynamo=False`): PyTorch's newer exporter does not carry a Detectron2 detector."""
    buffer = io.BytesIO()
    with redirect_stdout(io.StringIO()):  # of a graph it cannot export it prints every line
        torch.onnx.export(
            model,
            (example,),
            buffer,  # type: ignore[arg-type]  # taken, but not declared
            dynamo=False,
            opset_version=_OPSET,
            input_names=[signature.input],
            output_names=list(signature.outputs),
            dynamic_axes={signature.input: dict(signature.free_axes)}
            | {name: {0: axis} for name, axis in signature.outputs.items()},
        )
    return buffer.getvalue()


def _read_onnx(content: bytes) -> Callable[[Tensor], tuple[Tensor, ...]]:
    import onnx
    import onnxruntime

    onnx.checker.check_model(content)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about graph nodes that it removes
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())
    return lambda image: tuple(torch.from_numpy(y.copy()) for y in session.run(None, {name: image.numpy()}))


def _as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _difference(expected: tuple[Tensor, ...], found: tuple[Tensor, ...], names: Sequence[str]) -> float:
    """The largest over the outputs; ValueError if one differs in shape or by more than TOLERANCE."""
    largest = 0.0
    for name, a, b in zip(names, expected, found, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                f"the exported network gives {name} of shape {tuple(b.shape)}, not {tuple(a.shape)} as PyTorch does"
            )
        if a.numel():
            difference = float((a.double() - b.double()).abs().max() / a.double().abs().max().clamp(min=1e-12))
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"the exported network's {name} differ from PyTorch's by {difference:.1e} of the largest"
                )
            largest = max(largest, difference)
    return largest
