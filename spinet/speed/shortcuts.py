"""§3.1 to §3.4 The same features, filters and logits with fewer multiplications, after training.

Every shortcut uses that linear layers can be reordered, or delayed until it is known where or with which filters their
result is needed.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spinet.model.filter_sampling import FilterSampling, Locations, neighbourhoods
from spinet.model.network import Network
from spinet.model.panoptic_feature import PanopticFeatureGenerator
from spinet.model.single_shot import SingleShot, batch_of_one
from spinet.model.spinet import SPINet


class EnlargedAfter(nn.Module):
    """A 3×3 convolution of a bilinearly enlarged map, computed from the small map (§3.3).

    Each of the nine taps multiplies the small map; the results are enlarged, shifted and added. So an output channel
    takes 9 D multiplications per cell of the small map, not per cell of the large one.

    Args:
        convolution: a convolution of stride 1, without bias.
        factor: the factor of the enlargement.
    """

    def __init__(self, convolution: nn.Conv2d, factor: int):
        super().__init__()
        weight = convolution.weight.permute(3, 2, 0, 1).flatten(0, 2)  # column of the tap, its row, output
        self.taps = nn.utils.skip_init(nn.Conv2d, weight.shape[1], weight.shape[0], 1, bias=False)
        self.taps.weight = nn.Parameter(weight[..., None, None], requires_grad=False)
        self.factor = factor

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K factor*h factor*w"]:
        wide = self._enlarge(self.taps(x).chunk(3, dim=1), axis=3)
        return self._enlarge(wide.chunk(3, dim=1), axis=2)

    def _enlarge(self, taps: tuple[Tensor, ...], axis: int) -> Tensor:
        """Enlarges the three taps along an axis and adds them, shifted; values outside the border count as zero."""
        scale = [float(self.factor) if axis == dim else 1.0 for dim in (2, 3)]
        before, here, after = (
            F.interpolate(tap.contiguous(memory_format=torch.channels_last), scale_factor=scale, mode="bilinear")
            for tap in taps
        )
        length = here.shape[axis] - 1
        here.narrow(axis, 1, length).add_(before.narrow(axis, 0, length))
        here.narrow(axis, 0, length).add_(after.narrow(axis, 1, length))
        return here


class FiltersOnDemand(nn.Module):
    """§3.2's module that computes the last convolution towards F_l only at the sampled locations.

    `forward` returns the features before that convolution in place of F_l.

    Args:
        sampling: the trained module; it is changed.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, sampling: FilterSampling):
        super().__init__()
        predictor: nn.Conv2d = sampling.filter_head[-1]  # pyright: ignore[reportAssignmentType]
        self.weight, self.bias = predictor.weight, predictor.bias  # pyright: ignore[reportAttributeAccessIssue]
        if sampling.skip is not None:  # a convolution of the coordinates: append them to the features
            projection = F.pad(sampling.SKIP * sampling.skip.weight, (1, 1, 1, 1))
            self.weight = nn.Parameter(torch.cat([self.weight, projection], dim=1), requires_grad=False)
            sampling.skip = None
            features = WithCoordinates(sampling.filter_head[:-1], sampling.coordinates.channels)
            sampling.filter_head = features  # pyright: ignore[reportAttributeAccessIssue]
        else:
            sampling.filter_head[-1] = nn.Identity()
        self.heads = sampling

    @property
    def fc(self) -> nn.Linear:
        """§3.2's fully connected layer."""
        return self.heads.fc

    def forward(
        self, levels: list[Float[Tensor, "B D H_l W_l"]], strides: list[int], windows: Float[Tensor, "B 4"]
    ) -> tuple[list[Float[Tensor, "B N_t H_l W_l"]], list[Float[Tensor, "B D H_l W_l"]]]:
        """Class logits, and the features before the last convolution towards F_l, of every level."""
        return self.heads(levels, strides, windows)

    def sample(self, before: list[Float[Tensor, "D H_l W_l"]], locations: Locations) -> Float[Tensor, "n D_phi k k"]:
        """The filters of one image at n locations, equal to `FilterSampling.sample`."""
        k = self.heads.kernel
        wide, inside = neighbourhoods(before, locations, k + 2)
        pooled = F.conv2d(wide, self.weight, self.bias)
        pooled = pooled * inside[:, None, 1:-1, 1:-1]  # outside the border F_l is zero
        return self.fc(pooled.flatten(1)).unflatten(1, (-1, k, k))


