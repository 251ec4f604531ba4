"""A SynthCity image with an exact number of things, to measure inference time."""

from __future__ import annotations

from itertools import count

import numpy as np
import torch
from cityscapesscripts.helpers.labels import labels as cityscapes_labels

from spinet.data.segments import Categories, Category, Sample
from spinet.synthcity.write import render_scene

CATEGORIES = Categories.of(
    [
        Category(label.id, label.name, bool(label.hasInstances), label.color, label.category)
        for label in cityscapes_labels
        if not label.ignoreInEval
    ]
)
"""The classes of Cityscapes' evaluation."""

LEAST_SIDE = 12
"""Smallest side of a thing's box, in pixels; smaller things are not used."""

LEAST_DISTANCE = 16
"""Smallest distance between the centres of two things along an axis, in pixels; no network here reliably separates
nearer things."""

MOST_OVERLAP = 0.3
"""Largest IoU of the boxes of two things."""

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are exclusive


def mosaic(things: int, size: tuple[int, int], *, seed: int = 0) -> Sample:
    """Makes an image with `things` things and stuff: the fewest scenes side by side that have that many things.

    It keeps the largest things. Pixels of other things, of crowds and of void become the most frequent stuff class of
    the image. Segments 1 … `things` are the things, the largest first. The other segments are stuff, one per class.

    Args:
        things: number of things; 0 gives a street without things.
        size: height, width, in pixels.

    Raises:
        ValueError: scenes of the smallest size do not have that many things.
    """
    for side in count(1):
        tile = (-(-size[0] // side), -(-size[1] // side))
        try:
            scenes = [_numbered(render_scene(seed, index, tile, "val"), index) for index in range(side**2)]
        except ValueError as error:
            raise ValueError(f"no {things} things in an image of {size[0]} x {size[1]} pixels: {error}") from None
        rows = [scenes[start : start + side] for start in range(0, side**2, side)]
        image, labels, ids = (
            np.concatenate([np.concatenate([s[part] for s in row], axis=1) for row in rows]) for part in range(3)
        )
        image, labels, ids = image[: size[0], : size[1]], labels[: size[0], : size[1]], ids[: size[0], : size[1]]
        chosen = _largest_apart(ids, things)
        if len(chosen) == things:
            return _sample(image, labels, ids, chosen)
    raise AssertionError("count never ends")


def _numbered(scene: tuple[np.ndarray, np.ndarray, np.ndarray], index: int) -> tuple[np.ndarray, ...]:
    """The scene with ids that differ from those of every other scene."""
    image, labels, ids = scene
    return image, labels, ids + np.int32(65536 * index)


def _largest_apart(ids: np.ndarray, things: int) -> list[int]:
    """Ids of the largest things that are far enough apart, sorted by area, at most `things` of them."""
    values, areas = np.unique(ids, return_counts=True)
    is_thing = values % 65536 >= 1000  # label id * 1000 + number
    chosen: list[int] = []
    boxes: list[Box] = []
    for value in values[is_thing][np.argsort(-areas[is_thing], kind="stable")].tolist():
        if len(chosen) == things:
            break
        rows, columns = np.nonzero(ids == value)
        box = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE and all(_apart(box, other) for other in boxes):
            chosen.append(value)
            boxes.append(box)
    return chosen


def _apart(a: Box, b: Box) -> bool:
    distance = max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0) * max(width, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return distance >= LEAST_DISTANCE and shared <= MOST_OVERLAP * union


def _sample(image: np.ndarray, labels: np.ndarray, ids: np.ndarray, chosen: list[int]) -> Sample:
    label_of = CATEGORIES.label_of
    table = np.full(256, -1)  # stuff class of each label id
    for category in CATEGORIES.stuff:
        table[category.id] = label_of[category.id]
    stuff = table[labels]
    commonest = np.bincount(stuff[stuff >= 0]).argmax()
    stuff[stuff < 0] = commonest
    present = np.unique(stuff)
    segment_map = (len(chosen) + 1 + np.searchsorted(present, stuff)).astype(np.int32)
    for number, value in enumerate(chosen, start=1):
        segment_map[ids == value] = number
    kinds = [label_of[value % 65536 // 1000] for value in chosen] + present.tolist()
    return Sample(
        image_id=f"{len(chosen)} things",
        image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        segment_map=torch.from_numpy(segment_map),
        labels=torch.tensor(kinds, dtype=torch.int64),
        crowd=torch.zeros(len(kinds), dtype=torch.bool),
    )
