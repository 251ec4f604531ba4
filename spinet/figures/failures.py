"""Things that a network misses, each in its surroundings: where it fails, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from spinet.data import Sample
from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories
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
        window, pixels, truth = _around(one), one.sample.pixels, one.sample.segment_map.numpy()
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
        inside = one.sample.segment_map.numpy()[_around(one)] == one.number
        for axes in figure.axes[3 * place : 3 * place + 3]:
            axes.contour(inside, [0.5], colors="black", linewidths=2.5)
            axes.contour(inside, [0.5], colors="yellow", linewidths=1)
    return figure


def _around(one: Missed) -> tuple[slice, slice]:
    """Rows and columns of a window around the thing, within the image, twice as wide as high."""
    truth = one.sample.segment_map.numpy()
    rows, columns = np.nonzero(truth == one.number)
    span = max(np.ptp(rows) + 1, (np.ptp(columns) + 1) / 2) * 1.6
    height = int(min(max(span, LEAST), truth.shape[0], truth.shape[1] // 2))
    top = int(np.clip((rows.min() + rows.max() - height) // 2, 0, truth.shape[0] - height))
    left = int(np.clip((columns.min() + columns.max()) // 2 - height, 0, truth.shape[1] - 2 * height))
    return slice(top, top + height), slice(left, left + 2 * height)
