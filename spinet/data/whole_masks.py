"""§5.2 Whole masks of things, with their hidden parts, from COCO's `annotations/instances_{split}.json`.

Segments of a panoptic map do not overlap. Where whole masks overlap, the paper gives a location to the smaller thing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pycocotools import mask as rle_codec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from spinet.data.annotations import ImageRecord
from spinet.data.readers import read_bytes
from spinet.data.segments import DataError
from spinet.files import parse_json

VISIBLE = 0.5  # minimum share of a segment inside the whole mask of the same thing

Coordinate = Annotated[float, Field(ge=-1e5, le=1e5)]  # pycocotools crashes on much larger ones


class _RunLengths(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str | list[Annotated[int, Field(ge=0)]]


class _Annotation(BaseModel):
    model_config = ConfigDict(extra="ignore")
    image_id: int | str
    category_id: int
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0
    segmentation: list[Annotated[list[Coordinate], Field(min_length=6)]] | _RunLengths


@dataclass(frozen=True)
class WholeMask:
    """The whole mask of one thing."""

    category_id: int
    code: dict[str, Any]  # of the run-length codec of pycocotools


def read_whole_masks(path: Path, records: Sequence[ImageRecord]) -> dict[int | str, list[WholeMask]]:
    """The things of each image, without crowds.

    Args:
        path: of an `instances_*.json`.
        records: the images to read.

    Raises:
        DataError: the file is missing or broken, or a mask has another size than its image.
    """
    sizes = {record.image_id: (record.height, record.width) for record in records}
    content = parse_json(read_bytes(path), path, error=DataError, remedy="fetch it again")
    try:
        annotations = TypeAdapter(list[_Annotation]).validate_python(content["annotations"])
    except ValidationError as error:
        first = error.errors()[0]
        where = f"annotation {first['loc'][0]}" if first["loc"] else '"annotations"'
        raise DataError(f"{path}: {where}: {first['msg']}; fetch it again or leave out input.whole_masks") from None
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not COCO detection annotations ({error!r}); fetch it again") from None
    found: dict[int | str, list[WholeMask]] = defaultdict(list)
    for annotation in annotations:
        if annotation.image_id in sizes and not annotation.iscrowd:
            code = _encode(annotation.segmentation, sizes[annotation.image_id], path, annotation.image_id)
            found[annotation.image_id].append(WholeMask(annotation.category_id, code))
    return dict(found)


def _encode(
    shape: list[list[float]] | _RunLengths, size: tuple[int, int], path: Path, image_id: int | str
) -> dict[str, Any]:
    codec: Any = rle_codec
    if isinstance(shape, list):
        return codec.merge(codec.frPyObjects(shape, *size))
    if tuple(shape.size) != size or (isinstance(shape.counts, list) and sum(shape.counts) != size[0] * size[1]):
        raise DataError(f"{path}: image {image_id}: a mask of size {shape.size}, but the image has {list(size)}")
    return codec.frPyObjects(shape.model_dump(), *size) if isinstance(shape.counts, list) else shape.model_dump()


def smallest_things(segment_map: np.ndarray, things: Mapping[int, int], masks: Sequence[WholeMask]) -> np.ndarray:
    """The map with the smallest thing at each pixel, hidden or not. Pixels without things keep their value.

    A whole mask belongs to the segment of its category with the largest IoU. A segment without a mask does not change.

    Args:
        segment_map: int32 [H, W], `i + 1` at the pixels of the i-th segment.
        things: category id of each segment that is a single thing, by its value in the map.
        masks: the whole masks of the image.

    Returns:
        int32 [H, W].
    """
    whole = {value: segment_map == value for value in things}
    codec: Any = rle_codec
    pairs = []
    for number, mask in enumerate(masks):
        inside = codec.decode(mask.code).astype(bool)
        area, shared = int(inside.sum()), np.bincount(segment_map[inside], minlength=1)
        for value, category_id in things.items():
            common = int(shared[value]) if value < len(shared) else 0
            visible = int(np.count_nonzero(segment_map == value))
            if category_id == mask.category_id and common > VISIBLE * visible:
                pairs.append((common / (area + visible - common), number, value, inside))
    taken: set[int] = set()
    left = set(things)
    for _, number, value, inside in sorted(pairs, key=lambda pair: -pair[0]):
        if number not in taken and value in left:
            taken.add(number)
            left.remove(value)
            whole[value] |= inside
    smallest = segment_map.copy()
    for value in sorted(whole, key=lambda value: -np.count_nonzero(whole[value])):
        smallest[whole[value]] = value
    return smallest
