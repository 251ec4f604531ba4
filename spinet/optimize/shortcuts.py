"""§3.2, §3.4 The same filters and the same logits from fewer multiplications, after training.

Both use that a layer whose result is linear in its input can be put off until it is known where, or with what, the
result is wanted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spinet.model.filter_sampling import FilterSampling, Locations, neighbourhoods
from spinet.model.single_shot import SingleShot, batch_of_one
from spinet.model.spinet import SPINet


class FiltersOnDemand(nn.Module):
    """§3.2's module, whose last convolution towards F_l is computed at the sampled places alone.

    `forward` gives the features before that convolution in place of F_l.

    Args:
        sampling: is taken apart.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, sampling: FilterSampling):
        super().__init__()
        predictor: nn.Conv2d = sampling.filter_head[-1]  # pyright: ignore[reportAssignmentType]
        self.weight, self.bias = predictor.weight, predictor.bias  # pyright: ignore[reportAttributeAccessIssue]
        sampling.filter_head[-1] = nn.Identity()
        self.heads = sampling

    @property
    def fc(self) -> nn.Linear:
        """§3.2's fully connected layer."""
        return self.heads.fc

    def forward(
        self, levels: list[Float[Tensor, "B D H_l W_l"]], strides: list[int], windows: Float[Tensor, "B 4"]
    ) -> tuple[list[Float[Tensor, "B N_t H_l W_l"]], list[Float[Tensor, "B D H_l W_l"]]]:
        """Class logits, and what F_l is one convolution away from, of every level."""
        return self.heads(levels, strides, windows)

    def sample(self, before: list[Float[Tensor, "D H_l W_l"]], locations: Locations) -> Float[Tensor, "n D_phi k k"]:
        """The filters of one image at n locations, as `FilterSampling.sample` gives them."""
        k = self.heads.kernel
        wide, inside = neighbourhoods(before, locations, k + 2)
        pooled = F.conv2d(wide, self.weight, self.bias)
        pooled = pooled * inside[:, None, 1:-1, 1:-1]  # F_l ends at the border
        return self.fc(pooled.flatten(1)).unflatten(1, (-1, k, k))


class DeconvolvingSingleShot(nn.Module):
    """§3.3's deconvolution and §3.4's convolution in one, from stride 8 to logits at stride 4: φ itself is never made.

    A 3×3 window of φ lies in 2×2 cells of stride 8. So one 2×2 convolution gives, around every corner of these cells,
    the four logits of a filter: for each channel of a cell 16 multiplications where the convolution of φ takes 36. The
    4 D_φ of the deconvolution for each channel of a cell are saved.

    Args:
        single_shot: with 3×3 filters.
        deconvolution: 2×2, of stride 2, with nothing between it and the single-shot convolution.
    """

    def __init__(self, single_shot: SingleShot, deconvolution: nn.ConvTranspose2d):
        super().__init__()
        self.single_shot = single_shot
        self.deconvolution = deconvolution

    def forward(
        self, merged: Float[Tensor, "D h w"], thing_filters: Float[Tensor, "n D_phi 3 3"]
    ) -> tuple[Float[Tensor, "n 2h 2w"], Float[Tensor, "N_s 2h 2w"]]:
        """Logits of the n things and the N_s stuff classes of one image, as `SingleShot` gives them."""
        n = len(thing_filters)
        filters, bias = self.single_shot.join(thing_filters)
        kernel, offset = compose(filters, self.deconvolution)
        corners = F.conv2d(batch_of_one(merged), kernel, (bias + offset.sum((1, 2))).repeat_interleave(4), padding=1)
        # the four logits around each corner; those around the corners of the border lie outside by half
        logits = F.pixel_shuffle(corners, 2)[0, :, 1:-1, 1:-1]
        _forget_outside(logits, offset)
        return logits[:n], logits[n:]


def compose(
    filters: Float[Tensor, "N D_phi 3 3"], deconvolution: nn.ConvTranspose2d
) -> tuple[Float[Tensor, "4*N D 2 2"], Float[Tensor, "N 3 3"]]:
    """The 2×2 filters of the composition, row and column of the logit being the faster index, and what the bias of the
    deconvolution adds through each place of a filter."""
    # logit (p, q) of a corner reads rows p … p + 2 and columns q … q + 2 of the 4×4 places of φ in the 2×2 cells
    placed = torch.stack([F.pad(filters, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)], dim=1)
    kernel = F.conv2d(placed.flatten(0, 1), deconvolution.weight, stride=2)
    bias: Tensor = deconvolution.bias  # pyright: ignore[reportAssignmentType]
    offset = torch.einsum("ncuv,c->nuv", filters, bias.to(filters.dtype))
    return kernel, offset


def _forget_outside(logits: Float[Tensor, "N H W"], offset: Float[Tensor, "N 3 3"]) -> None:
    """Takes back what the deconvolution's bias adds beyond the border, where φ counts as zero, in place."""
    for edge in (0, -1):
        logits[:, edge] -= offset[:, edge].sum(1)[:, None]
        logits[:, :, edge] -= offset[:, :, edge].sum(1)[:, None]
        for other in (0, -1):
            logits[:, edge, other] += offset[:, edge, other]  # was taken back twice


def take_shortcuts(network: SPINet) -> None:
    """Both, in place, where they give the same: not where something stands between deconvolution and convolution, or
    things and stuff have a feature each."""
    network.filter_sampling = FiltersOnDemand(network.filter_sampling)  # pyright: ignore[reportAttributeAccessIssue]
    generator, convolution = network.panoptic_feature, network.single_shot_convolution
    linear = isinstance(generator.end, nn.Identity) and convolution.weight.shape[-1] == 3
    if linear and network.stuff_feature is None:
        network.single_shot_convolution = DeconvolvingSingleShot(convolution, generator.deconvolution)  # pyright: ignore[reportAttributeAccessIssue]
        generator.deconvolution = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
