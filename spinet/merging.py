"""§5.2 Merge: instances first, stuff where none is, as Panoptic-FPN does."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.segments import VOID, Categories
from spinet.duplicates import Candidates, mask_cut
from spinet.objective.targets import SemanticClasses, first_stuff


class Resampler:
    """Logits at stride 4 of the padded network input to pixels of the image, bilinearly, in one step."""

    def __init__(self, *, network_size: tuple[int, int], size: tuple[int, int], device: torch.device, stride: int = 4):
        self.size = size
        self.network_size = network_size
        self.stride = stride
        self.rows, self.columns = (
            # cell coordinate of each pixel: (pixel centre · scale) / stride − 1/2
            (torch.arange(out, device=device) + 0.5) * (inner / out) / stride - 0.5
            for inner, out in zip(network_size, size, strict=True)
        )

    def whole(self, logits: Float[Tensor, "n h w"]) -> Float[Tensor, "n H W"]:
        """All pixels."""
        return self.window(logits, slice(0, self.size[0]), slice(0, self.size[1]))

    def window(self, logits: Float[Tensor, "n h w"], rows: slice, columns: slice) -> Float[Tensor, "n p q"]:
        """The pixels of a rectangle."""
        vertical = _weights(self.rows[rows], logits.shape[1])
        horizontal = _weights(self.columns[columns], logits.shape[2])
        upper, lower, y = vertical
        tall = torch.lerp(logits[:, upper], logits[:, lower], y[:, None])
        left, right, x = horizontal
        return torch.lerp(tall[:, :, left], tall[:, :, right], x)

    def pixels(self, mask: Bool[Tensor, "h w"]) -> tuple[slice, slice]:
        """A rectangle of pixels outside which the resampled mask is empty."""
        if not mask.any():
            return slice(0, 0), slice(0, 0)
        slices = []
        for axis, positions in ((1, self.rows), (0, self.columns)):
            cells = torch.nonzero(mask.any(axis))
            inside = torch.nonzero((positions > cells[0] - 1) & (positions < cells[-1] + 1))
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return slices[0], slices[1]


def _weights(positions: Float[Tensor, "p"], cells: int) -> tuple[Tensor, Tensor, Tensor]:
    positions = positions.clamp(0, cells - 1)
    lower = positions.floor().long()
    return lower, (lower + 1).clamp(max=cells - 1), positions - lower


def merge(
    candidates: Candidates,
    semantic_logits: Float[Tensor, "N_s H W"],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    categories: Categories,
    config: InferenceConfig,
    semantic_classes: SemanticClasses,
) -> tuple[Int[Tensor, "H W"], list[dict[str, Any]]]:
    """One map from instances and stuff, as Panoptic-FPN does: instances first, by falling score; stuff fills the rest.

    An instance more than `overlap` of which is taken is dropped. With `fill_threshold`, free pixels that the stuff path
    gives to the class of an instance join the one that is most probable there. Where nothing is, the best stuff class
    is put; where the stuff path itself sees a thing, only if the probability of that stuff class reaches
    `stuff_threshold`. Stuff segments smaller than `min_stuff_area` of the image become void.
    """
    height, width = resampler.size
    cut = mask_cut(config)
    ids = torch.full((height, width), VOID, dtype=torch.int32, device=semantic.device)
    kept: list[tuple[int, float, Tensor]] = []
    for label, score, logits in zip(
        candidates.labels.tolist(), candidates.scores.tolist(), candidates.logits, strict=True
    ):
        rows, columns = resampler.pixels(logits > cut)
        mask = resampler.window(logits[None], rows, columns)[0] > cut
        free = mask & (ids[rows, columns] == VOID)
        area, visible = int(mask.sum()), int(free.sum())
        if visible == 0 or visible < (1 - config.overlap) * area:
            continue
        kept.append((label, score, logits))
        ids[rows, columns][free] = len(kept)
    if config.fill_threshold is not None:
        cut = min(cut, float(torch.logit(torch.tensor(config.fill_threshold))))
        outputs = [label if semantic_classes == "all" else categories.num_stuff for label, _, _ in kept]
        _fill(ids, [logits for _, _, logits in kept], outputs, semantic, resampler, cut)
    segments: list[dict[str, Any]] = []
    for number, (label, score, logits) in enumerate(kept, start=1):
        rows, columns = resampler.pixels(logits > cut)
        mask = ids[rows, columns] == number
        segments.append(
            {
                "id": number,
                "category_id": categories.all[label].id,
                "isthing": True,
                "score": score,
                "area": int(mask.sum()),
                "bbox": _box(mask, rows.start, columns.start),
            }
        )
    first = first_stuff(semantic_classes, num_things=categories.num_things)
    stuff = _stuff(semantic_logits, semantic, first, categories.num_stuff, config)
    free = ids == VOID
    areas = torch.bincount(stuff[free & (stuff >= 0)], minlength=categories.num_stuff).tolist()
    for index, area in enumerate(areas):
        if area == 0 or area < config.min_stuff_area * height * width:
            continue
        identity = len(segments) + 1
        ids[free & (stuff == index)] = identity
        segments.append(
            {"id": identity, "category_id": categories.stuff[index].id, "isthing": False, "area": int(area)}
        )
    return ids, segments


def _fill(
    ids: Int[Tensor, "H W"],
    logits: list[Float[Tensor, "h w"]],
    outputs: list[int],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    cut: float,
) -> None:
    """Gives a free pixel to the instance with the largest logit there, above `cut`, among those of its semantic label.

    `outputs` are the labels of the stuff path that stand for the class of each instance.
    """
    free = ids == VOID
    best = torch.full(ids.shape, cut, device=ids.device)
    for number, (mask, output) in enumerate(zip(logits, outputs, strict=True), start=1):
        window = resampler.pixels(mask > cut)
        values = resampler.window(mask[None], *window)[0]
        wins = free[window] & (semantic[window] == output) & (values > best[window])
        best[window][wins] = values[wins]
        ids[window][wins] = number


def _stuff(
    logits: Float[Tensor, "N_s H W"], semantic: Int[Tensor, "H W"], first: int, stuff: int, config: InferenceConfig
) -> Int[Tensor, "H W"]:
    """The stuff class 0 … of each pixel, −1 where there is none; `first` of the outputs is stuff class 0."""
    best = logits[first : first + stuff].argmax(0)
    is_thing = (semantic < first) | (semantic >= first + stuff)
    if not is_thing.any():
        return best
    pixels = logits[:, is_thing]
    chosen = best[is_thing]
    probability = (pixels.gather(0, chosen[None] + first)[0] - pixels.logsumexp(0)).exp()
    best[is_thing] = torch.where(probability >= config.stuff_threshold, chosen, -1)
    return best


def _box(mask: Bool[Tensor, "h w"], top: int, left: int) -> list[int]:
    """x, y, width, height of the pixels of a mask whose corner lies at (left, top)."""
    y, x = torch.nonzero(mask.any(1)), torch.nonzero(mask.any(0))
    return [left + int(x[0]), top + int(y[0]), int(x[-1] - x[0]) + 1, int(y[-1] - y[0]) + 1]