class WithCoordinates(nn.Module):
    """Layers whose input ends with the coordinate channels; these are also appended to the output."""

    def __init__(self, layers: nn.Module, channels: int):
        super().__init__()
        self.layers = layers
        self.channels = channels

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B K h w"]:
        return torch.cat([self.layers(x), x[:, -self.channels :]], dim=1)


class BeforeDeconvolution(nn.Module):
    """§3.3's generator without its deconvolution.

    If the generator adds coordinates or C2 to φ, their channels follow those of the features: four per channel, one for
    each of the 2×2 pixels of φ in a cell.
    """

    def __init__(self, generator: PanopticFeatureGenerator):
        super().__init__()
        self.generator = generator
        self.located, self.detailed = generator.skip is not None, generator.detail is not None

    def forward(
        self,
        levels: list[Float[Tensor, "B D H_l W_l"]],
        windows: Float[Tensor, "B 4"],
        c2: Float[Tensor, "B D_2 H W"],
    ) -> Float[Tensor, "B K h w"]:
        merged = self.generator.merged(levels, windows)
        added = []
        if self.located:
            added.append(self.generator.coordinates(c2, self.generator.STRIDE // 2, windows))  # C2 has the size of φ
        if self.detailed:
            added.append(c2)
        return torch.cat([merged, *(F.pixel_unshuffle(channels, 2) for channels in added)], dim=1)


def whole_deconvolution(generator: PanopticFeatureGenerator) -> nn.ConvTranspose2d:
    """The deconvolution that computes φ from the output of `BeforeDeconvolution`."""
    added = [layer.weight[..., 0, 0].t() for layer in (generator.skip, generator.detail) if layer is not None]
    if not added:
        return generator.deconvolution
    old, projection = generator.deconvolution, torch.cat(added)  # [C, D_phi]
    taps = torch.einsum("cd,po,qr->cpqdor", projection, torch.eye(2).to(projection), torch.eye(2).to(projection))
    weight = torch.cat([old.weight, taps.flatten(0, 2)])
    whole: Any = nn.utils.skip_init(nn.ConvTranspose2d, weight.shape[0], weight.shape[1], 2, stride=2)
    whole.weight, whole.bias = nn.Parameter(weight, requires_grad=False), old.bias
    return whole


class DeconvolvingSingleShot(nn.Module):
    """§3.3's deconvolution and §3.4's convolution in one, from stride 8 to logits at stride 4, without computing φ.

    A 3×3 window of φ lies in 2×2 cells of stride 8. So one 2×2 convolution gives the four logits of a filter around
    each corner of these cells. It takes 16 multiplications per channel of a cell; the convolution of φ takes 36. The
    4 D_φ multiplications of the deconvolution per channel of a cell are saved as well.

    Args:
        single_shot: the convolution, with 3×3 filters.
        deconvolution: 2×2, of stride 2, directly before the single-shot convolution.
    """

    def __init__(self, single_shot: SingleShot, deconvolution: nn.ConvTranspose2d):
        super().__init__()
        self.single_shot = single_shot
        self.deconvolution = deconvolution

    def forward(
        self, merged: Float[Tensor, "D h w"], thing_filters: Float[Tensor, "n D_phi 3 3"]
    ) -> tuple[Float[Tensor, "n 2h 2w"], Float[Tensor, "N_s 2h 2w"]]:
        """Logits of the n things and the N_s stuff classes of one image, equal to those of `SingleShot`."""
        n = len(thing_filters)
        filters, bias = self.single_shot.join(thing_filters)
        kernel, offset = compose(filters, self.deconvolution)
        corners = F.conv2d(batch_of_one(merged), kernel, (bias + offset.sum((1, 2))).repeat_interleave(4), padding=1)
        # the four logits around each corner; around corners on the border, half of them lie outside
        logits = F.pixel_shuffle(corners, 2)[0, :, 1:-1, 1:-1]
        _forget_outside(logits, offset)
        return logits[:n], logits[n:]


def compose(
    filters: Float[Tensor, "N D_phi 3 3"], deconvolution: nn.ConvTranspose2d
) -> tuple[Float[Tensor, "4*N D 2 2"], Float[Tensor, "N 3 3"]]:
    """Composes filters and deconvolution.

    Returns the 2×2 filters of the composition, with row and column of the logit as the faster index, and the
    contribution of the deconvolution's bias through each position of a filter.
    """
    # logit (p, q) of a corner reads rows p … p + 2 and columns q … q + 2 of the 4×4 positions of φ in the 2×2 cells
    placed = torch.stack([F.pad(filters, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)], dim=1)
    kernel = F.conv2d(placed.flatten(0, 1), deconvolution.weight, stride=2)
    bias: Tensor = deconvolution.bias  # pyright: ignore[reportAssignmentType]
    offset = torch.einsum("ncuv,c->nuv", filters, bias.to(filters.dtype))
    return kernel, offset


def _forget_outside(logits: Float[Tensor, "N H W"], offset: Float[Tensor, "N 3 3"]) -> None:
    """Subtracts, in place, what the deconvolution's bias adds outside the border, where φ counts as zero."""
    for edge in (0, -1):
        logits[:, edge] -= offset[:, edge].sum(1)[:, None]
        logits[:, :, edge] -= offset[:, :, edge].sum(1)[:, None]
        for other in (0, -1):
            logits[:, edge, other] += offset[:, edge, other]  # was subtracted twice


@singledispatch
def take_shortcuts(network: Network) -> None:
    """Does nothing: only SPINet has shortcuts."""


@take_shortcuts.register
def _(network: SPINet) -> None:
    """Applies all shortcuts that keep the result, in place.

    The deconvolution stays where it is if a layer follows it before the single-shot convolution, or if things and stuff
    have separate features. On CUDA levels are enlarged before their convolution: there, moving the bytes of nine taps
    costs more than the saved multiplications.
    """
    lateral = network.fpn.lateral
    if "C2" in lateral:
        lateral["C2"] = nn.Sequential(nn.AvgPool2d(2), lateral["C2"])  # pool before its 1×1 convolution, not after it
    for generator in (network.panoptic_feature, network.stuff_feature):
        if generator is not None and not network.mean.is_cuda:
            _enlarge_last(generator)
    network.filter_sampling = FiltersOnDemand(network.filter_sampling)  # pyright: ignore[reportAttributeAccessIssue]
    generator, convolution = network.panoptic_feature, network.single_shot_convolution
    linear = isinstance(generator.end, nn.Identity) and convolution.weight.shape[-1] == 3
    if linear and network.stuff_feature is None:
        network.single_shot_convolution = DeconvolvingSingleShot(convolution, whole_deconvolution(generator))  # pyright: ignore[reportAttributeAccessIssue]
        network.panoptic_feature = BeforeDeconvolution(generator)  # pyright: ignore[reportAttributeAccessIssue]
        generator.deconvolution, generator.skip, generator.detail = nn.Identity(), None, None  # pyright: ignore[reportAttributeAccessIssue]


def _enlarge_last(generator: PanopticFeatureGenerator) -> None:
    for number, (resize, level) in enumerate(zip(generator.resize, generator.levels, strict=True)):
        if isinstance(resize, nn.Upsample):
            first: Any = level[0]  # pyright: ignore[reportIndexIssue]
            first[0] = EnlargedAfter(first[0], int(resize.scale_factor))  # pyright: ignore[reportArgumentType]
            generator.resize[number] = nn.Identity()
