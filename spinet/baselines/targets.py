"""Ground truth of the baselines: a label map, and the boxes and masks of the things of each image.

Crowds have no box and no label, like void. Region proposals on crowds count as background, as in the systems' own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import masks_to_boxes

from spinet.data.label_space import IGNORE, LabelSpace


@dataclass
class ImageTruth:
    """The K things of an image."""

    labels: Int[Tensor, "K"]
    boxes: Float[Tensor, "K 4"]  # left, top, right, bottom, in pixels; the last two are exclusive
    masks: Bool[Tensor, "K H W"]
    known: Bool[Tensor, "H W"]  # neither void nor crowd


@dataclass
class BaselineTargets:
    """Ground truth of a batch, padded like the images."""

    semantic: Int[Tensor, "B H W"]  # label of the semantic output or IGNORE
    images: list[ImageTruth]

    @property
    def size(self) -> tuple[int, int]:
        """H, W."""
        return self.semantic.shape[1], self.semantic.shape[2]

    def counts(self) -> tuple[float]:
        """Number of images: the losses of the baselines are means over the device's batch."""
        return (float(len(self.images)),)


@dataclass(frozen=True)
class BaselineTargetBuilder:
    """Builds `BaselineTargets` from segment maps, without randomness.

    Args:
        divisor: maps are padded with void to a multiple of it, like the network's images.
    """

    space: LabelSpace
    divisor: int

    def __call__(
        self,
        segment_maps: Int[Tensor, "B H W"],
        labels: list[Tensor],
        crowd: list[Tensor],
        seeds: list[int],
        smallest_maps: Int[Tensor, "B H W"] | None = None,
    ) -> BaselineTargets:
        """Targets on the device of the maps; arguments as in `TargetBuilder`. `seeds`, `smallest_maps` are unused."""
        height, width = segment_maps.shape[-2:]
        maps = F.pad(segment_maps, (0, -width % self.divisor, 0, -height % self.divisor)).long()
        semantic, images = [], []
        for segment_map, label, is_crowd in zip(maps, labels, crowd, strict=True):
            values = F.pad(self.space.outputs(label).masked_fill(is_crowd, IGNORE), (1, 0), value=IGNORE)
            semantic.append(values.to(maps.device)[segment_map])
            is_thing = (label < self.space.num_things) & ~is_crowd
            number = torch.nonzero(is_thing)[:, 0].to(maps.device) + 1
            masks = segment_map == number[:, None, None]
            visible = masks.flatten(1).any(1)  # a crop or a resize may remove all pixels of a thing
            masks = masks[visible]
            known = F.pad(~is_crowd, (1, 0), value=False).to(maps.device)[segment_map]
            boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1], device=maps.device)
            images.append(ImageTruth(label[is_thing].to(maps.device)[visible], boxes, masks, known))
        return BaselineTargets(torch.stack(semantic), images)


def as_torchvision(truth: ImageTruth) -> dict[str, Any]:
    """The things of an image in the form of torchvision's detectors: label 0 is background."""
    return {"labels": truth.labels + 1, "boxes": truth.boxes, "masks": truth.masks.to(torch.uint8)}


def centres_of_mass(image: ImageTruth) -> Float[Tensor, "K 2"]:
    """Mean row and column of the pixels of each thing, from 0."""
    height, width = image.known.shape
    masks = image.masks.float()
    rows, columns = (torch.arange(n, device=masks.device, dtype=torch.float32) for n in (height, width))
    area = masks.sum((1, 2))
    return torch.stack([masks.sum(2) @ rows / area, masks.sum(1) @ columns / area], dim=1)
