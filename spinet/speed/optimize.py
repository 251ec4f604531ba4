"""§5.3 The same network, faster: fewer multiplications, channels last in memory, bf16 weights, torch.compile."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from shutil import which
from typing import Any, Literal

import torch
from torch import nn

from spinet.data.segments import map_tensors
from spinet.machine import resolve
from spinet.model.backbone import Deformable
from spinet.speed.batch_norm import fold_batch_norm
from spinet.speed.shortcuts import take_shortcuts
from spinet.speed.winograd import use_winograd
from spinet.system import Model
from spinet.weights import freeze


def optimize_for_inference(
    model: Model,
    *,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    winograd: bool = True,
    compile: bool = False,
) -> Model:
    """A copy of a model, SPINet or a system that the paper compares with, that predicts the same in less time.

    Batch norm is folded into the convolution before it. Group norm cannot be folded: its statistics depend on the
    image. SPINet uses `shortcuts`: its features then lack the last layer towards F_l and towards φ.

    Args:
        model: is not changed.
        precision: arithmetic of the network, in place of `config.inference.precision`. In bf16 the weights of
            convolutions are stored in bf16, instead of being rounded at every use.
        winograd: on CPUs, compute 3×3 convolutions by Winograd's algorithm. In float32 it needs a quarter of the
            multiplications, and values differ by about 1e-5 of the largest. In bf16 it needs four ninths, and rounding
            errors are about twice those of plain bf16. Ignored with `compile`.
        compile: use `torch.compile`. It takes minutes at the first image of each size and needs a compiler: C++ on
            CPUs, C on CUDA. On CUDA all kernels are then launched at once, as a CUDA graph.

    Raises:
        RuntimeError: `compile` without that compiler.
    """
    inference = replace(model.config.inference, precision=precision or model.config.inference.precision)
    network = deepcopy(model.network)
    freeze(network)
    fold_batch_norm(network)
    take_shortcuts(network)
    network.to(memory_format=torch.channels_last)  # the fastest memory format for convolutions
    reduced = resolve(inference.precision, model.device) == "bf16"
    if winograd and model.device.type == "cpu" and not compile:
        use_winograd(network, torch.bfloat16 if reduced else torch.float32)
    if reduced:
        exact = {part for module in network.modules() if isinstance(module, Deformable) for part in module.modules()}
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module not in exact:
                module.to(torch.bfloat16)
    if compile:
        network.forward = compiled(network.forward, model.device)
    return replace(model, network=network, config=replace(model.config, inference=inference))


def compiled(function: Any, device: torch.device) -> Any:
    """`torch.compile` with the weights as constants."""
    if device.type == "cuda":
        if not (os.environ.get("CC") or which("gcc") or which("clang")):  # the compilers that Triton looks for
            raise RuntimeError("torch.compile needs a C compiler (gcc or clang) on CUDA, and found none")
        graph = torch.compile(function, options={"freezing": True, "triton.cudagraphs": True})
        # the graph reuses the memory of its outputs
        return lambda *inputs: map_tensors(graph(*inputs), torch.Tensor.clone)
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise RuntimeError("torch.compile needs a C++ compiler (g++ or clang++) on a CPU, and found none") from None
    return torch.compile(function, options={"freezing": True})
