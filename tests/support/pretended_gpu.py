"""A GPU that is not there: tensors that say "cuda", whose numbers are on the CPU.

Within `pretended_gpu()` whatever asks for "cuda" gets tensors of `OnGpu`. As on a GPU, an operator refuses tensors of
both devices (but for what PyTorch allows: a CPU scalar, CPU indices), a random number must come from a generator of the
tensor's device, and NumPy takes no such tensor. Counted by line of the program: where the CPU would wait for the GPU.
"""

import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # which looks at functions that are replaced here, when it is first imported
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
ROOT = Path(__file__).parents[2]
OURS = ("pruning/", "training/", "classify/", "detect/", "study/")
_aten = torch.ops.aten
# what has to know the numbers before it can say how large its result is, or answers in Python
_WAITS = (
    "_local_scalar_dense is_nonzero equal nonzero masked_select _unique2 unique_dim unique_consecutive bincount histc"
).split()
_INDEXED = "index index_put index_put_ _index_put_impl_ _unsafe_index".split()
_ONE_DEVICE = "cat stack".split()  # these take not even a CPU scalar among tensors of a GPU
_data = torch.Tensor.data
_asked = []  # the device of a copy from the GPU that the program asks for
_inside = []  # of functions that the program called: has one been given a tensor of the GPU?


