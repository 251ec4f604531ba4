"""§3.4 Unified single-shot convolution: one convolution, every thing and every stuff."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SingleShot(nn.Module):
    """Holds the trainable stuff filters and applies them together with the sampled thing filters.

    Things have no bias: a filter is k² D_φ numbers in all.
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
        weight = torch.cat([thing_filters, self.weight.to(thing_filters.dtype)])
        bias = torch.cat([thing_filters.new_zeros(n), self.bias.to(thing_filters.dtype)])
        logits = F.conv2d(phi[None], weight, bias, padding=self.padding)[0]
        return logits[:n], logits[n:]

    def separate(
        self,
        phi_things: Float[Tensor, "D_phi H W"],
        phi_stuff: Float[Tensor, "D_phi H W"],
        thing_filters: Float[Tensor, "n D_phi k k"],
    ) -> tuple[Float[Tensor, "n H W"], Float[Tensor, "N_s H W"]]:
        """The same by two convolutions over two features: the variant that Table 5 compares with."""
        filters = torch.cat([thing_filters, self.weight[:1].to(thing_filters.dtype)])  # there must be at least one
        things = F.conv2d(phi_things[None], filters, padding=self.padding)[0, :-1]
        stuff = F.conv2d(phi_stuff[None], self.weight, self.bias, padding=self.padding)[0]
        return things, stuff
