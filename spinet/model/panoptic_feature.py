"""§3.3 Panoptic-Feature generator (Fig. 3)."""

from __future__ import annotations

import math
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from spinet.layers import ConvGNReLU, Coordinates


class PanopticFeatureGenerator(nn.Module):
    """Pyramid levels to the Panoptic-Feature φ, D_φ channels at stride 4.

    Every level is resized to stride 8 and convolved, all are summed, absolute coordinates join, two more convolutions
    follow, and a 2×2 deconvolution of stride 2 ends at stride 4. A level takes as many convolutions as it is doubled,
    at least one, like the semantic branch of Panoptic-FPN.
    """

    STRIDE = 8  # §3.3: "internally maintains its spatial size to the stride of 8"

    def __init__(
        self, *, in_channels: int, channels: int, strides: list[int], coordinates: Coordinates, relu: bool = False
    ):
        super().__init__()
        width = in_channels
        self.coordinates = coordinates
        self.levels = nn.ModuleList(
            nn.Sequential(*(ConvGNReLU(in_channels, width) for _ in range(max(1, int(math.log2(s // self.STRIDE))))))
            for s in strides
        )
        self.merge = nn.Sequential(ConvGNReLU(width + coordinates.channels, width), ConvGNReLU(width, width))
        self.deconvolution = nn.ConvTranspose2d(width, channels, 2, stride=2)
        self.end = nn.ReLU() if relu else nn.Identity()

    def forward(
        self, levels: list[Float[Tensor, "B D H_l W_l"]], windows: Float[Tensor, "B 4"]
    ) -> Float[Tensor, "B D_phi H W"]:
        size = levels[0].shape[-2:]  # the first level has stride 8
        resized = [p if p.shape[-2:] == size else F.interpolate(p, size=size, mode="bilinear") for p in levels]
        merged = reduce(torch.add, (conv(p) for conv, p in zip(self.levels, resized, strict=True)))
        located = torch.cat([merged, self.coordinates(merged, self.STRIDE, windows)], dim=1)
        return self.end(self.deconvolution(self.merge(located)))
