"""The data set of a split in the panoptic format: images, and PNG files whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from spinet.data.annotations import ImageRecord, read_bytes
from spinet.data.segments import Categories, DataError, RawSample, Sample


def read_picture(path: Path, *, width: int, height: int) -> np.ndarray:
    """The picture as RGB, uint8 [height, width, 3], whatever its own colours and depth are; as stored, not turned.

    Raises:
        DataError: the file is missing, broken, truncated or of another size.
    """
    try:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), flags)
    except cv2.error:  # empty, or larger than OpenCV allows
        picture = None
    if picture is None:
        raise DataError(f"{path}: truncated or not a picture; fetch it again")
    if picture.shape[:2] != (height, width):
        size = f"{picture.shape[1]} × {picture.shape[0]}"
        raise DataError(f"{path}: is {size} pixels, the JSON file says {width} × {height}; run: spinet data check")
    return picture


@dataclass(frozen=True, kw_only=True)
class PanopticDataset(Dataset[Sample]):
    """The images of a split with their panoptic segments; `open_dataset` makes one."""

    root: Path
    split: str
    categories: Categories
    records: list[ImageRecord]
    fingerprint: str  # sha256 of the JSON file

    @cached_property
    def index_of(self) -> Mapping[int | str, int]:
        """Place of each image id."""
        return {record.image_id: index for index, record in enumerate(self.records)}

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> RawSample:
        """Decodes the two files of an image, and no more.

        Raises:
            DataError: one of them is missing, broken, truncated or of another size than the JSON file says.
        """
        record = self.records[index]
        size = {"width": record.width, "height": record.height}
        labels = [self.categories.label_of[category_id] for category_id in record.segments.category_ids.tolist()]
        return RawSample(
            image_id=record.image_id,
            image=read_picture(record.image, **size),
            panoptic=read_picture(record.panoptic, **size),
            ids=record.segments.ids,
            labels=torch.tensor(labels, dtype=torch.int64),
            crowd=torch.from_numpy(record.segments.crowd),
            path=record.panoptic,
        )

    def load(self, index: int) -> Sample:
        """The full image and its segments. Raises `DataError` like `read`, and where the PNG has an unknown id."""
        return self.read(index).look_up()

    __getitem__ = load
