"""§5.2 Merge: instances first, stuff where none is, as Panoptic-FPN does."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import VOID, Categories
from spinet.inference.candidates import Candidates
from spinet.inference.mask_logits import MaskLogits, mask_cut
from spinet.inference.resample import Resampler


def merge(
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    categories: Categories,
    config: InferenceConfig,
    space: LabelSpace,
) -> tuple[Int[Tensor, "H W"], list[dict[str, Any]]]:
    """One map from instances and stuff, as Panoptic-FPN does: instances sorted by score, then stuff.

    An instance is dropped if more than `overlap` of its area is already covered. With `fill_threshold`, a free pixel to
    which the stuff path gives the class of an instance joins the most probable such instance. All other free pixels get
    their best stuff class. If the stuff path sees a thing there, they do so only if the probability of that stuff class
    reaches `stuff_threshold`. Stuff segments smaller than `min_stuff_area` of the image become void.

    Args:
        candidates: the confident ones, sorted by score, the highest first.
        stuff_logits: of the stuff path, at stride 4 of the network's input, as those of the candidates.
        semantic: which of them is the largest at each pixel.
    """
    cut = mask_cut(config)
    windows = resampler.windows(candidates.logits, cut)
    ids = torch.full(resampler.size, VOID, dtype=torch.int32, device=semantic.device)
    stays = torch.zeros(len(windows), dtype=torch.bool, device=semantic.device)
    for number, window in enumerate(windows):
        mask = resampler.one(candidates.logits, number, window) > cut
        free = mask & (ids[window] == VOID)
        visible = free.sum()
        stays[number] = (visible > 0) & (visible >= (1 - config.overlap) * mask.sum())
        ids[window].masked_fill_(free & stays[number], number + 1)
    if config.fill_threshold is not None:
        cut = min(cut, float(torch.logit(torch.tensor(config.fill_threshold))))
        windows = resampler.windows(candidates.logits, cut)
        _fill(ids, candidates.logits, windows, stays, space.outputs(candidates.labels), semantic, resampler, cut)
    segments = _things(ids, candidates, windows, stays, categories)
    free = ids == VOID
    stuff = _stuff(stuff_logits, semantic, free, resampler, space, config)
    areas = torch.bincount(stuff.flatten(), minlength=space.num_stuff + 1)[1:].tolist()
    identities = [VOID] * (1 + space.num_stuff)
    for index, area in enumerate(areas):
        if area == 0 or area < config.min_stuff_area * ids.numel():
            continue
        identities[1 + index] = len(segments) + 1
        segments.append(
            {"id": len(segments) + 1, "category_id": categories.stuff[index].id, "isthing": False, "area": area}
        )
    table = torch.tensor(identities, dtype=ids.dtype, device=ids.device)
    return ids + table[stuff], segments


def _fill(
    ids: Int[Tensor, "H W"],
    logits: MaskLogits,
    windows: list[tuple[slice, slice]],
    stays: Bool[Tensor, "n"],
    outputs: Int[Tensor, "n"],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    cut: float,
) -> None:
    """Gives a free pixel to the instance with the largest logit there, above `cut`, among those of its semantic label.

    `outputs` are the labels of the stuff path that stand for the class of each instance.
    """
    free = ids == VOID
    best = torch.full(ids.shape, cut, device=ids.device)
    for number in stays.nonzero()[:, 0].tolist():
        window = windows[number]
        values = resampler.one(logits, number, window)
        wins = free[window] & (semantic[window] == outputs[number]) & (values > best[window])
        best[window].copy_(values.where(wins, best[window]))
        ids[window].masked_fill_(wins, number + 1)


def _things(
    ids: Int[Tensor, "H W"],
    candidates: Candidates,
    windows: list[tuple[slice, slice]],
    stays: Bool[Tensor, "n"],
    categories: Categories,
) -> list[dict[str, Any]]:
    """The segments of the instances that stay, which become 1, 2, … in `ids`."""
    areas = torch.bincount(ids.flatten(), minlength=len(windows) + 1)[1:].tolist()
    table = (stays.cumsum(0) * stays).to(ids.dtype)
    numbers = stays.nonzero()[:, 0].tolist()
    spans = [_spans(ids[windows[number]] == number + 1) for number in numbers]
    boxes = torch.stack(spans).tolist() if spans else []
    ids.copy_(F.pad(table, (1, 0), value=VOID)[ids])
    labels, scores = candidates.labels.tolist(), candidates.scores.tolist()
    segments = []
    for identity, (number, (top, bottom, left, right)) in enumerate(zip(numbers, boxes, strict=True), start=1):
        rows, columns = windows[number]
        segments.append(
            {
                "id": identity,
                "category_id": categories.all[labels[number]].id,
                "isthing": True,
                "score": scores[number],
                "area": areas[number],
                "bbox": [columns.start + left, rows.start + top, right - left, bottom - top],
            }
        )
    return segments


def _spans(mask: Bool[Tensor, "P Q"]) -> Int[Tensor, "4"]:
    """First row, row after the last, first column, column after the last of the pixels of a mask."""
    rows, columns = mask.any(1).byte(), mask.any(0).byte()
    ends = [(line.argmax(), len(line) - line.flip(0).argmax()) for line in (rows, columns)]
    return torch.stack([*ends[0], *ends[1]])


def _stuff(
    logits: Float[Tensor, "N_s h w"],
    semantic: Int[Tensor, "H W"],
    free: Bool[Tensor, "H W"],
    resampler: Resampler,
    space: LabelSpace,
    config: InferenceConfig,
) -> Int[Tensor, "H W"]:
    """The stuff class of each free pixel, from 1, and 0 elsewhere and for none."""
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
