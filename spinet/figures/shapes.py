"""Shapes of a network's tensors, for its diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """Shapes of SPINet's tensors for one image, without the batch: [C, H, W] unless noted."""

    image: Shape
    backbone: dict[str, Shape]  # C2 … C5
    pyramid: dict[str, Shape]  # P2 …
    classes: dict[str, Shape]  # C_l of each level that the filter sampling module reads
    filters: dict[str, Shape]  # F_l
    pooled: Shape  # [k² D_f], input of the fully connected layer for one location
    thing_filter: Shape  # [D_φ, k, k]
    stuff_filters: Shape  # [N_s, D_φ, k, k]
    phi: Shape
    things: Shape  # [1, H, W], logits of one thing
    stuff: Shape  # [N_s, H, W]


@torch.no_grad()
def shapes(network: Any, size: tuple[int, int]) -> Shapes:
    """The shapes in a forward pass of an integrated SPINet on an image of `size` (height, width), from hooks.

    On the "meta" device nothing is computed.

    Raises:
        ValueError: the network has separate generators (Table 5).
    """
    if network.stuff_feature is not None:
        raise ValueError("the network has two generators; the figures show the integrated one: separate=False")
    seen: dict[nn.Module, Any] = {}
    watched = (network.backbone, network.fpn)
    handles = [part.register_forward_hook(lambda part, _, out: seen.update({part: out})) for part in watched]
    image = torch.zeros(1, 3, *size, device=network.mean.device)
    was_training = network.training
    try:
        features = network.eval()(image)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    module, single_shot = network.filter_sampling, network.single_shot_convolution
    pooled = torch.zeros(1, module.fc.in_features, device=image.device)
    thing_filters = module.fc(pooled).unflatten(1, (-1, module.kernel, module.kernel))
    things, stuff = single_shot(features.phi[0], thing_filters)

    def by_level(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> dict[str, Shape]:
        return {name: tuple(tensor.shape[1:]) for name, tensor in zip(names, tensors, strict=True)}

    return Shapes(
        image=tuple(image.shape[1:]),
        backbone=by_level(("C2", "C3", "C4", "C5"), seen[network.backbone]),
        pyramid=by_level(list(seen[network.fpn]), list(seen[network.fpn].values())),
        classes=by_level(network.filter_levels, features.class_logits),
        filters=by_level(network.filter_levels, features.filter_features),
        pooled=tuple(pooled.shape[1:]),
        thing_filter=tuple(thing_filters.shape[1:]),
        stuff_filters=tuple(single_shot.weight.shape),
        phi=tuple(features.phi.shape[1:]),
        things=tuple(things.shape),
        stuff=tuple(stuff.shape),
    )
