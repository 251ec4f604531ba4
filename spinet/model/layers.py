"""Layers shared by several modules of §3: conv-GN-ReLU, group norm and coordinates."""

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


class NoOutput(nn.Module):
    """Replaces the output convolution if there are no classes."""

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B 0 H W"]:
        return x[:, :0]


def group_norm(channels: int, **options: Any) -> nn.GroupNorm:
    """Group normalisation with 32 groups; fewer if 32 does not divide the channels or groups would have one channel."""
    return GroupNorm(math.gcd(32, channels if channels > 32 else max(1, channels // 2)), channels, **options)


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm. On CUDA it keeps the type and memory format of its input; statistics are in float32.

    On CUDA, autocast and PyTorch's kernel would convert the input to float32 with channels first, and the next
    convolution would convert it back. This moves more bytes than the convolutions themselves.
    """

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if not input.is_cuda:
            return super().forward(input)
        with torch.autocast("cuda", enabled=False):
            return group_norm_in_order(input, self.num_groups, self.weight, self.bias, self.eps)


def group_norm_in_order(
    x: Float[Tensor, "B C H W"],
    groups: int,
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    eps: float,
) -> Float[Tensor, "B C H W"]:
    """Group normalisation by sums over the pixels of each channel, which work in any memory format."""
    return _GroupNormInOrder.apply(x, groups, weight, bias, eps)  # pyright: ignore[reportReturnType]


class _GroupNormInOrder(torch.autograd.Function):
    """y = w (x − μ) / σ + b, with μ and σ of each group of each image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=(2, 3), dtype=exact)
        moments = torch.stack([x.mean((2, 3), dtype=exact), norm.square() / x[0, 0].numel()])
        mean, square = moments.unflatten(2, (groups, -1)).mean(3, keepdim=True)  # [B, G, 1]
        deviation = torch.addcmul(square, mean, mean, value=-1).clamp_(min=0).add_(eps).rsqrt_()  # 1 / σ
        scale = weight.unflatten(0, (groups, -1)) * deviation
        shift = torch.addcmul(bias.unflatten(0, (groups, -1)), mean, scale, value=-1)
        ctx.save_for_backward(x, weight, mean, deviation)
        return torch.addcmul(_spread(shift, x), x, _spread(scale, x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, deviation = ctx.saved_tensors
        (dy,) = gradients
        # with x̂ = (x − μ) / σ and g = w dy: dx = (g − mean of g − x̂ · mean of g x̂) / σ, means over a group
        by_group = (mean.shape[1], -1)
        total = dy.sum((2, 3), dtype=mean.dtype).unflatten(1, by_group)  # Σ dy, [B, G, c]
        of_normed = (dy * x).sum((2, 3), dtype=mean.dtype).unflatten(1, by_group)
        of_normed = (of_normed - mean * total) * deviation  # Σ dy x̂
        w, pixels = weight.unflatten(0, by_group), x[0, 0].numel()
        first = (w * total).mean(2, keepdim=True) / pixels
        second = (w * of_normed).mean(2, keepdim=True) / pixels
        slope = -second * deviation.square()
        rest = -first * deviation - slope * mean
        dx = torch.addcmul(_spread(rest.expand_as(total), x), x, _spread(slope.expand_as(total), x))
        dx = torch.addcmul(dx, dy, _spread(w * deviation, x))
        dw, db = (sums.sum(0).flatten().to(weight.dtype) for sums in (of_normed, total))
        return dx, None, dw, db, None


def _spread(values: Float[Tensor, "B G c"], like: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
    return values.flatten(1)[:, :, None, None].to(like.dtype)


def set_group_channels(module: nn.Module, channels: int) -> None:
    """Sets the group size of every group norm in `module` to `channels`, or the next larger number that divides."""
    for norm in module.modules():
        if isinstance(norm, nn.GroupNorm):
            sizes = range(min(channels, norm.num_channels), norm.num_channels + 1)
            norm.num_groups = norm.num_channels // next(n for n in sizes if norm.num_channels % n == 0)


class Coordinates(nn.Module):
    """Absolute positions as extra channels (§3.2 "absolute positional information", §3.3, CoordConv).

    Args:
        frame: span of −1 … 1: the whole "image" that a crop was taken from, or the "crop" itself. With "pixels", the
            origin is the top left corner of the image.
        unit: pixels of 1 in the frame "pixels". The longest waves repeat after two units.
        frequencies: 0 gives only x and y; F adds sin and cos of π·2^f·x and π·2^f·y for f < F.
    """

    def __init__(
        self, *, frame: Literal["image", "crop", "pixels"] = "image", unit: float = 512.0, frequencies: int = 0
    ):
        super().__init__()
        self.frame = frame
        self.unit = unit
        self.frequencies = frequencies
        self.channels = 2 + 4 * frequencies

    def forward(
        self, feature: Float[Tensor, "B D H W"], stride: int, windows: Float[Tensor, "B 4"]
    ) -> Float[Tensor, "B D_c H W"]:
        """The channels for a feature map.

        Args:
            feature: determines size, type and device.
            stride: image pixels per cell.
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
        """A 1×1 convolution of the channels, without bias. With `frequencies` its initial output has unit variance."""
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
        return position / self.unit

    def _encode(self, axis: Float[Tensor, "B N"]) -> Float[Tensor, "B C N"]:
        waves = [f(math.pi * 2**k * axis) for k in range(self.frequencies) for f in (torch.sin, torch.cos)]
        return torch.stack([axis, *waves], dim=1)


def num_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, trained or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
