"""Panoptic-DeepLab (Cheng et al., CVPR 2020): semantic labels, centres of things, and offsets that point to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops import Conv2dNormActivation

from spinet.baselines.merge import add_stuff
from spinet.baselines.system import Baseline, Instance, Segmentation, upsampled
from spinet.baselines.targets import BaselineTargets, ImageTruth, centres_of_mass
from spinet.config import InferenceConfig
from spinet.config.baselines import PanopticDeepLabConfig
from spinet.data.label_space import IGNORE, LabelSpace
from spinet.model.backbone import Backbone

STRIDE = 4  # stride of all outputs


@dataclass
class DeepLabOutputs:
    """Outputs for a batch, at stride 4."""

    semantic: Float[Tensor, "B N_s h w"]  # logits
    centre: Float[Tensor, "B 1 h w"]  # heat map, about 0 … 1
    offset: Float[Tensor, "B 2 h w"]  # to the centre, down and right, in cells


class PanopticDeepLab(Baseline[DeepLabOutputs]):
    """The network with two decoders, its losses, and the grouping of pixels around centres.

    With 256 channels the sizes are the authors': 256 in ASPP and the semantic decoder, 128 in the instance decoder, 32
    in its heads. The convolutions are plain ones, as in the authors' "R-52" models.
    """

    def __init__(self, *, backbone: Backbone, classes: LabelSpace, channels: int, config: PanopticDeepLabConfig):
        super().__init__(backbone=backbone, classes=classes, divisor=32)
        dilate(backbone, config.multi_grid)
        decoder = {"in_channels": backbone.channels, "aspp": channels, "rates": config.rates, "dropout": config.dropout}
        self.semantic_decoder = Decoder(**decoder, channels=channels)
        self.instance_decoder = Decoder(**decoder, channels=channels // 2)
        self.semantic_head = head(channels, channels, classes.num_outputs)
        self.centre_head = head(channels // 2, channels // 8, 1)
        self.offset_head = head(channels // 2, channels // 8, 2)
        self.config = config

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> DeepLabOutputs:
        c2, c3, _, c5 = self.backbone(self.normalised(images))
        semantic, instance = self.semantic_decoder(c2, c3, c5), self.instance_decoder(c2, c3, c5)
        return DeepLabOutputs(self.semantic_head(semantic), self.centre_head(instance), self.offset_head(instance))

    def losses(self, outputs: DeepLabOutputs, targets: BaselineTargets) -> dict[str, Tensor]:
        config = self.config
        semantic, centre, offset = (
            upsampled(output, targets.size, STRIDE) for output in (outputs.semantic, outputs.centre, outputs.offset)
        )
        cross_entropy = F.cross_entropy(semantic, targets.semantic, ignore_index=IGNORE, reduction="none")
        weight = torch.stack([self._semantic_weight(image) for image in targets.images])
        hardest = (cross_entropy * weight).flatten().topk(int(config.bootstrap * weight.numel())).values
        heat = torch.stack([heat_map(image, config.sigma) for image in targets.images])
        known = torch.stack([image.known for image in targets.images])
        squares = (centre[:, 0] - heat).square() * known
        to_centre, is_thing = (torch.stack(part) for part in zip(*map(offsets, targets.images), strict=True))
        distance = (offset * STRIDE - to_centre).abs().sum(1) * is_thing
        return {
            "semantic": config.semantic * hardest.mean(),
            "centre": config.centre * squares.sum() / known.sum().clamp(min=1),
            "offset": config.offset * distance.sum() / is_thing.sum().clamp(min=1),
        }

    def _semantic_weight(self, image: ImageTruth) -> Float[Tensor, "H W"]:
        small = image.masks[image.masks.flatten(1).sum(1) < self.config.small_area].any(0)
        return torch.where(small, self.config.small_weight, 1.0)

    def postprocess(
        self, outputs: DeepLabOutputs, size: tuple[int, int], config: InferenceConfig, *, instances: bool
    ) -> Segmentation:
        probability = upsampled(outputs.semantic, size, STRIDE)[0].softmax(0)
        semantic = probability.argmax(0)
        heat = upsampled(outputs.centre, size, STRIDE)[0, 0]
        centres = find_centres(heat, threshold=self.config.threshold, peak=self.config.peak, top=self.config.top)
        is_thing = semantic < self.classes.num_things
        if not self.classes.num_things:
            centres = centres[:0]
        where = torch.ones_like(is_thing) if self.config.group_all_pixels else is_thing
        nearest = group(centres, upsampled(outputs.offset, size, STRIDE)[0] * STRIDE, where)
        nearest = nearest.where(is_thing, -1)
        classes, present = vote(nearest, semantic, len(centres), self.classes.num_things)
        ids = torch.zeros_like(semantic, dtype=torch.int32)
        labels: list[int] = []
        scores: list[float | None] = []
        found = []
        for index in torch.nonzero(present)[:, 0].tolist():
            mask, label = nearest == index, int(classes[index])
            y, x = centres[index].tolist()
            score = float(probability[label][mask].mean() * heat[y, x])
            labels.append(label)
            scores.append(score)
            ids[mask] = len(labels)
            found.append(Instance(label, score, mask))
        add_stuff(ids, labels, scores, semantic - self.classes.first_stuff, self.classes, config)
        found.sort(key=lambda instance: -instance.score)
        return Segmentation(ids, labels, scores, semantic, found if instances else [])


class Decoder(nn.Module):
    """C5 through ASPP, then to stride 8 with C3, and to stride 4 with C2 (DeepLabV3+ with one more skip)."""

    def __init__(self, *, in_channels: list[int], aspp: int, channels: int, rates: tuple[int, ...], dropout: float):
        super().__init__()
        c2, c3, _, c5 = in_channels
        self.aspp = ASPP(c5, rates, aspp)
        pooled: Any = self.aspp.convs[-1]
        # as in the authors' code, with a bias and without norm: a norm could not be trained on one image
        pooled[1], pooled[2] = nn.Conv2d(c5, aspp, 1), nn.Identity()
        self.aspp.project[-1] = nn.Dropout(dropout)
        self.project = nn.ModuleList([conv(c3, aspp // 4, 1), conv(c2, aspp // 8, 1)])
        widths = [aspp + aspp // 4, channels + aspp // 8]
        self.fuse = nn.ModuleList(nn.Sequential(conv(w, channels), conv(channels, channels)) for w in widths)

    def forward(self, c2: Tensor, c3: Tensor, c5: Tensor) -> Float[Tensor, "B D h w"]:
        y = self.aspp(c5)
        for skip, project, fuse in zip((c3, c2), self.project, self.fuse, strict=True):
            y = F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = fuse(torch.cat([project(skip), y], dim=1))
        return y


def conv(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Module:
    """Convolution, batch norm, ReLU."""
    return Conv2dNormActivation(in_channels, out_channels, kernel)


def head(in_channels: int, channels: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions and a linear 1×1 convolution with weights near zero."""
    predictor = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(predictor.weight, std=0.001)
    nn.init.zeros_(predictor.bias)  # pyright: ignore[reportArgumentType]
    return nn.Sequential(conv(in_channels, in_channels), conv(in_channels, channels), predictor)


