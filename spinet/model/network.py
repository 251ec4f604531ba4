"""Base class of all networks: a backbone, and normalisation and padding of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from spinet.model.backbone import Backbone


class Network(nn.Module):
    """A backbone with its normalisation. Subclasses add the other modules.

    Args:
        divisor: pad images to a multiple of this at the right and the bottom, so that every level covers the same area.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, backbone: Backbone, divisor: int):
        super().__init__()
        self.backbone = backbone
        self.divisor = divisor
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(backbone.std)[:, None, None], persistent=False)

    def normalised(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """Normalises images of 0 … 255 for the backbone, and pads them with the mean colour."""
        height, width = images.shape[-2:]
        return F.pad((images - self.mean) / self.std, (0, -width % self.divisor, 0, -height % self.divisor))
