"""§4 Auxiliary tasks that cluster the Panoptic-Feature (Eq. 3-6): ground truth, heads and losses.

The heads are used only in training.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spinet.data.label_space import IGNORE
from spinet.objective.losses import focal


def partial_masks(masks: Bool[Tensor, "K h w"], generator: torch.Generator) -> Bool[Tensor, "2 K h w"]:
    """Eq. 3: M_k = m_k ⊙ m_r and M'_k = m_k ⊙ ~m_r. All instances share m_r, since they do not overlap."""
    m_r = (torch.rand(masks.shape[-2:], generator=generator) < 0.5).to(masks.device)
    return torch.stack([masks & m_r, masks & ~m_r])


def find_negatives(labels: Int[Tensor, "K"], usable: Bool[Tensor, "K"]) -> Bool[Tensor, "K K"]:
    """Eq. 5: for each anchor, the other instances of its class in the image; if there are none, all other instances."""
    other = usable[:, None] & usable & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = other & (labels[:, None] == labels)
    return torch.where(same.any(1, keepdim=True), same, other)


class IntraClassTriplet(nn.Module):
    """Intra-class triplet loss: attracts the halves of an instance, repels other instances."""

    def __init__(self, *, feature_channels: int):
        super().__init__()
        self.fc = nn.Linear(feature_channels, feature_channels)

    def representations(
        self, phi: Float[Tensor, "D_phi h w"], halves: Bool[Tensor, "2 K h w"]
    ) -> Float[Tensor, "2 K D_phi"]:
        """Eq. 4: V = FC(v), v the mean of φ over a partial mask (0 where the mask is empty)."""
        mask = halves.flatten(2).to(phi.dtype)  # [2, K, h w]
        total = mask @ phi.permute(1, 2, 0).flatten(0, 1)  # no copy where φ is channels last
        return self.fc(total / mask.sum(-1, keepdim=True).clamp(min=1))

    def forward(
        self,
        phi: Float[Tensor, "D_phi h w"],
        halves: Bool[Tensor, "2 K h w"],
        negatives: Bool[Tensor, "K K"],
    ) -> Float[Tensor, ""]:
        """L_intra of one image, summed over its triplets (anchor V_k, positive V'_k, negative V_j)."""
        anchor, positive = self.representations(phi.float(), halves)
        # Eq. 5: d_p = −DIST(V_a, V_p), d_n = −DIST(V_a, V_n)
        d_p = -distance(anchor, positive)
        d_n = -distance(anchor[:, None], anchor[None])
        # Eq. 5: −log(e^dp / (e^dp + e^dn)) = softplus(d_n − d_p)
        return (F.softplus(d_n - d_p[:, None]) * negatives).sum()


def distance(a: Float[Tensor, "*n D"], b: Float[Tensor, "*n D"], eps: float = 1e-6) -> Float[Tensor, "*n"]:
    """L2 distance with a finite gradient where both are equal."""
    return ((a - b).square().sum(-1) + eps).sqrt()


def soft_contour(labels: Int[Tensor, "H W"], sigma: float) -> Float[Tensor, "H W"]:
    """Ground truth of Eq. 6: exp(−d²/2σ²) at distance d, in pixels, from the nearest border between classes.

    Contour pixels are those with a 4-neighbour of another class, both not IGNORE; σ = 0 gives only these.
    """
    contour = torch.zeros_like(labels, dtype=torch.bool)
    vertical = (labels[1:] != labels[:-1]) & (labels[1:] >= 0) & (labels[:-1] >= 0)
    contour[1:] |= vertical
    contour[:-1] |= vertical
    horizontal = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] >= 0) & (labels[:, :-1] >= 0)
    contour[:, 1:] |= horizontal
    contour[:, :-1] |= horizontal
    soft = contour.float()
    if sigma == 0:
        return soft
    radius = math.ceil(3 * sigma)
    # the maximum of a product of two Gaussians is separable: first along x, then along y
    for axis in (1, 0):
        size = soft.shape[axis]
        padded = F.pad(soft, (radius, radius, 0, 0) if axis else (0, 0, radius, radius))
        shifted = [
            math.exp(-((offset - radius) ** 2) / (2 * sigma**2)) * padded.narrow(axis, offset, size)
            for offset in range(2 * radius + 1)
        ]
        soft = torch.stack(shifted).amax(0)
    return soft


class InterClassContour(nn.Module):
    """Inter-class contour loss: a 1×1 convolution of φ predicts class borders, 4×4 pixels for each cell."""

    UPSCALE = 4

    def __init__(self, *, feature_channels: int, alpha: float = 0.25, gamma: float = 2.0):
        super().__init__()
        self.conv = nn.Conv2d(feature_channels, self.UPSCALE**2, 1)
        nn.init.constant_(self.conv.bias, -4.6)  # pyright: ignore[reportArgumentType]  # contours are rare: p = 0.01 at the start
        self.alpha, self.gamma = alpha, gamma

    def logits(self, phi: Float[Tensor, "B D_phi h w"]) -> Float[Tensor, "B H W"]:
        """Contour logits at the resolution of the image, by pixel shuffle."""
        return F.pixel_shuffle(self.conv(phi), self.UPSCALE)[:, 0]

    def forward(self, phi: Float[Tensor, "B D_phi h w"], contour: Float[Tensor, "B H W"]) -> Float[Tensor, ""]:
        """Eq. 6 before its division: FOCAL(y, ŷ), summed over the pixels that are not IGNORE."""
        loss = focal(self.logits(phi).float(), contour, alpha=self.alpha, gamma=self.gamma)
        return (loss * (contour != IGNORE)).sum()
