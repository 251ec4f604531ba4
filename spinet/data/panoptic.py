"""The data set of a split in the panoptic format: images, and PNG files whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from spinet.data.annotations import ImageRecord
from spinet.data.readers import read_image, read_panoptic_png
from spinet.data.segments import Categories, Category, DataError, RawSample, Sample, decode_ids, look_up
from spinet.data.whole_masks import WholeMask, smallest_things


def read_sized(read: Callable[[Path], np.ndarray], path: Path, *, width: int, height: int) -> np.ndarray:
    """Reads a file of known size with `read`, uint8 [height, width, 3].

    Raises:
        DataError: `read` raises it, or the size is different.
    """
    image = read(path)
    if image.shape[:2] != (height, width):
        size = f"{image.shape[1]} × {image.shape[0]}"
        raise DataError(f"{path}: is {size} pixels, the JSON file says {width} × {height}; run: spinet data check")
    return image


@dataclass(frozen=True, kw_only=True)
class PanopticDataset(Dataset[Sample]):
    """The images of a split with their panoptic segments; `open_dataset` makes one."""

    root: Path
    split: str
    categories: Categories
    records: list[ImageRecord]
    fingerprint: str  # sha256 of the JSON file
    whole_masks: Mapping[int | str, Sequence[WholeMask]] | None = None  # of the things in each image

    @cached_property
    def index_of(self) -> Mapping[int | str, int]:
        """Index of each image id."""
        return {record.image_id: index for index, record in enumerate(self.records)}

    def __len__(self) -> int:
        return len(self.records)

    def with_categories(self, categories: Categories) -> PanopticDataset:
        """The same images with the labels of other categories, such as those of a network.

        Categories are matched by id. Order, colours and unused categories do not matter.

        Raises:
            DataError: the category of a segment is unknown there, or is another class.
        """
        if found := strangers(self.records, self.categories, categories):
            raise DataError(f"{self.root}, {self.split}: {found[0]}; ids must mean the same classes everywhere")
        return replace(self, categories=categories)

    def read(self, index: int) -> RawSample:
        """Decodes the two files of an image.

        Raises:
            DataError: one of them cannot be read, or has another size than in the JSON file.
        """
        record = self.records[index]
        size = {"width": record.width, "height": record.height}
        labels = [self.categories.label_of[category_id] for category_id in record.segments.category_ids.tolist()]
        raw = RawSample(
            image_id=record.image_id,
            image=read_sized(read_image, record.image, **size),
            panoptic=read_sized(read_panoptic_png, record.panoptic, **size),
            ids=record.segments.ids,
            labels=torch.tensor(labels, dtype=torch.int64),
            crowd=torch.from_numpy(record.segments.crowd),
            path=record.panoptic,
        )
        if self.whole_masks is None:
            return raw
        segment_map = look_up(decode_ids(raw.panoptic), raw.ids, raw.path)
        things = {
            value: category_id
            for value, (category_id, label, crowd) in enumerate(
                zip(record.segments.category_ids.tolist(), labels, record.segments.crowd, strict=True), start=1
            )
            if label < self.categories.num_things and not crowd
        }
        masks = self.whole_masks.get(record.image_id, ())
        return replace(raw, smallest_map=smallest_things(segment_map, things, masks))

    def load(self, index: int) -> Sample:
        """The full image and its segments. Raises `DataError` like `read`, and if the PNG has an unknown id."""
        return self.read(index).look_up()

    __getitem__ = load


def strangers(records: list[ImageRecord], own: Categories, others: Categories) -> list[str]:
    """The categories of the records' segments that are unknown in `others`, or another class there."""
    used = {category_id for record in records for category_id in record.segments.category_ids.tolist()}
    known = {category.id: category for category in others.all}
    found = []
    for category in own.all:
        other = known.get(category.id)
        if category.id not in used or (other and (other.name, other.isthing) == (category.name, category.isthing)):
            continue
        there = f"is {_told(other)} elsewhere" if other else "is unknown elsewhere"
        found.append(f"category {category.id}, {_told(category)}, {there}")
    return found


def _told(category: Category) -> str:
    return f"{category.name!r} ({'thing' if category.isthing else 'stuff'})"
