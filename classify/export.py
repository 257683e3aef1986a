"""A network as a file that runs without this project: TorchScript or ONNX, checked against the network itself."""

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
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


Outputs = Sequence[Tensor]
Compare = Callable[[Outputs, Outputs], float]
"""Expected and found outputs -> how far they are apart; ValueError if too far."""


def export(
    model: nn.Module,
    example: Tensor,
    signature: Signature,
    file_format: str,
    *,
    others: Sequence[Tensor] = (),
    compare: Compare | None = None,
) -> tuple[bytes, float]:
    """The file's content, and the largest difference of its outputs from the model's on `example` and `others`.

    `model` maps one tensor to a tensor or a tuple of tensors; weights become constants and BatchNorm is folded
    into convolutions. `others`: inputs of other sizes along the free axes and of other content, on which a trace that
    took a number of its example for a constant fails. By default differences are relative and at most TOLERANCE.
    ValueError if the format or one of its packages is missing, if the network cannot be exported, or if what was
    exported computes something else.
    """
    if file_format not in FORMATS:
        raise Refusal(f"unknown format {file_format!r}; choose from {', '.join(FORMATS)}")
    _check_packages(file_format)
    write = _write_torchscript if file_format == "torchscript" else _write_onnx
    refused = f"{type(model).__name__} cannot be exported as {file_format}"
    compare = compare or partial(_difference, names=list(signature.outputs))
    with evaluation_mode(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracers, about what becomes constant and about themselves
        expected = [_as_tuple(model(x)) for x in (example, *others)]
        try:
            content = write(model, example, signature)
        except Exception as error:  # an exporter runs the network's own code on proxies: anything may be raised
            raise Refusal(f"{refused}: {_first_line(error)}") from error
        exported, differences = _READERS[file_format](content), []
        for x, wanted in zip((example, *others), expected, strict=True):
            try:
                differences.append(compare(wanted, exported(x)))
            except Exception as error:  # the runtimes raise errors of their own
                raise Refusal(f"{refused}: on an input of shape {tuple(x.shape)}: {_first_line(error)}") from error
    return content, max(differences)


def _first_line(error: Exception) -> str:
    """What went wrong; TorchScript says that last, after the code that it ran."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if isinstance(error, torch.jit.Error) and lines else (lines or [type(error).__name__])[0]


def _check_packages(file_format: str) -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if file_format == "onnx" and missing:
        raise Refusal(f"format 'onnx' needs {' and '.join(missing)}: pip install onnx onnxruntime")


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


_READERS = {"torchscript": _read_torchscript, "onnx": _read_onnx}


def read_exported(path: Path, file_format: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The function of one tensor in a file that `export` made; ValueError if it cannot be read."""
    if file_format not in FORMATS:
        raise Refusal(f"{path}: unknown format {file_format!r}; choose from {', '.join(FORMATS)}")
    _check_packages(file_format)
    try:
        return _READERS[file_format](path.read_bytes())
    except Exception as error:  # the runtimes raise errors of their own
        raise Refusal(f"{path}: not readable as {file_format}: {_first_line(error)}") from error


def _as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _difference(expected: Outputs, found: Outputs, names: Sequence[str]) -> float:
    """The largest over the outputs; ValueError if one differs in shape or by more than TOLERANCE."""
    largest = 0.0
    for name, a, b in zip(names, expected, found, strict=True):
        if a.shape != b.shape:
            raise Refusal(
                f"the exported network gives {name} of shape {tuple(b.shape)}, not {tuple(a.shape)} as PyTorch does"
            )
        if a.numel():
            difference = float((a.double() - b.double()).abs().max() / a.double().abs().max().clamp(min=1e-12))
            if not difference <= TOLERANCE:
                raise Refusal(f"the exported network's {name} differ from PyTorch's by {difference:.1e} of the largest")
            largest = max(largest, difference)
    return largest
