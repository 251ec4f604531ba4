"""Which arithmetic a device is good at."""

from __future__ import annotations

import torch

from spinet.config import Precision


def resolve(precision: Precision, device: torch.device) -> Precision:
    """The precision itself; for "auto" bf16 where the device computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if native else "fp32"
