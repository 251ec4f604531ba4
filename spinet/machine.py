"""Choose the device and its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from spinet.config import ConfigError, Precision


def find_device(name: str) -> str:
    """The device of that name; "auto" means "cuda" if available, else "cpu".

    Raises:
        ConfigError: the device cannot be used.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: cannot be used ({reason}); give cpu, cuda or auto") from None
    return name


def resolve(precision: Precision, device: torch.device) -> Precision:
    """The precision; "auto" means bf16 if the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if native else "fp32"


@contextmanager
def exact_float32() -> Iterator[None]:
    """Computes in exact float32: CUDA does not round to TF32 in convolutions or matrix products.

    PyTorch's default differs between the two.
    """
    convolutions: Any = torch.backends.cudnn
    products: Any = torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def tf32() -> dict[str, bool]:
    """Which float32 operations CUDA currently rounds to TF32."""
    return {
        "convolutions": bool(torch.backends.cudnn.allow_tf32),
        "matrix_products": bool(torch.backends.cuda.matmul.allow_tf32),
    }


@contextmanager
def tuned_convolutions(same_sizes: bool) -> Iterator[None]:
    """If sizes repeat, cuDNN tries its algorithms on the first convolution of each size and keeps the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = same_sizes
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Arithmetic of a network in inference: bf16 by autocast, or exact float32."""
    reduced = resolve(precision, device) == "bf16"
    with exact_float32(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        yield


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
