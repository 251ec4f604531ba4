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
    """A copy of a model, of SPINet or of a system that the paper compares with, that predicts the same in less time.

    Batch norm is folded into the convolution before it; group norm, whose statistics are the image's own, cannot be.
    SPINet takes its `shortcuts`: what its features hold is then one layer short of F_l and of φ.

    Args:
        model: stays as it is.
        precision: arithmetic of the network, in place of `config.inference.precision`; in bf16 the weights of
            convolutions are stored so, too, instead of being rounded at every use.
        winograd: on CPUs, 3×3 convolutions by Winograd's algorithm: in float32 a quarter of their multiplications, and
            values that differ by about 1e-5 of the largest; in bf16 four ninths, and about twice the rounding errors
            that bf16 has anyway. torch.compile has its own ways.
        compile: hands the network to `torch.compile`, which takes minutes at the first image of each size and needs a
            compiler: of C++ on CPUs, of C on CUDA, where all its kernels are then launched at once, as a CUDA graph.

    Raises:
        RuntimeError: `compile` without that compiler.
    """
    inference = replace(model.config.inference, precision=precision or model.config.inference.precision)
    network = deepcopy(model.network)
    freeze(network)
    fold_batch_norm(network)
    take_shortcuts(network)
    network.to(memory_format=torch.channels_last)  # the order in memory that convolutions are fastest with
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
        if not (os.environ.get("CC") or which("gcc") or which("clang")):  # Triton's own question
            raise RuntimeError("torch.compile needs a C compiler (gcc or clang) on CUDA, and found none")
        graph = torch.compile(function, options={"freezing": True, "triton.cudagraphs": True})
        # a graph writes its next results where these lie
        return lambda *inputs: map_tensors(graph(*inputs), torch.Tensor.clone)
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise RuntimeError("torch.compile needs a C++ compiler (g++ or clang++) on a CPU, and found none") from None
    return torch.compile(function, options={"freezing": True})