def dilate(backbone: Backbone, multi_grid: tuple[int, int, int]) -> None:
    """Multiplies the dilation of the last stage's 3×3 convolutions, block by block; further blocks use the last factor.

    Backbones other than ResNets keep timm's dilation of 2.
    """
    blocks: Any = getattr(backbone.body, "layer4", ())
    for index, block in enumerate(blocks):
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                rate = 2 * multi_grid[min(index, len(multi_grid) - 1)]
                layer.dilation = layer.padding = (rate, rate)


def heat_map(image: ImageTruth, sigma: float) -> Float[Tensor, "H W"]:
    """A Gaussian with peak 1 at the centre of mass of each thing; overlapping Gaussians give the maximum."""
    height, width = image.known.shape
    rows, columns = (torch.arange(n, device=image.known.device, dtype=torch.float32) for n in (height, width))
    heat = torch.zeros(height, width, device=image.known.device)
    for y, x in centres_of_mass(image).round().tolist():
        down, across = (torch.exp(-((a - c) ** 2) / (2 * sigma**2)) for a, c in ((rows, y), (columns, x)))
        heat = torch.maximum(heat, down[:, None] * across)
    return heat


def offsets(image: ImageTruth) -> tuple[Float[Tensor, "2 H W"], Tensor]:
    """Offsets (down, right) from each thing pixel to the centre of mass, in pixels; and the mask of thing pixels."""
    is_thing = image.masks.any(0)
    height, width = is_thing.shape
    rows, columns = (torch.arange(n, device=is_thing.device, dtype=torch.float32) for n in (height, width))
    centre = F.pad(centres_of_mass(image), (0, 0, 0, 1))  # one more row, for pixels without a thing
    number = image.masks.int().argmax(0) if len(image.masks) else is_thing.long()
    y, x = centre[number].unbind(-1)
    return torch.stack([y - rows[:, None], x - columns]) * is_thing, is_thing


def find_centres(heat: Float[Tensor, "H W"], *, threshold: float, peak: int, top: int) -> Int[Tensor, "n 2"]:
    """Row and column of the peaks above the threshold, highest first."""
    largest = F.max_pool2d(heat[None], peak, stride=1, padding=peak // 2)[0]
    positions = torch.nonzero((heat == largest) & (heat > threshold))
    return positions[heat[positions.unbind(1)].argsort(descending=True, stable=True)[:top]]


def group(
    centres: Int[Tensor, "n 2"], offset: Float[Tensor, "2 H W"], where: Tensor, chunk: int = 2**17
) -> Int[Tensor, "H W"]:
    """Index of the centre nearest to the target of each pixel's offset; −1 outside `where` or without centres."""
    nearest = torch.full(where.shape, -1, dtype=torch.long, device=where.device)
    if len(centres):
        y, x = torch.nonzero(where, as_tuple=True)
        positions = torch.stack([y + offset[0, y, x], x + offset[1, y, x]], dim=1)
        parts = [(part[:, None] - centres).square().sum(-1).argmin(1) for part in positions.split(chunk)]
        nearest[y, x] = torch.cat(parts) if parts else nearest.new_zeros(0)
    return nearest


def vote(
    nearest: Int[Tensor, "H W"], semantic: Int[Tensor, "H W"], count: int, num_things: int
) -> tuple[Int[Tensor, "n"], Tensor]:
    """The most frequent class in each of `count` groups, and which groups have pixels."""
    inside = nearest >= 0
    num_things = max(1, num_things)  # argmax needs a non-empty axis
    votes = torch.bincount(nearest[inside] * num_things + semantic[inside], minlength=count * num_things)
    votes = votes.view(count, num_things)
    return votes.argmax(1), votes.sum(1) > 0