class MixedDevices(RuntimeError):
    """What PyTorch says on a GPU of tensors of several devices."""


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; `inner` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        # to the engine it is on the CPU: for another device it would start threads, which forked processes do not bear
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), **layout, device="cpu")

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {}, Counter())

    @property
    def data(self):
        return _data.__get__(self)

    @data.setter
    def data(self, new):
        if not isinstance(new, OnGpu):
            raise MixedDevices("the data of a tensor on cuda:0 cannot become those of one on cpu")
        _data.__set__(self, new)
        self.inner = new.inner

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], torch.Tensor):  # as another one is
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **_parsed(kwargs))
        copy = kwargs.get("copy", False)
        if device is None or device.type == "cuda":
            same = dtype in (None, self.dtype) and not copy
            if same and (memory_format is None or self.is_contiguous(memory_format=memory_format)):
                return self
            return _aten._to_copy(self, dtype=dtype, memory_format=memory_format)
        _asked.append(device)
        try:
            return _aten._to_copy(
                self, dtype=dtype, device=device, non_blocking=non_blocking, memory_format=memory_format
            )
        finally:
            _asked.pop()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def cpu(self):
        return self.to("cpu")

    def cuda(self, *args, **kwargs):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def __repr__(self, **kwargs):
        return f"{self.inner!r} on cuda:0"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            twin = OnGpu(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                twin._is_param = True
            memo[id(self)] = twin
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return saved_on_gpu, (self.inner.detach(),)


def _parsed(kwargs):
    return {name: value for name, value in kwargs.items() if name not in ("copy", "dtype", "memory_format")} | {
        name: kwargs[name] for name in ("dtype", "memory_format") if kwargs.get(name) is not None
    }


def saved_on_gpu(inner):
    """What a file has of a tensor that was on the GPU."""
    return OnGpu(inner)


def _name(func):
    return func._schema.name.partition("::")[2]


def _kind_of(tensor):
    return "cuda" if isinstance(tensor, OnGpu) else "cpu"


def _compute(func, args, kwargs, waits):
    """Run an operator where its tensors are; `waits` counts the lines at which the CPU waits for the GPU."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    name, asked = _name(func), kwargs.get("device")
    there = [t for t in tensors if isinstance(t, OnGpu)]
    result = torch.device(asked).type if asked is not None else "cuda" if there else "cpu"
    if not tensors and not _asked and any(_inside[-1:]):
        result = "cuda"  # made by PyTorch's own code, as autograd's, beside the tensors of the GPU that it works on
    if result == "cpu" and not there:
        return func(*args, **kwargs)
    if result == "meta":  # the shape alone is asked for, which no device is waited for
        return _run(func, args, kwargs, on_gpu=False)
    if there and not _asked:  # autograd and autocast take a tensor's device from PyTorch, which says "cpu" of ours
        result = "cuda"
    if name == "_to_copy":
        _crosses(_kind_of(args[0]), result, kwargs.get("non_blocking", False), waits)
    elif name == "copy_":
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        _crosses(_kind_of(args[1]), _kind_of(args[0]), not blocks, waits)
    else:
        _check_mixing(func, name, args, tensors, kwargs.get("generator"), waits)
    if name in _WAITS or (name == "repeat_interleave" and there):
        waits[("look", line_of_the_program())] += 1
    return _run(func, args, kwargs, on_gpu=result == "cuda")


def _run(func, args, kwargs, *, on_gpu):
    known, first = {}, args[0] if args else None

    def inner(leaf):
        if isinstance(leaf, OnGpu):
            known[id(leaf.inner)] = leaf
            return leaf.inner
        return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == "cuda" else leaf

    args, kwargs = tree_map(inner, (args, kwargs))
    if isinstance(kwargs.get("device"), str):
        kwargs["device"] = "cpu"
    with _disable_current_modes():
        found = func(*args, **kwargs)
    if torch.Tag.inplace_view in func.tags:  # a tensor that changed its shape in place
        first.data = OnGpu(first.inner)

    def outer(leaf):
        if not isinstance(leaf, torch.Tensor) or not on_gpu:
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnGpu(leaf)

    return tree_map(outer, found)


def _crosses(source, target, non_blocking, waits):
    if source == target:
        return
    if non_blocking and target == "cpu":
        raise MixedDevices("a copy to the CPU that nobody waits for may be read before it is there")
    if not non_blocking:
        waits[("copy", line_of_the_program())] += 1


def _check_mixing(func, name, args, tensors, generator, waits):
    here = [t for t in tensors if not isinstance(t, OnGpu)]
    if generator is not None and generator.device.type != "cuda":
        raise MixedDevices(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")
    if name in _INDEXED and isinstance(args[0], OnGpu):
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) or _kind_of(index) == "cpu" for index in indices):
            waits[("look", line_of_the_program())] += 1
        here = [t for t in here if not any(t is index for index in indices)]
    written = func._schema.is_mutable and tensors and not isinstance(tensors[0], OnGpu)
    if written or any(t.dim() or name in _ONE_DEVICE for t in here):
        raise MixedDevices(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")


def line_of_the_program():
    """The innermost line that is neither PyTorch's nor of this file: "classify/step.py:45"."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and "/torch/" not in file and "contextlib" not in file:
            return f"{Path(file).relative_to(ROOT) if file.startswith(str(ROOT)) else file}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class _Gpu(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():  # operators that are made of others come whole then
            with self:
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return _compute(func, args, kwargs or {}, self.waits)


class _FirstGpu(TorchFunctionMode):
    """ "cuda" is "cuda:0": PyTorch would ask the driver, which is not there, for the number."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            if func is torch.Tensor.cuda:
                args = (*args[:1], GPU, *args[1:])
            args = tuple(_numbered(a) if isinstance(a, str | torch.device) else a for a in args)
            func = type(args[0]).to
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = _numbered(kwargs["device"])
            if kwargs["device"] is not None and torch.device(kwargs["device"]).type == "cpu":
                return _on_the_cpu(func, args, kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == GPU:
            return func(*args, **{**kwargs, "device": "cpu"}).to(GPU)  # as PyTorch does it itself
        _inside.append(any(isinstance(leaf, OnGpu) for leaf in tree_leaves((args, kwargs))))
        try:
            return func(*args, **kwargs)
        finally:
            _inside.pop()


def _on_the_cpu(func, args, kwargs):
    _asked.append("cpu")
    try:
        return func(*args, **kwargs)
    finally:
        _asked.pop()


def _numbered(device):
    return GPU if device is not None and torch.device(device).type == "cuda" else device


@dataclass
class Gpu:
    """What happens on the pretended GPU.

    `waits`: how often the CPU waited for it, by ("look" at a number or "copy", line of the program).
    """

    waits: Counter

    @contextmanager
    def no_waits(self, allowed=lambda kind, line: False):
        """AssertionError with the lines at which the CPU waits in the block, but for those `allowed`."""
        before = Counter(self.waits)
        yield
        found = {f"{kind}: {line}": n for (kind, line), n in (self.waits - before).items() if not allowed(kind, line)}
        if found:
            raise AssertionError(f"the CPU waits for the GPU: {found}")


@contextmanager
def pretended_gpu():
    """Within the block there is a GPU; what is done on it is told by the `Gpu`."""
    autocast, grouped, load = torch.autocast, torch._C._group_tensors_by_device_and_dtype, torch.load
    compatible = torch._has_compatible_shallow_copy_type

    def autocast_here(device_type, **options):
        return autocast("cpu" if device_type == "cuda" else device_type, **options)

    def by_device(lists, with_indices=False):
        found = grouped(lists, with_indices)
        device = next(t.device for tensors in lists for t in tensors if t is not None)
        return {(device, dtype): group for (_, dtype), group in found.items()}

    def load_here(file, map_location=None, **options):
        return _moved(load(file, **options), map_location)

    mode = _Gpu()
    patches = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.get_rng_state": lambda device: torch.get_rng_state(),
        "torch.cuda.set_rng_state": lambda state, device: None,
        "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
        "torch.amp.grad_scaler.torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.autocast": autocast_here,
        "torch.load": load_here,
        "torch._has_compatible_shallow_copy_type": lambda a, b: _kind_of(a) == _kind_of(b) and compatible(a, b),
        "torch.utils._foreach_utils._group_tensors_by_device_and_dtype": by_device,
        "torch.optim.optimizer._group_tensors_by_device_and_dtype": by_device,
        "torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype": by_device,
    }
    with ExitStack() as stack:
        for place, stand_in in patches.items():
            stack.enter_context(mock.patch(place, stand_in))
        stack.enter_context(torch.serialization.safe_globals([saved_on_gpu]))
        stack.enter_context(mode)
        stack.enter_context(_FirstGpu())
        yield Gpu(mode.waits)


def _moved(state, device):
    if device is None:
        return state
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, state)
