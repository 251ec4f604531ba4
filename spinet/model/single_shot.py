"""§3.4 Unified single-shot convolution: one convolution for all things and stuff."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SingleShot(nn.Module):
    """Contains the trainable stuff filters, and applies them together with the sampled thing filters.

    Things have no bias: a filter consists of k² D_φ numbers.
    """

    def __init__(self, *, num_stuff: int, feature_channels: int, kernel: int = 3):
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(num_stuff, feature_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(num_stuff))
        nn.init.normal_(self.weight, std=1 / math.sqrt(kernel**2 * feature_channels))

    def forward(
        self, phi: Float[Tensor, "D_phi H W"], thing_filters: Float[Tensor, "n D_phi k k"]
    ) -> tuple[Float[Tensor, "n H W"], Float[Tensor, "N_s H W"]]:
        """Logits of the n things and the N_s stuff classes of one image, by one convolution."""
        n = len(thing_filters)
        logits = F.conv2d(batch_of_one(phi), *self.join(thing_filters), padding=self.padding)[0]
        return logits[:n], logits[n:]

    def join(
        self, thing_filters: Float[Tensor, "n D_phi k k"]
    ) -> tuple[Float[Tensor, "n+N_s D_phi k k"], Float[Tensor, "n+N_s"]]:
        """Filters and biases of the joint convolution, things before stuff, in the type of the thing filters."""
        weight = torch.cat([thing_filters, self.weight.to(thing_filters.dtype)])
        bias = torch.cat([thing_filters.new_zeros(len(thing_filters)), self.bias.to(thing_filters.dtype)])
        return weight, bias

    def separate(
        self,
        phi_things: Float[Tensor, "D_phi H W"],
        phi_stuff: Float[Tensor, "D_phi H W"],
        thing_filters: Float[Tensor, "n D_phi k k"],
    ) -> tuple[Float[Tensor, "n H W"], Float[Tensor, "N_s H W"]]:
        """The same by two convolutions on two features: the separate variant of Table 5."""
        filters = torch.cat([thing_filters, self.weight[:1].to(thing_filters.dtype)])  # at least one is needed
        things = F.conv2d(batch_of_one(phi_things), filters, padding=self.padding)[0, :-1]
        stuff = F.conv2d(batch_of_one(phi_stuff), self.weight, self.bias, padding=self.padding)[0]
        return things, stuff


def batch_of_one(phi: Float[Tensor, "D_phi H W"]) -> Float[Tensor, "1 D_phi H W"]:
    """`phi[None]` that stays channels last if φ is; otherwise the convolution would copy φ first."""
    return phi.movedim(0, -1)[None].movedim(-1, 1)


def within_reach(
    logits: Float[Tensor, "n H W"], positions: Float[Tensor, "n 2"], *, reach: float, stride: int
) -> Float[Tensor, "n H W"]:
    """Limits each mask to the square of `reach` pixels on every side of the location of its filter.

    So a filter only has to separate its object from similar objects nearby. A filter trained on crops is not applied to
    pixels further away than the size of a crop.

    Args:
        logits: of n things.
        positions: row and column of each filter, in pixels of the network's input.
        stride: pixels per cell of the logits.
    """
    far = torch.zeros_like(logits, dtype=torch.bool)
    for axis in (0, 1):
        pixels = (torch.arange(logits.shape[1 + axis], device=logits.device) + 0.5) * stride
        far |= ((pixels - positions[:, axis, None]).abs() > reach).unsqueeze(2 - axis)
    return logits.masked_fill(far, -1e4)
