"""Things that a network misses, and its masks of small things, each in its surroundings: where it fails, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from spinet.data import Sample
from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories
from spinet.evaluation.oracle import BestMask
from spinet.figures.plots import gallery
from spinet.figures.style import Figure
from spinet.system import Panoptic

LEAST = 96
"""Smallest height of what is shown around a thing, pixels; the width is twice the height."""


@dataclass(frozen=True)
class Missed:
    """A thing without a predicted segment of its class that overlaps it with an IoU above 0.5."""

    sample: Sample
    found: Panoptic
    number: int  # in the segment map
    label: int
    area: int  # pixels


def missed(sample: Sample, found: Panoptic, categories: Categories) -> list[Missed]:
    """The missed things of an image; things of a group are left out."""
    truth, known = sample.segment_map.numpy(), sample.segment_map.numpy() > 0
    category_of = {segment["id"]: segment["category_id"] for segment in found.segments}
    result = []
    for number, (label, crowd) in enumerate(zip(sample.labels.tolist(), sample.crowd.tolist(), strict=True), 1):
        mask = truth == number
        area = int(mask.sum())
        if crowd or label >= categories.num_things or not area:
            continue
        ids, counts = np.unique(found.ids[mask], return_counts=True)
        best, inside = int(ids[counts.argmax()]), int(counts.max())
        union = area + int(((found.ids == best) & known).sum()) - inside
        if category_of.get(best) != categories.all[label].id or inside <= 0.5 * union:
            result.append(Missed(sample, found, number, label, area))
    return result


def failures(
    samples: Iterable[Sample], predict: Callable[[np.ndarray], Panoptic], categories: Categories, *, most: int = 6
) -> Figure:
    """The largest missed thing of each class, up to `most`: image, truth and prediction around it."""
    worst: dict[int, Missed] = {}
    for sample in samples:
        for one in missed(sample, predict(sample.pixels), categories):
            if one.label not in worst or one.area > worst[one.label].area:
                worst[one.label] = one
    shown = sorted(worst.values(), key=lambda one: -one.area)[:most]
    pictures: list[tuple[str, np.ndarray]] = []
    for one in shown:
        pixels, truth = one.sample.pixels, one.sample.segment_map.numpy()
        window = _window(truth == one.number)
        segments = [
            {"id": number, "category_id": categories.all[label].id}
            for number, label in enumerate(one.sample.labels.tolist(), 1)
        ]
        name = categories.all[one.label].name
        pictures += [
            (f"a missed {name}, {one.area} px", pixels[window]),
            ("truth", draw_panoptic(pixels, truth, segments, categories)[window]),
            ("prediction", draw_panoptic(pixels, one.found.ids, one.found.segments, categories)[window]),
        ]
    figure = gallery(pictures, columns=3)
    for place, one in enumerate(shown):
        thing = one.sample.segment_map.numpy() == one.number
        for axes in figure.axes[3 * place : 3 * place + 3]:
            _outline(axes, thing[_window(thing)])
    return figure


def small_masks(
    samples: Iterable[Sample],
    masks: Callable[[Sample], Iterable[BestMask]],
    categories: Categories,
    *,
    sides: tuple[int, int] = (16, 32),
    most: int = 16,
) -> Figure:
    """What the filters of small things draw: each thing, outlined, with its mask in magenta.

    Args:
        masks: of the things of a sample; see `best_masks`.
        sides: the square root of the area of the things that are shown, pixels: from, to.
        most: number of things, taken at equal steps from all of that size.
    """
    low, high = (side**2 for side in sides)
    small: list[tuple[Sample, BestMask, np.ndarray]] = []
    for sample in samples:
        truth = sample.segment_map.numpy()
        for best in sorted(masks(sample), key=lambda best: best.number):
            thing = truth == best.number
            if low <= thing.sum() < high:
                small.append((sample, best, thing))
    shown = [small[place] for place in np.linspace(0, len(small) - 1, min(most, len(small))).round().astype(int)]
    pictures, outlines = [], []
    for sample, best, thing in shown:
        window, mask = _window(thing), best.mask.cpu().numpy()
        drawn = np.where(mask[..., None], 0.4 * sample.pixels + 0.6 * np.array([255, 0, 255]), sample.pixels)
        iou = (mask & thing).sum() / (mask | thing).sum()
        pictures.append((f"{categories.all[best.label].name}, IoU {iou:.2f}", drawn.astype(np.uint8)[window]))
        outlines.append(thing[window])
    figure = gallery(pictures, columns=4)
    for axes, outline in zip(figure.axes, outlines, strict=True):
        _outline(axes, outline)
    return figure


def _outline(axes: Axes, inside: np.ndarray) -> None:
    axes.contour(inside, [0.5], colors="black", linewidths=2.5)
    axes.contour(inside, [0.5], colors="yellow", linewidths=1)


def _window(thing: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a window around the thing, within the image, twice as wide as high."""
    rows, columns = np.nonzero(thing)
    span = max(np.ptp(rows) + 1, (np.ptp(columns) + 1) / 2) * 1.6
    height = int(min(max(span, LEAST), thing.shape[0], thing.shape[1] // 2))
    top = int(np.clip((rows.min() + rows.max() - height) // 2, 0, thing.shape[0] - height))
    left = int(np.clip((columns.min() + columns.max()) // 2 - height, 0, thing.shape[1] - 2 * height))
    return slice(top, top + height), slice(left, left + 2 * height)
