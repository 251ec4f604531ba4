"""§3.2 Filter sampling module: finds things and samples a convolutional filter for each."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spinet.model.layers import ConvGNReLU, Coordinates, NoOutput


class Locations(NamedTuple):
    """n locations on the pyramid of one image."""

    level: Int[Tensor, "n"]  # index among the module's input levels
    y: Int[Tensor, "n"]  # cell row
    x: Int[Tensor, "n"]  # cell column


class FilterSampling(nn.Module):
    """Class scores C_l, filter features F_l, and the filters sampled from F_l. All levels share the weights.

    Args:
        coordinate_skip: also add a learned projection of the coordinates to F_l. Beyond the paper.
    """

    SKIP = 0.4  # factor of the projection; initially both parts of F_l are equally large

    def __init__(
        self,
        *,
        in_channels: int,
        num_things: int,
        coordinates: Coordinates,
        num_convs: int = 4,
        filter_channels: int = 256,
        feature_channels: int = 256,
        kernel: int = 3,
        filter_scale: float = 1.0,
        coordinate_skip: bool = False,
        prior: float = 0.01,
    ):
        super().__init__()
        self.kernel = kernel
        self.coordinates = coordinates
        self.class_head = nn.Sequential(
            *(ConvGNReLU(in_channels, in_channels) for _ in range(num_convs)),
            nn.Conv2d(in_channels, num_things, 3, padding=1) if num_things else NoOutput(),
        )
        if num_things:
            nn.init.normal_(self.class_head[-1].weight, std=0.01)  # pyright: ignore[reportArgumentType]
            nn.init.constant_(self.class_head[-1].bias, -math.log((1 - prior) / prior))  # pyright: ignore[reportArgumentType]
        widths = [in_channels + coordinates.channels, *[in_channels] * num_convs]
        self.filter_head = nn.Sequential(
            *(ConvGNReLU(before, after) for before, after in pairwise(widths)),
            nn.Conv2d(in_channels, filter_channels, 3, padding=1),
        )
        self.skip = coordinates.projection(filter_channels) if coordinate_skip else None
        pooled, flat = kernel**2 * filter_channels, kernel**2 * feature_channels
        self.fc = nn.Linear(pooled, flat)
        # logits of unit variance for features of unit variance
        nn.init.normal_(self.fc.weight, std=filter_scale / math.sqrt(pooled * flat))
        nn.init.zeros_(self.fc.bias)

    def forward(
        self, levels: list[Float[Tensor, "B D H_l W_l"]], strides: list[int], windows: Float[Tensor, "B 4"]
    ) -> tuple[list[Float[Tensor, "B N_t H_l W_l"]], list[Float[Tensor, "B D_f H_l W_l"]]]:
        """Class logits and filter features of every level."""
        classes = [self.class_head(p) for p in levels]
        waves = [self.coordinates(p, s, windows) for p, s in zip(levels, strides, strict=True)]
        filters = [self.filter_head(torch.cat(pair, dim=1)) for pair in zip(levels, waves, strict=True)]
        if self.skip is not None:
            filters = [f + self.SKIP * self.skip(wave) for f, wave in zip(filters, waves, strict=True)]
        return classes, filters

    def sample(self, filters: list[Float[Tensor, "D_f H_l W_l"]], locations: Locations) -> Float[Tensor, "n D_phi k k"]:
        """The filters of one image at n locations: the k×k neighbourhood of F_l, then the fully connected layer.

        The layer processes only the sampled locations (§3.2). Neighbours beyond the border are zero.
        """
        pooled, _ = neighbourhoods(filters, locations, self.kernel)
        return self.fc(pooled.flatten(1)).unflatten(1, (-1, self.kernel, self.kernel))


def neighbourhoods(
    levels: list[Float[Tensor, "D H_l W_l"]], locations: Locations, side: int
) -> tuple[Float[Tensor, "n D side side"], Bool[Tensor, "n side side"]]:
    """The cells around each of n locations, zero beyond the border, and a mask of the cells inside it.

    Args:
        side: side of the square of cells, odd.
    """
    step = torch.arange(side, device=locations.level.device) - side // 2
    rows = locations.y[:, None, None] + step[:, None]  # [n, side, 1]
    columns = locations.x[:, None, None] + step  # [n, 1, side]
    found, within = [], []
    for number, level in enumerate(levels):
        height, width = level.shape[1:]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        here = inside & (locations.level == number)[:, None, None]
        values = level.permute(1, 2, 0)[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]  # [n, side, side, D]
        found.append(values * here[..., None])
        within.append(here)
    return torch.stack(found).sum(0).permute(0, 3, 1, 2), torch.stack(within).any(0)
