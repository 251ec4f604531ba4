"""One panoptic sample: an image, its segments, and the categories that they belong to.

Every data set becomes this form, whatever its files look like: a map that names a segment at each pixel, and for each
segment its label. Both formats that the paper uses store segment ids as colours of a PNG file (R + 256 G + 65536 B).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

VOID = 0  # the value of a segment map where no segment is, and of a panoptic PNG where nothing is labelled


@dataclass(frozen=True)
class Category:
    """A class of the data set under its own id and name, and whether its objects are counted (things) or not (stuff)."""

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int] = (128, 128, 128)


@dataclass(frozen=True)
class Categories:
    """The classes in the order of the network's labels: things are `0 … N_t-1`, stuff `N_t … N_t+N_s-1`."""

    things: tuple[Category, ...]
    stuff: tuple[Category, ...]

    @classmethod
    def of(cls, categories: list[Category]) -> Categories:
        """Sorts a data set's categories into labels, each kind in the data set's own order."""
        return cls(
            things=tuple(c for c in categories if c.isthing), stuff=tuple(c for c in categories if not c.isthing)
        )

    @cached_property
    def all(self) -> tuple[Category, ...]:
        return self.things + self.stuff

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Label of each category id."""
        return {category.id: label for label, category in enumerate(self.all)}

    @property
    def num_things(self) -> int:
        return len(self.things)

    @property
    def num_stuff(self) -> int:
        return len(self.stuff)


@dataclass
class Sample:
    """An image with its segments.

    `segment_map` holds `VOID` where nothing is labelled and `i + 1` at the pixels of the i-th segment. `window` is the
    place of this image in the scaled image that it was cropped from: left, top, full width, full height, in pixels.
    """

    image_id: int | str
    image: Tensor  # uint8 [3, H, W], RGB
    segment_map: Tensor  # int32 [H, W]
    labels: Tensor  # int64 [K], see `Categories`
    crowd: Tensor  # bool [K], regions where instances are not told apart: ignored by every loss
    window: Tensor = field(default_factory=lambda: torch.zeros(0))  # float32 [4]


@dataclass
class Batch:
    """Samples of one size, ready for the network; smaller ones are padded at the right and the bottom with void."""

    images: Tensor  # uint8 [B, 3, H, W]
    segment_maps: Tensor  # int32 [B, H, W]
    labels: list[Tensor]  # B of int64 [K_b]
    crowd: list[Tensor]  # B of bool [K_b]
    windows: Tensor  # float32 [B, 4]
    seeds: list[int]  # B, of each sample's own random draws
    image_ids: list[int | str]


def decode_ids(png: np.ndarray) -> np.ndarray:
    """Segment ids, int32 [H, W], of a panoptic PNG read as RGB, uint8 [H, W, 3]."""
    r, g, b = png[..., 0], png[..., 1], png[..., 2]
    return r.astype(np.int32) | g.astype(np.int32) << 8 | b.astype(np.int32) << 16


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """The RGB picture, uint8 [H, W, 3], that stores the segment ids (0 … 2^24-1), integer [H, W]."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
