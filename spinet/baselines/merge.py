"""The merge of Panoptic-FPN, as in its authors' code: instances sorted by score, then stuff, then void."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from spinet.baselines.system import Instance, Segmentation
from spinet.config import InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import VOID
from spinet.inference.merge import place_instances, place_stuff, renumber


@dataclass
class Placed:
    """An instance with a mask in a window of the image; outside the window the mask is empty."""

    label: int
    score: float
    window: tuple[slice, slice]  # rows, columns
    mask: Bool[Tensor, "h w"]

    def whole(self, size: tuple[int, int]) -> Instance:
        """The instance with a mask of the whole image; `size` is height, width."""
        mask = torch.zeros(size, dtype=torch.bool, device=self.mask.device)
        mask[self.window] = self.mask
        return Instance(self.label, self.score, mask)


def merge(
    placed: list[Placed],
    semantic: Int[Tensor, "H W"],
    classes: LabelSpace,
    config: InferenceConfig,
) -> tuple[Int[Tensor, "H W"], list[int], list[float | None]]:
    """Segment of each pixel, and label and score of each segment.

    An instance is dropped if more than `overlap` of its area is already covered. Pixels without an instance are void if
    their semantic label is a thing. Stuff segments smaller than `min_stuff_area` of the image are void, too.

    Args:
        placed: confident instances, sorted by score, the highest first.
        semantic: labels of the semantic output.
    """
    ids = torch.full_like(semantic, VOID, dtype=torch.int32)
    stays = place_instances(ids, ((instance.window, instance.mask) for instance in placed), config.overlap)
    renumber(ids, stays)
    kept = [placed[index] for index in stays.nonzero()[:, 0].tolist()]
    labels = [instance.label for instance in kept]
    scores: list[float | None] = [instance.score for instance in kept]
    add_stuff(ids, labels, scores, semantic - classes.first_stuff, classes, config)
    return ids, labels, scores


def add_stuff(
    ids: Int[Tensor, "H W"],
    labels: list[int],
    scores: list[float | None],
    stuff: Int[Tensor, "H W"],
    classes: LabelSpace,
    config: InferenceConfig,
) -> None:
    """Adds large enough stuff segments on void pixels; `stuff` is the class from 0, other values are not stuff."""
    free = (ids == VOID) & (stuff >= 0) & (stuff < classes.num_stuff)
    stuff = (stuff + 1).masked_fill(~free, 0)
    for _, index, _ in place_stuff(ids, stuff, classes.num_stuff, len(labels), config.min_stuff_area):
        labels.append(classes.num_things + index)
        scores.append(None)


def segmentation(
    placed: list[Placed],
    semantic: Int[Tensor, "H W"],
    classes: LabelSpace,
    config: InferenceConfig,
    *,
    threshold: float,
    instances: bool,
) -> Segmentation:
    """Merges the instances with a score of at least `threshold`, by Panoptic-FPN's rule."""
    confident = [instance for instance in placed if instance.score >= threshold]
    ids, labels, scores = merge(confident, semantic, classes, config)
    found = [instance.whole((semantic.shape[0], semantic.shape[1])) for instance in placed] if instances else []
    return Segmentation(ids, labels, scores, semantic, found)


def paste(
    values: Float[Tensor, "M M"], box: list[float], size: tuple[int, int]
) -> tuple[tuple[slice, slice], Float[Tensor, "h w"]]:
    """Resizes the values to a box. Returns the window of image pixels that the box touches, and the values there.

    Interpolates bilinearly between the centres of the M × M cells, with 0 outside; differentiable in the values.

    Args:
        box: left, top, right, bottom, in pixels.
        size: height and width of the image.
    """
    left, top, right, bottom = box
    rows, columns = _pixels(top, bottom, size[0]), _pixels(left, right, size[1])
    y, x = (
        (torch.arange(span.start, span.stop, device=values.device) + 0.5 - low) * (2 / max(high - low, 1e-3)) - 1
        for span, low, high in ((rows, top, bottom), (columns, left, right))
    )
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    if grid.numel() == 0:
        return (rows, columns), values.new_zeros(grid.shape[:2])
    return (rows, columns), F.grid_sample(values[None, None], grid[None].to(values.dtype), align_corners=False)[0, 0]


def _pixels(low: float, high: float, extent: int) -> slice:
    """The pixels of a line of length `extent` that the interval from low to high touches."""
    start = min(max(int(low // 1), 0), extent)
    return slice(start, min(max(int(-(-high // 1)), start), extent))
