"""§3.3 Panoptic-Feature generator (Fig. 3)."""

from __future__ import annotations

import math
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spinet.model.layers import ConvGNReLU, Coordinates


class PanopticFeatureGenerator(nn.Module):
    """Computes the Panoptic-Feature φ, D_φ channels at stride 4, from pyramid levels.

    Every level is resized to stride 8 and convolved. The sum is concatenated with absolute coordinates and convolved
    twice. A 2×2 deconvolution of stride 2 gives stride 4. A level has one convolution per doubling of its size, at
    least one, like the semantic branch of Panoptic-FPN.

    Args:
        relu: a ReLU after the deconvolution.
        equal_taps: initialise the four taps of the deconvolution with equal weights, N(0, 2 / inputs). Then φ has unit
            variance, and is equal in the four pixels of a cell. PyTorch's default computes the fan-in from the outputs.
        coordinate_skip: also add a learned projection of the coordinates to φ. Beyond the paper.
        detail_channels: of C2, whose learned projection is also added to φ. It starts at zero. Beyond the paper.
    """

    STRIDE = 8  # §3.3: "internally maintains its spatial size to the stride of 8"

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        strides: list[int],
        coordinates: Coordinates,
        relu: bool = False,
        equal_taps: bool = True,
        coordinate_skip: bool = False,
        detail_channels: int | None = None,
    ):
        super().__init__()
        width = in_channels
        self.coordinates = coordinates
        self.resize = nn.ModuleList(
            nn.Upsample(scale_factor=s // self.STRIDE, mode="bilinear") if s > self.STRIDE else nn.Identity()
            for s in strides
        )
        self.levels = nn.ModuleList(
            nn.Sequential(*(ConvGNReLU(in_channels, width) for _ in range(max(1, int(math.log2(s // self.STRIDE))))))
            for s in strides
        )
        self.merge = nn.Sequential(ConvGNReLU(width + coordinates.channels, width), ConvGNReLU(width, width))
        self.deconvolution = nn.ConvTranspose2d(width, channels, 2, stride=2)
        if equal_taps:
            tap = torch.randn(width, channels, 1, 1) * math.sqrt(2 / width)
            self.deconvolution.weight = nn.Parameter(tap.repeat(1, 1, 2, 2))
            nn.init.zeros_(self.deconvolution.bias)  # pyright: ignore[reportArgumentType]
        self.skip = coordinates.projection(channels) if coordinate_skip else None
        self.detail = None
        if detail_channels is not None:
            self.detail = nn.Conv2d(detail_channels, channels, 1, bias=False)
            nn.init.zeros_(self.detail.weight)
        self.end = nn.ReLU() if relu else nn.Identity()

    def merged(
        self, levels: list[Float[Tensor, "B D H_l W_l"]], windows: Float[Tensor, "B 4"]
    ) -> Float[Tensor, "B D h w"]:
        """The input of the deconvolution, at stride 8."""
        parts = zip(levels, self.resize, self.levels, strict=True)
        merged = reduce(torch.add, (convolve(resize(level)) for level, resize, convolve in parts))
        return self.merge(torch.cat([merged, self.coordinates(merged, self.STRIDE, windows)], dim=1))

    def forward(
        self,
        levels: list[Float[Tensor, "B D H_l W_l"]],
        windows: Float[Tensor, "B 4"],
        c2: Float[Tensor, "B D_2 H W"] | None = None,
    ) -> Float[Tensor, "B D_phi H W"]:
        phi = self.deconvolution(self.merged(levels, windows))
        if self.skip is not None:
            phi = phi + self.skip(self.coordinates(phi, self.STRIDE // 2, windows))
        if self.detail is not None:
            assert c2 is not None, "a generator with detail_channels needs C2"
            phi = phi + self.detail(c2)
        return self.end(phi)
