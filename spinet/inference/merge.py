"""§5.2 Merge, as in Panoptic-FPN: instances first, then stuff in the free pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.ndimage import find_objects
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import VOID, Categories
from spinet.inference.candidates import Candidates
from spinet.inference.mask_logits import MaskLogits, mask_cut
from spinet.inference.resample import Resampler
from spinet.system import segment_info


def merge(
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    categories: Categories,
    config: InferenceConfig,
    space: LabelSpace,
) -> tuple[Int[Tensor, "H W"], list[dict[str, Any]]]:
    """Merges instances and stuff into one map, as in Panoptic-FPN: instances sorted by score, then stuff.

    An instance is dropped if more than `overlap` of its area is already covered. A pixel of several masks belongs to
    the best score or, with `contested` "mask", to the largest logit there. With `fill_threshold`, a free pixel to which
    the stuff path gives the class of an instance joins the most probable such instance. All other free pixels get their
    best stuff class. If the stuff path predicts a thing there, the probability of that stuff class must reach
    `stuff_threshold`. Stuff segments smaller than `min_stuff_area` of the image become void.

    Args:
        candidates: confident ones, sorted by score, the highest first.
        stuff_logits: of the stuff path, at stride 4 of the network's input, like the logits of the candidates.
        semantic: index of the largest of them at each pixel.
    """
    ids = torch.full(resampler.size, VOID, dtype=torch.int32, device=semantic.device)
    masks = masks_in_windows(candidates, semantic, resampler, config, space)
    windows, outputs = [window for window, _ in masks], space.outputs(candidates.labels)
    stays = place_instances(ids, masks, config.overlap)
    if config.contested == "mask":
        usable = {number: masks[number][1] for number in stays.nonzero()[:, 0].tolist()}
        _to_largest(ids, candidates.logits, windows, usable, resampler)
        stays &= torch.bincount(ids.flatten(), minlength=len(stays) + 1)[1:] > 0
    if config.fill_threshold is not None:
        cut = min(mask_cut(config), float(torch.logit(torch.tensor(config.fill_threshold))))
        windows = resampler.windows(candidates.logits, cut)
        free = ids == VOID
        usable = {
            number: free[windows[number]] & (semantic[windows[number]] == outputs[number])
            for number in stays.nonzero()[:, 0].tolist()
        }
        _to_largest(ids, candidates.logits, windows, usable, resampler, cut)
    renumber(ids, stays)
    segments = _things(ids, candidates[stays], categories)
    stuff = _stuff(stuff_logits, semantic, ids == VOID, resampler, space, config)
    for identity, index, area in place_stuff(ids, stuff, space.num_stuff, len(segments), config.min_stuff_area):
        segments.append(segment_info(identity, categories.stuff[index], area))
    return ids, segments


def masks_in_windows(
    candidates: Candidates,
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    config: InferenceConfig,
    space: LabelSpace,
) -> list[tuple[tuple[slice, slice], Bool[Tensor, "h w"]]]:
    """The mask of each candidate with its rows and columns in the image; see `agreeing` for `agreement`."""
    cut, found = mask_cut(config), []
    windows, outputs = resampler.windows(candidates.logits, cut), space.outputs(candidates.labels).tolist()
    for number, (window, output) in enumerate(zip(windows, outputs, strict=True)):
        mask = resampler.one(candidates.logits, number, window) > cut
        if config.agreement is not None:
            (mask,) = agreeing(mask[None], semantic[window] == output, config.agreement)
        found.append((window, mask))
    return found


def place_instances(
    ids: Int[Tensor, "H W"], masks: Iterable[tuple[tuple[slice, slice], Bool[Tensor, "h w"]]], overlap: float
) -> Bool[Tensor, "n"]:
    """Writes mask i as i + 1 into the free pixels of `ids`; drops it if more than `overlap` of it is already covered.

    Args:
        masks: sorted by score, the highest first; each with its rows and columns in the image.

    Returns:
        Which masks are kept.
    """
    stays = []
    for number, (window, mask) in enumerate(masks, start=1):
        free = mask & (ids[window] == VOID)
        visible = free.sum()
        stays.append((visible > 0) & (visible >= (1 - overlap) * mask.sum()))
        ids[window].masked_fill_(free & stays[-1], number)
    return torch.stack(stays) if stays else torch.zeros(0, dtype=torch.bool, device=ids.device)


def renumber(ids: Int[Tensor, "H W"], stays: Bool[Tensor, "n"]) -> None:
    """Renumbers the kept instances in `ids` as 1, 2, …"""
    table = F.pad((stays.cumsum(0) * stays).to(ids.dtype), (1, 0), value=VOID)
    ids.copy_(table[ids])


def place_stuff(
    ids: Int[Tensor, "H W"], stuff: Int[Tensor, "H W"], num_stuff: int, last: int, min_area: float
) -> list[tuple[int, int, int]]:
    """Writes the stuff segments into the free pixels of `ids`, except those smaller than `min_area` of the image.

    Args:
        stuff: class of each free pixel, from 1; 0 at covered pixels and those without a class.
        last: the largest id in `ids`.

    Returns:
        Id, class from 0 and area of each segment.
    """
    areas = torch.bincount(stuff.flatten(), minlength=num_stuff + 1)[1:].tolist()
    large = [index for index, area in enumerate(areas) if area > 0 and area >= min_area * ids.numel()]
    table = torch.full((num_stuff + 1,), VOID, dtype=ids.dtype)
    for identity, index in enumerate(large, start=last + 1):
        table[index + 1] = identity
    ids += table.to(ids.device)[stuff]
    return [(identity, index, areas[index]) for identity, index in enumerate(large, start=last + 1)]


def extents(ids: Int[Tensor, "H W"], count: int) -> list[list[int] | None]:
    """Left, top, width and height of the pixels of each segment 1 … `count`; None if it has no pixel."""
    return [
        where and [where[1].start, where[0].start, where[1].stop - where[1].start, where[0].stop - where[0].start]
        for where in find_objects(ids.cpu().numpy(), max_label=count)
    ]


def agreeing(masks: Bool[Tensor, "n h w"], own: Bool[Tensor, "#n h w"], least: float) -> Bool[Tensor, "n h w"]:
    """The masks without the pixels to which the stuff path gives another class.

    A mask of which less than the share `least` would remain stays as it is.

    Args:
        masks: of instances.
        own: where the stuff path gives the class of each instance.
    """
    same = masks & own
    enough = same.sum((1, 2)) >= least * masks.sum((1, 2))
    return torch.where(enough[:, None, None], same, masks)


def _to_largest(
    ids: Int[Tensor, "H W"],
    logits: MaskLogits,
    windows: Sequence[tuple[slice, slice]],
    usable: Mapping[int, Bool[Tensor, "h w"]],
    resampler: Resampler,
    cut: float = -torch.inf,
) -> None:
    """Gives each pixel to the instance with the largest logit there, above `cut`, of those that may have it.

    `usable` has the pixels that an instance may have, in its window.
    """
    best = torch.full(ids.shape, cut, device=ids.device)
    for number, pixels in usable.items():
        window = windows[number]
        values = resampler.one(logits, number, window)
        wins = pixels & (values > best[window])
        best[window].copy_(values.where(wins, best[window]))
        ids[window].masked_fill_(wins, number + 1)


def _things(ids: Int[Tensor, "H W"], candidates: Candidates, categories: Categories) -> list[dict[str, Any]]:
    """The segments of the instances, numbered 1, 2, … in `ids`."""
    count = len(candidates.labels)
    areas = torch.bincount(ids.flatten(), minlength=count + 1)[1:].tolist()
    labels, scores = candidates.labels.tolist(), candidates.scores.tolist()
    return [
        segment_info(identity, categories.all[label], area, score=score, box=box)
        for identity, (label, score, area, box) in enumerate(
            zip(labels, scores, areas, extents(ids, count), strict=True), start=1
        )
    ]


def _stuff(
    logits: Float[Tensor, "N_s h w"],
    semantic: Int[Tensor, "H W"],
    free: Bool[Tensor, "H W"],
    resampler: Resampler,
    space: LabelSpace,
    config: InferenceConfig,
) -> Int[Tensor, "H W"]:
    """The stuff class of each free pixel, from 1; 0 if it has none, and at covered pixels."""
    first, stuff, is_thing = space.first_stuff, space.num_stuff, space.is_thing(semantic)
    best = (semantic + (1 - first)).masked_fill_(~free | is_thing, 0)
    rows, columns = torch.nonzero(free & is_thing, as_tuple=True)
    if len(rows) and stuff:
        found = [
            values.softmax(1)[:, first : first + stuff].max(1) for values in resampler.points(logits, rows, columns)
        ]
        probability, chosen = (torch.cat(parts) for parts in zip(*found, strict=True))
        best[rows, columns] = torch.where(probability >= config.stuff_threshold, chosen + 1, 0)
    return best
