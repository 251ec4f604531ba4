"""A panoptic sample: an image, its segments, and their categories.

Every data set is converted to this form: a map with the segment of each pixel, and the label of each segment. Both
formats in the paper store segment ids as colours of a PNG file (R + 256 G + 65536 B).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

VOID = 0  # unlabelled pixels of segment maps and panoptic PNG files


class DataError(ValueError):
    """Files have wrong content. The message is one line: the file, the value, what to do."""


@dataclass(frozen=True)
class Category:
    """A class of the data set: its id and name, and whether its objects are counted (things) or not.

    `supercategory` is the name of a group of classes, such as "vehicle", or empty. Classes are equal without it.
    """

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int] = (128, 128, 128)
    supercategory: str = field(default="", compare=False)


@dataclass(frozen=True)
class Categories:
    """The classes in the order of the network's labels: things are `0 … N_t-1`, stuff `N_t … N_t+N_s-1`."""

    things: tuple[Category, ...]
    stuff: tuple[Category, ...]

    @classmethod
    def of(cls, categories: list[Category]) -> Categories:
        """Assigns labels to the categories of a data set: things, then stuff, each in the order of the data set."""
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

    `segment_map` is `VOID` at unlabelled pixels and `i + 1` at the pixels of the i-th segment. `window` is the
    position of this image in the scaled image that it was cropped from: left, top, full width, full height, in pixels.
    """

    image_id: int | str
    image: Tensor  # uint8 [3, H, W], RGB; may be channels last in memory
    segment_map: Tensor  # int32 [H, W]
    labels: Tensor  # int64 [K], see `Categories`
    crowd: Tensor  # bool [K], regions of several instances, which every loss ignores
    window: Tensor = field(default_factory=lambda: torch.zeros(0))  # float32 [4]; default: a whole image
    smallest_map: Tensor | None = None  # int32 [H, W], the smallest thing at each pixel, even if hidden

    def __post_init__(self) -> None:
        if not len(self.window):
            self.window = torch.tensor([0, 0, self.size[1], self.size[0]], dtype=torch.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def pixels(self) -> np.ndarray:
        """The image in the format of `predict` and OpenCV, uint8 [H, W, 3]."""
        return self.image.permute(1, 2, 0).numpy()

    def crop(self, top: int, left: int, height: int, width: int) -> Sample:
        """A view of the rectangle. All segments keep their numbers, even if they are outside it."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        return replace(
            self,
            image=self.image[:, rows, columns],
            segment_map=self.segment_map[rows, columns],
            window=self.window + torch.tensor([left, top, 0, 0]),
            smallest_map=None if self.smallest_map is None else self.smallest_map[rows, columns],
        )


@dataclass
class RawSample:
    """A sample as stored in its two files. `crop` decodes the segment ids of its rectangle only."""

    image_id: int | str
    image: np.ndarray  # uint8 [H, W, 3], RGB
    panoptic: np.ndarray  # uint8 [H, W, 3], RGB: the segment ids
    ids: np.ndarray  # int32 [K], id of the i-th segment in `panoptic`
    labels: Tensor  # int64 [K]
    crowd: Tensor  # bool [K]
    path: Path  # of `panoptic`, for messages
    smallest_map: np.ndarray | None = None  # int32 [H, W], see `Sample`

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, pixels."""
        return self.image.shape[0], self.image.shape[1]

    def crop(self, top: int, left: int, height: int, width: int) -> Sample:
        """The sample of a rectangle, in pixels. It has all K segments, even if they are outside it.

        Raises:
            DataError: the rectangle has a segment id that is not in `ids`.
        """
        rows, columns = slice(top, top + height), slice(left, left + width)
        segment_map = look_up(decode_ids(self.panoptic[rows, columns]), self.ids, self.path)
        return Sample(
            image_id=self.image_id,
            image=torch.from_numpy(self.image[rows, columns]).permute(2, 0, 1),
            segment_map=torch.from_numpy(segment_map),
            labels=self.labels,
            crowd=self.crowd,
            window=torch.tensor([left, top, self.size[1], self.size[0]], dtype=torch.float32),
            smallest_map=None if self.smallest_map is None else torch.from_numpy(self.smallest_map[rows, columns]),
        )

    def look_up(self) -> Sample:
        """The whole sample. Raises `DataError` like `crop`."""
        return self.crop(0, 0, *self.size)


@dataclass
class Batch:
    """Samples of one size, ready for the network; smaller ones are padded with void at the right and the bottom."""

    images: Tensor  # uint8 [B, 3, H, W]
    segment_maps: Tensor  # int32 [B, H, W]
    labels: list[Tensor]  # B of int64 [K_b]
    crowd: list[Tensor]  # B of bool [K_b]
    windows: Tensor  # float32 [B, 4]
    seeds: list[int]  # B, for the random draws of each sample
    image_ids: list[int | str]
    smallest_maps: Tensor | None = None  # int32 [B, H, W], see `Sample`

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; a `DataLoader` calls this."""
        return map_tensors(self, Tensor.pin_memory)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Applies the function to each tensor in a value: in lists, dictionaries and fields of data classes."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value)]
        return replace(value, **{name: map_tensors(getattr(value, name), function) for name in names})
    return value


def decode_ids(png: np.ndarray) -> np.ndarray:
    """Segment ids, int32 [H, W], of a panoptic PNG read as RGB, uint8 [H, W, 3]."""
    words = cv2.cvtColor(png, cv2.COLOR_RGB2RGBA).view("<i4")[..., 0]  # R + 256 G + 65536 B + 2^24 · 255
    return words & 0xFFFFFF


def look_up(ids: np.ndarray, segments: np.ndarray, path: Path) -> np.ndarray:
    """The segment map, int32 [H, W], of segment ids: `VOID` where `ids` is 0, `i + 1` where it is `segments[i]`.

    Raises:
        DataError: `ids`, int32 [H, W], has a value that is not in `segments`, int32 [K]. The message names `path`.
    """
    table = np.zeros(int(segments.max(initial=0)) + 2, np.int32)  # the last entry is for all larger ids
    table[segments] = np.arange(1, len(segments) + 1)
    segment_map = np.take(table, ids, mode="clip")
    if np.count_nonzero(segment_map) != np.count_nonzero(ids):
        unknown = ids[(segment_map == VOID) & (ids != VOID)]
        raise DataError(f"{path}: segment id {unknown[0]} is not in the JSON file; run: spinet data check")
    return segment_map


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """The RGB image, uint8 [H, W, 3], that stores the segment ids (0 … 2^24-1), integer [H, W]."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
