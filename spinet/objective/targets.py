"""§5.2 Ground truth for the losses. Void and crowd are always `IGNORE`.

All random draws are made here, from the seed of each image. So an image gives the same draws on any process and in any
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.data.label_space import IGNORE, LabelSpace
from spinet.objective.auxiliary import find_negatives, partial_masks, soft_contour

BACKGROUND = -2  # a location that belongs to no thing
MASK_STRIDE = 4  # of the Panoptic-Feature and of the mask losses

Assignment = Literal["centre", "any"]


class Counts(NamedTuple):
    """Numbers of items, which the losses are divided by.

    They are summed over the batches and processes of a step before the division, so a step does not depend on how it is
    split. The sums are tensors, which the host does not wait for.
    """

    positives: float | Tensor
    samples: float | Tensor
    stuff_pairs: float | Tensor
    triplets: float | Tensor
    semantic_pixels: float | Tensor  # pixels with a label of the stuff path
    contour_pixels: float | Tensor  # pixels that are neither void nor crowd


@dataclass
class ImageTargets:
    """Targets of one image. Images differ in their number K of instances."""

    masks: Float[Tensor, "K h w"]  # share of each cell at stride 4 that the instance covers
    labels: Int[Tensor, "K"]  # thing class of each instance
    valid: Bool[Tensor, "h w"]  # cells at stride 4 that are neither void nor crowd
    sample_level: Int[Tensor, "n"]  # level of each location whose filter is trained
    sample_y: Int[Tensor, "n"]  # its cell row
    sample_x: Int[Tensor, "n"]  # its cell column
    sample_instance: Int[Tensor, "n"]  # its instance
    halves: Bool[Tensor, "2 K h w"]  # M_k and M'_k of Eq. 3
    negatives: Bool[Tensor, "K K"]  # row: anchor; column: whether that instance is a negative


@dataclass
class Targets:
    """Ground truth of a batch."""

    classes: list[Int[Tensor, "B H_l W_l"]]  # thing label, BACKGROUND or IGNORE at each location of each level
    semantic: Int[Tensor, "B h w"]  # label of the stuff path or IGNORE
    present: Bool[Tensor, "B N_s"]  # classes that the multi-class dice averages over
    contour: Float[Tensor, "B H W"] | None  # soft contour of Eq. 6, 0 … 1, or IGNORE; None if that loss is off
    images: list[ImageTargets]  # B

    def counts(self) -> Counts:
        return Counts(
            positives=sum(float((level >= 0).sum()) for level in self.classes),
            samples=sum(float(len(image.sample_instance)) for image in self.images),
            stuff_pairs=float(self.present.sum()),
            triplets=sum(float(image.negatives.sum()) for image in self.images),
            semantic_pixels=float((self.semantic != IGNORE).sum()),
            contour_pixels=0.0 if self.contour is None else float((self.contour != IGNORE).sum()),
        )


class TargetBuilder:
    """Builds `Targets` from segment maps.

    Args:
        strides: image pixels to a cell, for each level of the filter sampling module.
        space: classes of the data, and outputs of the stuff path.
        semantic_stride: resolution of the stuff losses: 1 or 4.
        dice_classes: classes that the multi-class dice averages over.
        samples_per_image: maximum number of filters trained.
        assignment: with "centre", a location belongs to the instance at the centre pixel of its cell; with "any",
            to the smallest instance in its cell.
        sampling: "location" is uniform over foreground locations; "instance" gives all instances equal shares.
        contour_sigma: width of soft contours, pixels; None for no contours.
        divisor: maps are padded with void to a multiple of this, as the network pads its images.
    """

    def __init__(
        self,
        *,
        strides: list[int],
        space: LabelSpace,
        semantic_stride: int = 1,
        dice_classes: Literal["present", "all"] = "present",
        samples_per_image: int = 125,
        assignment: Assignment = "centre",
        sampling: Literal["location", "instance"] = "location",
        contour_sigma: float | None = 1.0,
        divisor: int = 32,
    ):
        self.strides = strides
        self.space = space
        self.semantic_stride = semantic_stride
        self.dice_classes = dice_classes
        self.samples_per_image = samples_per_image
        self.assignment = assignment
        self.sampling = sampling
        self.contour_sigma = contour_sigma
        self.divisor = divisor

    def __call__(
        self,
        segment_maps: Int[Tensor, "B H W"],
        labels: list[Int[Tensor, "K"]],
        crowd: list[Bool[Tensor, "K"]],
        seeds: list[int],
        smallest_maps: Int[Tensor, "B H W"] | None = None,
    ) -> Targets:
        """Targets on the device of the maps.

        Args:
            segment_maps: 0 void, i + 1 the i-th segment.
            labels: class of each segment, things first.
            crowd: segments that every loss ignores.
            seeds: of each image's random draws.
            smallest_maps: segment maps with the smallest thing at each pixel, visible or not. They assign locations to
                instances. By default the segment maps, in which nothing overlaps.
        """
        height, width = segment_maps.shape[-2:]
        padding = (0, -width % self.divisor, 0, -height % self.divisor)
        maps = F.pad(segment_maps, padding).long()
        smallest = [None] * len(maps) if smallest_maps is None else F.pad(smallest_maps, padding).long()
        classes, semantic, contours, images = [], [], [], []
        for segment_map, smallest_map, label, is_crowd, seed in zip(maps, smallest, labels, crowd, seeds, strict=True):
            is_thing = (label < self.space.num_things) & ~is_crowd

            def by_segment(values: Tensor, is_crowd: Tensor = is_crowd, device: torch.device = maps.device) -> Tensor:
                """A look-up table from the segment map's values; void and crowds are ignored."""
                return F.pad(values.masked_fill(is_crowd, IGNORE), (1, 0), value=IGNORE).to(device)

            class_of = by_segment(label.where(is_thing, BACKGROUND))
            instance_of = by_segment((is_thing.cumsum(0) - 1).where(is_thing, IGNORE))
            thing_labels = label[is_thing].to(maps.device)
            instances = instance_of[segment_map]
            owners = instances if smallest_map is None else instance_of[smallest_map]
            levels = self._assign(owners, len(thing_labels))
            classes.append(
                [
                    F.pad(thing_labels, (0, 1))[level].where(
                        level >= 0, class_of[segment_map[s // 2 :: s, s // 2 :: s]]
                    )
                    for level, s in zip(levels, self.strides, strict=True)
                ]
            )
            semantic_of = by_segment(self.space.outputs(label))
            step = self.semantic_stride
            semantic.append(semantic_of[segment_map[step // 2 :: step, step // 2 :: step]])
            label_map = by_segment(label)[segment_map]
            if self.contour_sigma is not None:
                contours.append(soft_contour(label_map, self.contour_sigma).masked_fill(label_map == IGNORE, IGNORE))
            images.append(
                self._image_targets(
                    instances=instances,
                    levels=levels,
                    labels=thing_labels,
                    valid=label_map[MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE] != IGNORE,
                    generator=torch.Generator().manual_seed(seed),
                )
            )
        semantic = torch.stack(semantic)
        return Targets(
            classes=[torch.stack(level) for level in zip(*classes, strict=True)],
            semantic=semantic,
            present=self._present(semantic),
            contour=torch.stack(contours) if contours else None,
            images=images,
        )

    def _assign(self, instances: Int[Tensor, "H W"], count: int) -> list[Int[Tensor, "H_l W_l"]]:
        """The instance of each location of each level, IGNORE where there is none (§5.2)."""
        if self.assignment == "centre":
            return [instances[s // 2 :: s, s // 2 :: s] for s in self.strides]
        by_size = torch.bincount(instances.flatten() + 1, minlength=count + 1)[1:].argsort(descending=True, stable=True)
        # rank 0 is no instance, then from large to small: the highest rank in a cell is its smallest instance
        order = torch.arange(1.0, count + 1, device=instances.device)
        rank = torch.zeros(count + 1, device=instances.device).scatter_(0, by_size, order)
        finest = min(self.strides)
        cells = F.max_pool2d(rank[instances][None], finest)
        instance_of = F.pad(by_size, (1, 0), value=IGNORE)
        return [instance_of[F.max_pool2d(cells, s // finest)[0].long()] for s in self.strides]

    def _present(self, semantic: Int[Tensor, "B h w"]) -> Bool[Tensor, "B N_s"]:
        shape = (len(semantic), self.space.num_outputs + 1)
        if self.dice_classes == "all":
            return torch.ones(shape, dtype=torch.bool, device=semantic.device)[:, :-1]
        counts = torch.zeros(shape, dtype=torch.bool, device=semantic.device)
        return counts.scatter_(1, semantic.flatten(1) % shape[1], True)[:, :-1]  # IGNORE is the last column

    def _image_targets(
        self, *, instances: Tensor, levels: list[Tensor], labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> ImageTargets:
        masks = _cover(instances, len(labels))
        sample_level, sample_y, sample_x, sample_instance = self._sample(levels, generator)
        halves = partial_masks(masks > 0.5, generator)
        return ImageTargets(
            masks=masks,
            labels=labels,
            valid=valid | masks.any(0),
            sample_level=sample_level,
            sample_y=sample_y,
            sample_x=sample_x,
            sample_instance=sample_instance,
            halves=halves,
            negatives=find_negatives(labels, usable=halves.flatten(2).any(-1).all(0)),
        )

    def _sample(self, levels: list[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Locations "uniformly sampled from the foreground locations" of all levels, and their instances."""
        foreground = [torch.nonzero(level >= 0) for level in levels]
        locations = torch.cat([F.pad(rows, (1, 0), value=i) for i, rows in enumerate(foreground)])  # level, y, x
        instance = torch.cat([level[level >= 0] for level in levels])
        if self.sampling == "location":
            chosen = torch.randperm(len(instance), generator=generator)[: self.samples_per_image]
        else:
            share = 1 / torch.bincount(instance)[instance].double().cpu()
            draws = torch.rand(len(instance), generator=generator, dtype=torch.float64)
            chosen = (draws.log() / share).argsort(descending=True)[: self.samples_per_image]  # Efraimidis-Spirakis
        chosen = chosen.to(instance.device)
        level, y, x = locations[chosen].unbind(1)
        return level, y, x, instance[chosen]


def _cover(instances: Int[Tensor, "H W"], count: int) -> Float[Tensor, "K h w"]:
    """Share of each cell at stride 4 that each of `count` instances covers, from one histogram."""
    height, width = (size // MASK_STRIDE for size in instances.shape)
    rows = torch.arange(height, device=instances.device).repeat_interleave(MASK_STRIDE)
    columns = torch.arange(width, device=instances.device).repeat_interleave(MASK_STRIDE)
    cell = rows[:, None] * width + columns
    inside = instances >= 0
    index = instances[inside] * (height * width) + cell[inside]
    histogram = torch.bincount(index, minlength=count * height * width)
    return histogram.view(count, height, width).float() / MASK_STRIDE**2
