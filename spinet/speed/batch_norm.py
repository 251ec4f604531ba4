"""§5.2 Fold frozen batch norm into the convolution before it."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import DeformConv2d

CONVOLUTIONS = (nn.Conv2d, DeformConv2d)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)  # the second is timm's, followed by an activation


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> list[str]:
    """Folds batch norms into the convolutions that they follow; returns the names of the folded norms.

    A forward pass on a blank image shows which norm follows which convolution. A convolution or norm with several
    partners is not changed.
    """
    made: list[tuple[str, Tensor]] = []  # each tensor and the convolution that computed it
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
        elif type(module) in NORMS:  # another subclass may do more
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
        activation: Any = pair[1].act if isinstance(pair[1], BatchNormAct2d) else nn.Identity()
        network.set_submodule(norm, activation)
        folded.append(norm)
    return folded
