"""Layers that several parts of §3 share: coordinates and conv-GN-ReLU."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvGNReLU(nn.Sequential):
    """3×3 convolution, group normalisation, ReLU: the block that §5.2 uses outside the backbone."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            group_norm(out_channels),
            nn.ReLU(inplace=True),
        )


def group_norm(channels: int, **options: Any) -> nn.GroupNorm:
    """Group normalisation with 32 groups, fewer where the channels do not divide or a group would be one channel."""
    return nn.GroupNorm(math.gcd(32, channels if channels > 32 else max(1, channels // 2)), channels, **options)


def set_group_channels(module: nn.Module, channels: int) -> None:
    """Gives every group norm under `module` groups of `channels` channels, or the next larger number that divides."""
    for norm in module.modules():
        if isinstance(norm, nn.GroupNorm):
            sizes = range(min(channels, norm.num_channels), norm.num_channels + 1)
            norm.num_groups = norm.num_channels // next(n for n in sizes if norm.num_channels % n == 0)


class Coordinates(nn.Module):
    """Absolute positions as extra channels (§3.2 "absolute positional information", §3.3, CoordConv).

    frame: what −1 … 1 spans: the whole "image" that a crop was taken from, the "crop" itself, or a fixed number of
        "pixels" (`PIXELS` to a unit, from the image's left top corner).
    frequencies: 0 gives x and y alone; F adds sin and cos of π·2^f·x and π·2^f·y for f < F.
    """

    PIXELS = 512.0

    def __init__(self, *, frame: Literal["image", "crop", "pixels"] = "image", frequencies: int = 0):
        super().__init__()
        self.frame = frame
        self.frequencies = frequencies
        self.channels = 2 + 4 * frequencies

    def forward(
        self, feature: Float[Tensor, "B D H W"], stride: int, windows: Float[Tensor, "B 4"]
    ) -> Float[Tensor, "B D_c H W"]:
        """The channels for a feature map.

        Args:
            feature: gives size, type and device.
            stride: image pixels to a cell.
            windows: left, top, full width, full height of each image in the image it was cropped from, pixels.
        """
        height, width = feature.shape[-2:]
        windows = windows.to(feature.device, torch.float32)
        x = self._axis(width, stride, windows[:, 0], windows[:, 2])  # [B, W]
        y = self._axis(height, stride, windows[:, 1], windows[:, 3])  # [B, H]
        channels = torch.cat(
            [
                self._encode(x)[:, :, None, :].expand(-1, -1, height, -1),
                self._encode(y)[:, :, :, None].expand(-1, -1, -1, width),
            ],
            dim=1,
        )
        return channels.to(feature.dtype)

    def projection(self, out_channels: int) -> nn.Conv2d:
        """A 1×1 convolution of the channels without bias. With waves its output starts at unit variance."""
        conv = nn.Conv2d(self.channels, out_channels, 1, bias=False)
        nn.init.normal_(conv.weight, std=math.sqrt(2 / self.channels))
        return conv

    def _axis(self, cells: int, stride: int, start: Tensor, extent: Tensor) -> Tensor:
        centres = (torch.arange(cells, device=start.device) + 0.5) * stride  # pixels from the crop's edge
        if self.frame == "crop":
            return (2 * centres / (cells * stride) - 1).expand(len(start), -1)
        position = start[:, None] + centres
        if self.frame == "image":
            return 2 * position / extent[:, None] - 1
        return position / self.PIXELS

    def _encode(self, axis: Float[Tensor, "B N"]) -> Float[Tensor, "B C N"]:
        waves = [f(math.pi * 2**k * axis) for k in range(self.frequencies) for f in (torch.sin, torch.cos)]
        return torch.stack([axis, *waves], dim=1)
