"""3×3 convolutions on CPUs with fewer multiplications, by Winograd's algorithms (Lavin and Gray, CVPR 2016).

F(m×m, 3×3) gives m² outputs from (m + 2)² inputs: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for a tile d of inputs and a filter g,
where ⊙ becomes (m + 2)² matrix products, [tiles, in] × [in, out], over all tiles and channels. They are computed as a
1×1 convolution with (m + 2)² groups, which reads the tiles in the memory order of the transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Algorithm:
    """F(m×m, 3×3), and the convolutions that use it.

    Args:
        m: outputs of a tile along each axis, from m + 2 inputs.
        b_t, g, a_t: Bᵀ, G and Aᵀ.
        dtype: type in which the transforms are accurate enough.
        least_channels: minimum of input and output channels; with fewer the transforms cost more than they save.
    """

    m: int
    b_t: list[list[int]]
    g: list[list[float]]
    a_t: list[list[int]]
    dtype: torch.dtype
    least_channels: int


ALGORITHMS = (
    Algorithm(  # points 0, 1, −1, 2, −2 and ∞: a quarter of the multiplications
        m=4,
        b_t=[
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        g=[
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        a_t=[[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
        dtype=torch.float32,
        least_channels=64,
    ),
    Algorithm(  # points 0, 1, −1 and ∞: four ninths of the multiplications, and only short sums
        m=2,
        b_t=[[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        g=[[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        a_t=[[1, 1, 1, 0], [0, 1, -1, -1]],
        dtype=torch.bfloat16,
        least_channels=256,
    ),
)

TILES = 512
"""Tiles per step (at least one row), so that intermediate results stay in the CPU cache."""


class WinogradConv2d(nn.Module):
    """Computes a convolution by a `fitting` algorithm: equal up to rounding, faster on CPUs.

    Args:
        convolution: source of weights and bias.
        algorithm: algorithm, and type of the arithmetic.
    """

    weight: Tensor
    inwards: Tensor
    outwards: Tensor

    def __init__(self, convolution: nn.Conv2d, algorithm: Algorithm):
        super().__init__()
        b_t, g, a_t = (torch.tensor(m, dtype=torch.float64) for m in (algorithm.b_t, algorithm.g, algorithm.a_t))
        weight = torch.einsum("ai,bj,kcij->abkc", g, g, convolution.weight.double().cpu()).flatten(0, 2)
        self.m = algorithm.m
        self.register_buffer("weight", weight.to(algorithm.dtype)[..., None, None])  # [(m + 2)² · out, in, 1, 1]
        self.register_buffer("inwards", torch.kron(b_t, b_t).to(algorithm.dtype))  # [(m + 2)², (m + 2)²]
        self.register_buffer("outwards", torch.kron(a_t, a_t).to(algorithm.dtype))  # [m², (m + 2)²]
        self.bias = convolution.bias

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        images = x.to(self.weight.dtype).permute(0, 2, 3, 1)
        count, height, width, channels = images.shape
        m = self.m
        rows, columns = -(-height // m), -(-width // m)
        points = len(self.inwards)
        outputs = len(self.weight) // points
        at_once = min(rows, max(1, TILES // columns))
        # buffers for all steps, and the result, which is filled step by step
        band = images.new_zeros(m * at_once + 2, m * columns + 2, channels)
        tiles = images.new_empty(at_once * columns, points, channels)
        seen = torch.empty_like(tiles)
        made = images.new_empty(at_once * columns, m**2, outputs)
        result = images.new_empty(count, rows, m, columns, m, outputs)
        windows = band.unfold(0, m + 2, m).unfold(1, m + 2, m).permute(0, 1, 3, 4, 2)
        for image, maps in zip(images, result, strict=True):
            for first in range(0, rows, at_once):
                some = min(at_once, rows - first)
                _fill(band, image, m * first - 1)
                self._filter(windows[:some], tiles, seen, made)
                maps[first : first + some] = made[: some * columns].view(some, columns, m, m, outputs).transpose(1, 2)
        whole = result.view(count, rows * m, columns * m, outputs)
        return whole[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _filter(self, windows: Tensor, tiles: Tensor, seen: Tensor, made: Tensor) -> None:
        """Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A of some windows, [rows, columns, m + 2, m + 2, C], into the start of `made`."""
        n, points = windows.shape[0] * windows.shape[1], len(self.inwards)
        tiles[:n].view(windows.shape).copy_(windows)
        torch.bmm(self.inwards.expand(n, -1, -1), tiles[:n], out=seen[:n])
        points_last = seen[:n].view(1, n, 1, -1).permute(0, 3, 1, 2)  # point and channel as one, last in memory
        products = F.conv2d(points_last, self.weight, groups=points).permute(0, 2, 3, 1).reshape(n, points, -1)
        if self.bias is None:
            torch.bmm(self.outwards.expand(n, -1, -1), products, out=made[:n])
        else:  # add before the result is rounded: logits near 0 may be the difference of large values
            torch.baddbmm(self.bias.to(made.dtype), self.outwards.expand(n, -1, -1), products, out=made[:n])


def _fill(band: Float[Tensor, "h w C"], image: Float[Tensor, "H W C"], top: int) -> None:
    """Copies the rows of an image from `top` on into a band, except its outer columns; rows outside become zeros."""
    height, width = image.shape[:2]
    first, last = max(top, 0), min(top + len(band), height)
    band[: first - top].zero_()
    band[first - top : last - top, 1 : width + 1] = image[first:last]
    band[last - top :].zero_()


def fitting(module: nn.Module, dtype: torch.dtype) -> Algorithm | None:
    """The algorithm for a 3×3 convolution of stride 1 that keeps the size and has enough channels, else None.

    Also None for bf16 on processors with bf16 matrix units: there the transforms cost more than they save.
    """
    if type(module) is not nn.Conv2d or (dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()):
        return None
    shape = module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode
    same: Any = ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    channels = min(module.in_channels, module.out_channels) if shape == same else 0
    return next((a for a in ALGORITHMS if a.dtype == dtype and channels >= a.least_channels), None)


def use_winograd(network: nn.Module, dtype: torch.dtype) -> None:
    """Replaces the convolutions that fit, in place.

    Args:
        dtype: type of the network's arithmetic.
    """
    for name, module in list(network.named_modules()):
        if algorithm := fitting(module, dtype):
            network.set_submodule(name, WinogradConv2d(module, algorithm))  # pyright: ignore[reportArgumentType]
