"""§5.3 The same network, faster: folded batch norm, channels last in memory, bf16 weights, torch.compile."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import DeformConv2d

from spinet.model.backbone import Deformable
from spinet.precision import resolve
from spinet.weights import Model, freeze

CONVOLUTIONS = (nn.Conv2d, DeformConv2d)


def optimize_for_inference(
    model: Model,
    *,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    channels_last: bool = True,
    compile: bool = False,
) -> Model:
    """A copy of a model, of SPINet or of a system that the paper compares with, that predicts the same in less time.

    Batch norm is folded into the convolution before it; group norm, whose statistics are the image's own, cannot be.
    Filters need no help: §3.2's fully connected layer sees no place but those where the class head fires.

    Args:
        model: stays as it is.
        precision: arithmetic of the network, in place of `config.inference.precision`; in bf16 the weights of
            convolutions are stored so, too, instead of being rounded at every use.
        channels_last: order of feature maps in memory: what convolutions are fastest with.
        compile: hands the network to `torch.compile`, which takes minutes at the first image of each size and, on CPUs,
            needs a C++ compiler.

    Raises:
        RuntimeError: `compile`, on a CPU without a C++ compiler.
    """
    inference = replace(model.config.inference, precision=precision or model.config.inference.precision)
    network = deepcopy(model.network)
    freeze(network)
    fold_batch_norm(network)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if resolve(inference.precision, model.device) == "bf16":
        exact = {part for module in network.modules() if isinstance(module, Deformable) for part in module.modules()}
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module not in exact:
                module.to(torch.bfloat16)
    if compile:
        network.forward = compiled(network.forward, model.device)
    return Model(network, replace(model.config, inference=inference), model.categories)


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> list[str]:
    """Folds batch norms into the convolutions that they follow; returns the names of those that are gone.

    What follows what is seen while the network looks at a blank image; a convolution or a norm that is used more than
    once with different partners stays.
    """
    made: list[tuple[str, Tensor]] = []  # which convolution made a tensor
    partners: dict[str, set[str | None]] = {}
    hooks = []

    def note_maker(name: str):
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            made.append((name, output))

        return hook

    def note_partner(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            maker = next((conv for conv, tensor in made if tensor is inputs[0]), None)
            partners.setdefault(name, set()).add(maker)

        return hook

    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            hooks.append(module.register_forward_hook(note_maker(name)))
        elif type(module) is nn.BatchNorm2d:  # a subclass does more
            hooks.append(module.register_forward_pre_hook(note_partner(name)))
    mean: Tensor = network.mean  # pyright: ignore[reportAssignmentType]
    side: int = 2 * network.divisor  # pyright: ignore[reportOperatorIssue, reportAssignmentType]
    network(mean.new_zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    folded = []
    for norm, makers in partners.items():
        (maker, *others) = makers
        if maker is None or others or sum(maker in other for other in partners.values()) > 1:
            continue
        pair = network.get_submodule(maker), network.get_submodule(norm)
        network.set_submodule(maker, fuse_conv_bn_eval(*pair))  # pyright: ignore[reportArgumentType]
        network.set_submodule(norm, nn.Identity())
        folded.append(norm)
    return folded


def compiled(function: Any, device: torch.device) -> Any:
    """`torch.compile` with the weights as constants."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise RuntimeError("torch.compile needs a C++ compiler (g++ or clang++) on a CPU, and found none") from None
    return torch.compile(function, options={"freezing": True})
