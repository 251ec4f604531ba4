"""3×3 convolutions in float32 with a quarter of the multiplications, by minimal filtering (Lavin and Gray, CVPR 2016).

F(4×4, 3×3) gives 16 outputs from 36 inputs: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for a tile d of 6×6 inputs and a filter g,
where ⊙ becomes 36 products of matrices, [tiles, in] × [in, out], over all tiles and channels: a 1×1 convolution of 36
groups, which reads the tiles as the transform leaves them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

TILE, REACH = 4, 6
"""Outputs of a tile along each axis, and inputs that they depend on."""

# of the points 0, 1, −1, 2, −2 and ∞
B_T = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
A_T = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)

LEAST_CHANNELS = 64
"""In or out: with fewer the transforms cost more than they save."""

TILES = 512
"""Transformed at once, at least a row of them, so that what is between the steps stays in a processor's cache."""


class WinogradConv2d(nn.Module):
    """What `fits` computes, but for rounding, faster on CPUs.

    Args:
        convolution: gives weights and bias.
    """

    weight: Tensor
    inwards: Tensor
    outwards: Tensor

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        weight = torch.einsum("ai,bj,kcij->abkc", G, G, convolution.weight.double().cpu())
        self.register_buffer("weight", weight.flatten(0, 2).float()[..., None, None])  # [36 · out, in, 1, 1]
        self.register_buffer("inwards", torch.kron(B_T, B_T).float())  # [36, 36]
        self.register_buffer("outwards", torch.kron(A_T, A_T).float())  # [16, 36]
        self.bias = convolution.bias

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        images = x.permute(0, 2, 3, 1)
        count, height, width, channels = images.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        points = len(self.inwards)
        outputs = len(self.weight) // points
        at_once = min(rows, max(1, TILES // columns))
        # what is used again and again, and what is filled bit by bit
        band = x.new_zeros(TILE * at_once + 2, TILE * columns + 2, channels)
        tiles = x.new_empty(at_once * columns, points, channels)
        seen = torch.empty_like(tiles)
        made = x.new_empty(at_once * columns, TILE**2, outputs)
        result = x.new_empty(count, rows, TILE, columns, TILE, outputs)
        windows = band.unfold(0, REACH, TILE).unfold(1, REACH, TILE).permute(0, 1, 3, 4, 2)
        for image, maps in zip(images, result, strict=True):
            for first in range(0, rows, at_once):
                some = min(at_once, rows - first)
                _fill(band, image, TILE * first - 1)
                self._filter(windows[:some], tiles, seen, made)
                flat = made[: some * columns].view(some, columns, TILE, TILE, outputs)
                maps[first : first + some] = flat.transpose(1, 2)
        whole = result.view(count, rows * TILE, columns * TILE, outputs)
        return whole[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _filter(self, windows: Tensor, tiles: Tensor, seen: Tensor, made: Tensor) -> None:
        """Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A of some windows, [rows, columns, 6, 6, C], into the first of `made`."""
        n, points = windows.shape[0] * windows.shape[1], len(self.inwards)
        tiles[:n].view(windows.shape).copy_(windows)
        torch.bmm(self.inwards.expand(n, -1, -1), tiles[:n], out=seen[:n])
        points_last = seen[:n].view(1, n, 1, -1).permute(0, 3, 1, 2)  # point and channel as one, last in memory
        products = F.conv2d(points_last, self.weight, groups=points).permute(0, 2, 3, 1).reshape(n, points, -1)
        torch.bmm(self.outwards.expand(n, -1, -1), products, out=made[:n])
        if self.bias is not None:
            made[:n] += self.bias


def _fill(band: Float[Tensor, "h w C"], image: Float[Tensor, "H W C"], top: int) -> None:
    """Puts the rows of an image from `top` on, and zeros beyond them, into all but the outer columns of a band."""
    height, width = image.shape[:2]
    first, last = max(top, 0), min(top + len(band), height)
    band[: first - top].zero_()
    band[first - top : last - top, 1 : width + 1] = image[first:last]
    band[last - top :].zero_()


def fits(module: nn.Module) -> bool:
    """Whether it is a 3×3 convolution of stride 1 that keeps the size, with channels enough."""
    if type(module) is not nn.Conv2d:
        return False
    shape = module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode
    same: Any = ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return shape == same and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS


def filter_minimally(network: nn.Module) -> None:
    """Replaces the convolutions that fit, in place."""
    for name, module in list(network.named_modules()):
        if fits(module):
            network.set_submodule(name, WinogradConv2d(module))  # pyright: ignore[reportArgumentType]
