"""CUDA without a GPU: tensors in CPU memory that report the device "cuda:0".

All operations on them go through `PretendedCuda`. It raises an error if devices are mixed, and counts the kernel
launches and the waits of the host on a GPU. Autocast follows CUDA's rules. The counts are approximate: on a GPU one
kernel may be several, or several may be fused.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

import spinet

ROOT = Path(spinet.__file__).parent
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

WAITS = {  # operations whose result the host needs (size or value), and the number of waits of each
    "_local_scalar_dense": 1,
    "nonzero": 1,
    "masked_select": 1,
    "bincount": 2,
    "_unique2": 1,
    "repeat_interleave": 1,
    "equal": 1,
    "_sparse_sparse_matmul": 4,
    "nms": 1,
}
NO_KERNEL = {  # views, allocations and questions about sizes
    *("view slice select expand permute transpose t unsqueeze squeeze detach alias as_strided split split_with_sizes "
      "unbind _unsafe_view unfold diagonal lift_fresh _reshape_alias empty new_empty empty_like "
      "empty_strided new_empty_strided is_pinned _indices _values is_coalesced _nnz sparse_dim dense_dim narrow "
      "movedim chunk").split()
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Pretended(Tensor):
    """A tensor that reports the device `CUDA`; `inner` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=CUDA,
        )
        tensor.inner = inner
        return tensor

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{function} on a pretended tensor, outside of PretendedCuda")


class MixedDevices(AssertionError):
    """An operation got tensors of two devices, which CUDA does not allow."""


class PretendedCuda(TorchDispatchMode):
    """Context in which pretended tensors can be used in operations.

    Attributes:
        launches: operations that start a kernel, by name.
        waits: number of waits of the host for the device, by line of the package.
        uploaded, downloaded: bytes.
        types: types of floating-point inputs of operations, for example "convolution bfloat16".
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.reordered = 0
        self.uploaded = self.downloaded = 0

    def wait(self, why: str, times: int = 1) -> None:
        self.waits[f"{_place()} {why}"] += times

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = function._schema.name.split("::")[1]
        tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        there = [t for t in tensors if isinstance(t, Pretended)]
        here = [t for t in tensors if not isinstance(t, Pretended)]
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if target == "cuda":
            kwargs["device"] = CPU
        own_args, own_kwargs = tree_map(_inner, (args, kwargs))
        if not there and target != "cuda":
            return function(*own_args, **own_kwargs)
        self._count(name, args, there, here, target, bool(kwargs.get("non_blocking")))
        if name == "native_group_norm":  # as on CUDA
            own_args = (own_args[0].contiguous(), *own_args[1:])
        result = function(*own_args, **own_kwargs)
        if name == "_local_scalar_dense" or (name == "_to_copy" and target == "cpu"):
            return result
        if name == "copy_" and not isinstance(args[0], Pretended):
            return args[0]
        if name.endswith("_") and isinstance(args[0], Pretended):
            return args[0]
        if isinstance(kwargs.get("out"), Pretended):
            return kwargs["out"]
        return tree_map(lambda x: Pretended(x) if isinstance(x, Tensor) and not isinstance(x, Pretended) else x, result)

    def _count(
        self, name: str, args: Any, there: list[Pretended], here: list[Tensor], target: str | None, async_: bool
    ) -> None:
        if name == "_to_copy" and target == "cpu":
            self.downloaded += there[0].nbytes
            if not async_:
                self.wait("download")
            return
        if name == "_to_copy" and here:
            self.uploaded += here[0].nbytes
            if not async_:
                self.wait("upload")
            return
        if name == "copy_" and there and here:
            self.downloaded += 0 if isinstance(args[0], Pretended) else there[0].nbytes
            self.uploaded += here[0].nbytes if isinstance(args[0], Pretended) else 0
            async_ = async_ or (len(args) > 2 and args[2])
            if not async_:
                self.wait("copy")
            return
        if name in WAITS:
            self.wait(name, WAITS[name])
        strays = [t for t in here if t.dim() > 0]
        if name in INDEXING:
            indices = [i for i in args[1] if isinstance(i, Tensor)]
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                self.wait("index by mask")
            if strays and isinstance(args[0], Pretended):
                self.wait("index on the host", len(strays))  # is copied to the device
                strays = [t for t in strays if not any(t is i for i in indices)]
        if strays:
            shapes = [tuple(t.shape) for t in strays]
            raise MixedDevices(f"{_place()}: {name} of a tensor on CUDA and of one on the CPU, {shapes}")
        if name not in NO_KERNEL:
            self.launches[name] += 1
        kinds = {str(t.dtype)[6:] for t in there if t.is_floating_point()}
        if kinds:
            self.types[f"{name} {'/'.join(sorted(kinds))}"] += 1
        first = there[0] if there else None
        if name == "native_group_norm" and first is not None and not first.is_contiguous():
            self.reordered += 1

    def __str__(self) -> str:
        waits = ", ".join(f"{count} × {place}" for place, count in self.waits.most_common())
        return (
            f"{self.launches.total()} launches, {self.waits.total()} waits ({waits}), "
            f"{self.uploaded / 1e6:.2f} MB up, {self.downloaded / 1e6:.2f} MB down"
        )


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Pretended) else value


def _place() -> str:
    """The innermost line of the package."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(str(ROOT)):
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
    return "test"


def to_cuda(module: nn.Module) -> nn.Module:
    """Moves parameters and buffers of a module to the pretended device, in place; call it inside `PretendedCuda`."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and not isinstance(parameter, Pretended):
                there = Pretended(parameter.detach())
                part._parameters[name] = nn.Parameter(there, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, Pretended):
                part._buffers[name] = Pretended(buffer.detach())
    return module


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """`with cuda() as device:` pretends that there is a GPU with bf16."""
    current: list[PretendedCuda] = []
    tolist = Tensor.tolist

    def listed(self: Tensor) -> Any:
        if not isinstance(self, Pretended):
            return tolist(self)
        current[-1].wait("tolist")
        current[-1].downloaded += self.nbytes
        with _disable_current_modes():
            return tolist(self.inner)

    class Event:
        def __init__(self, **_: Any) -> None: ...

        def record(self, *_: Any) -> None: ...

        def synchronize(self) -> None:
            current[-1].wait("event")

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its batch norm has no other implementation
    for place, name, value in (
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "synchronize", lambda *_: current[-1].wait("synchronize")),
        (torch.cuda, "Event", Event),
        (torch._C, "_InferenceMode", lambda mode: torch.no_grad()),  # it would hide composite operations
        (Tensor, "tolist", listed),
        (Tensor, "pin_memory", lambda self, *_: self),
    ):
        monkeypatch.setattr(place, name, value)

    @contextmanager
    def pretended() -> Iterator[PretendedCuda]:
        device = PretendedCuda()
        current.append(device)
        with device:
            yield device
        current.pop()

    yield pretended
    torch._C._set_only_lift_cpu_tensors(False)
    torch.__future__.set_overwrite_module_params_on_conversion(False)
