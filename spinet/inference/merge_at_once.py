"""§5.2 Merge of all things at once, for CUDA: gives the map of `merge`, without a loop over things on the host.

`merge` processes one instance after the other, each in its part of the image. Here all masks are one tensor, and the
host waits only once, for the finished map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import VOID, Categories
from spinet.inference.candidates import Candidates
from spinet.inference.mask_logits import mask_cut
from spinet.inference.merge import agreeing
from spinet.inference.resample import Resampler
from spinet.system import segment_info

AT_ONCE = 2**25
"""Number of float32 values resampled at once, which limits their memory: 16 maps of 1024 × 2048 pixels."""


@dataclass
class Merged:
    """The result of `merge_at_once`, on the device."""

    ids: Int[Tensor, "H W"]  # segment at each pixel, 0 void
    things: Int[Tensor, "n 6"]  # id, 0 for none; area; left, top, width, height
    stuff: Int[Tensor, "N_s 2"]  # id, 0 for none; area; of each stuff class
    settled: Bool[Tensor, ""]  # no instance is left that should be dropped

    @staticmethod
    def segments(
        things: np.ndarray, stuff: np.ndarray, labels: np.ndarray, scores: np.ndarray, categories: Categories
    ) -> list[dict[str, Any]]:
        """The segments in the format of `Prediction`, from the fields of this class and of the candidates."""
        found = [
            segment_info(identity, categories.all[label], area, score=score, box=box)
            for (identity, area, *box), label, score in zip(
                things.tolist(), labels.tolist(), scores.tolist(), strict=True
            )
            if identity
        ]
        return found + [
            segment_info(identity, category, area)
            for (identity, area), category in zip(stuff.tolist(), categories.stuff, strict=True)
            if identity
        ]


def masks_at_once(
    candidates: Candidates,
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    config: InferenceConfig,
    space: LabelSpace,
) -> Bool[Tensor, "n H W"]:
    """The masks of the candidates at the pixels of the image; see `agreeing` for `agreement`."""
    cut = mask_cut(config)
    masks = torch.empty(len(candidates.labels), *resampler.size, dtype=torch.bool, device=candidates.labels.device)
    count = _maps_at_once(resampler)
    for part, logits in zip(masks.split(count), candidates.logits.whole().split(count), strict=True):
        if len(part):
            torch.gt(resampler.whole(logits), cut, out=part)
    if config.agreement is not None:
        own = semantic == space.outputs(candidates.labels)[:, None, None]
        masks = agreeing(masks, own, config.agreement)
    return masks


def merge_at_once(
    candidates: Candidates,
    masks: Bool[Tensor, "n H W"],
    confident: Bool[Tensor, "n"],
    stuff_logits: Float[Tensor, "N_s H W"],
    resampler: Resampler,
    config: InferenceConfig,
    space: LabelSpace,
    *,
    rounds: int,
) -> Merged:
    """The map that `merge` makes of the confident candidates.

    A pixel belongs to the first mask that covers it. Each round drops the first instance that breaks the overlap rule:
    the instances before it are already final. The result is `settled` if no instance breaks the rule any more.

    Args:
        candidates: sorted by score, the highest first.
        masks: of `masks_at_once`.
        stuff_logits: at the pixels of the image.
        rounds: maximum number of dropped instances; if it is too small, the result is not `settled`.
    """
    n, (height, width) = len(masks), resampler.size
    semantic, outputs = stuff_logits.argmax(0), space.outputs(candidates.labels)
    # row n covers all pixels: it owns those without an instance
    cover = torch.cat([masks & confident[:, None, None], torch.ones_like(semantic, dtype=torch.bool)[None]]).byte()
    areas = cover[:n].flatten(1).sum(1)
    stays = confident
    for _ in range(rounds):
        breaks = stays & ~_enough(_owner(cover), areas, config)
        stays = stays & ~(breaks & (breaks.cumsum(0) == 1))
        cover[:n] &= stays.byte()[:, None, None]
    owner = _owner(cover)
    settled = ~(stays & ~_enough(owner, areas, config)).any()
    if config.contested == "mask":
        owner = _largest(candidates, lambda part: cover[:n][part].bool(), resampler)
        stays = stays & (_histogram(owner, n + 1)[:n] > 0)
    if config.fill_threshold is not None:
        cut = min(mask_cut(config), float(torch.logit(torch.tensor(config.fill_threshold))))
        taker = _largest(
            candidates,
            lambda part: stays[part, None, None] & (semantic == outputs[part, None, None]),
            resampler,
            cut,
        )
        owner = owner.where(owner < n, taker)
    identity = stays.cumsum(0) * stays
    count = stays.sum()
    things = torch.stack([identity, _histogram(owner, n + 1)[:n], *_boxes(owner, n)], dim=1)
    stuff = _stuff(stuff_logits, semantic, owner == n, space, config)
    stuff_areas = _histogram(stuff, space.num_stuff + 1)[1:]
    large = stuff_areas >= max(1, math.ceil(config.min_stuff_area * height * width))
    stuff_identity = (count + large.cumsum(0)) * large
    ids = F.pad(identity, (0, 1), value=VOID)[owner] + F.pad(stuff_identity, (1, 0), value=VOID)[stuff]
    return Merged(ids, things, torch.stack([stuff_identity, stuff_areas], dim=1), settled)


def _owner(cover: UInt8[Tensor, "m H W"]) -> Int[Tensor, "H W"]:
    """The first map that covers each pixel."""
    return cover.argmax(0)


def _enough(owner: Int[Tensor, "H W"], areas: Int[Tensor, "n"], config: InferenceConfig) -> Bool[Tensor, "n"]:
    """Which instances satisfy the overlap rule."""
    visible = _histogram(owner, len(areas) + 1)[:-1]
    return (visible > 0) & (visible >= (1 - config.overlap) * areas)


def _histogram(values: Int[Tensor, "H W"], bins: int) -> Int[Tensor, "bins"]:
    """The counts of 0 … bins − 1. `torch.bincount` would make the host wait for the largest value."""
    return torch.histc(values.double(), bins, min=-0.5, max=bins - 0.5).long()


def _boxes(owner: Int[Tensor, "H W"], n: int) -> list[Int[Tensor, "n"]]:
    """Left, top, width and height of the pixels of each owner; undefined for one without pixels."""
    starts, extents = [], []
    for axis in (1, 0):
        length = owner.shape[axis]
        positions = torch.arange(length, device=owner.device)
        index = owner * length + (positions if axis else positions[:, None])
        present = torch.zeros((n + 1) * length, dtype=torch.uint8, device=owner.device)
        present = present.index_fill_(0, index.flatten(), 1).view(n + 1, length)[:n]
        starts.append(present.argmax(1))
        extents.append(length - present.flip(1).argmax(1) - starts[-1])
    return [*starts, *extents]


def _maps_at_once(resampler: Resampler) -> int:
    height, width = resampler.size
    return max(1, AT_ONCE // (height * width))


def _largest(
    candidates: Candidates,
    usable: Callable[[slice], Bool[Tensor, "k H W"]],
    resampler: Resampler,
    cut: float = -torch.inf,
) -> Int[Tensor, "H W"]:
    """The instance with the largest logit at each pixel, above `cut`, of those that may have it; n if there is none.

    `usable` returns the pixels that some of the instances may have.
    """
    n = len(candidates.labels)
    best = torch.full(resampler.size, cut, device=candidates.labels.device)
    owner = torch.full_like(best, n, dtype=torch.int64)
    count = _maps_at_once(resampler)
    for start in range(0, n, count):
        part = slice(start, start + count)
        values = resampler.whole(candidates.logits.whole()[part])
        largest, which = values.masked_fill(~usable(part), -torch.inf).max(0)
        better = largest > best
        best, owner = largest.where(better, best), (which + start).where(better, owner)
    return owner


def _stuff(
    logits: Float[Tensor, "N_s H W"],
    semantic: Int[Tensor, "H W"],
    free: Bool[Tensor, "H W"],
    space: LabelSpace,
    config: InferenceConfig,
) -> Int[Tensor, "H W"]:
    """The stuff class of each free pixel, from 1; 0 if it has none, and at covered pixels."""
    first, stuff, is_thing = space.first_stuff, space.num_stuff, space.is_thing(semantic)
    best = semantic + (1 - first)
    if stuff:
        probability, chosen = logits.softmax(0)[first : first + stuff].max(0)
        best = torch.where(is_thing, torch.where(probability >= config.stuff_threshold, chosen + 1, 0), best)
    else:
        best = best.masked_fill(is_thing, 0)
    return best.masked_fill(~free, 0)
