"""The JSON file of the panoptic format: the schema of its entries, and the files of a split.

`parse` checks every entry and reports all faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from spinet.data.readers import read_bytes
from spinet.data.segments import Categories, Category, DataError
from spinet.files import parse_json

MAX_ID = 2**24 - 1  # the largest number in three colours of 8 bits
UNSTATED = -1


def _inside(name: str) -> str:
    """Refuses a file name that leaves its folder, with either kind of slash."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    if "\0" in name or any(path.is_absolute() or path.drive or ".." in path.parts for path in paths):
        raise PydanticCustomError("outside", "leaves the folder of the data set")
    return name


def _number(value: Any) -> Any:
    """Converts true and false, which some converters write, to 1 and 0."""
    return int(value) if isinstance(value, bool) else value


FileName = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_inside)]
ImageId = Annotated[int, Field(ge=0, lt=2**63)] | FileName  # ids are also names of files
Flag = Annotated[int, BeforeValidator(_number), Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=65535)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class CategoryEntry(_Entry):
    id: Annotated[int, Field(ge=0, lt=2**31)]
    name: Annotated[str, Field(min_length=1)]
    isthing: Flag
    color: Annotated[list[Byte], Field(min_length=3, max_length=3)] = [128, 128, 128]
    supercategory: str = ""


class ImageEntry(_Entry):
    id: ImageId
    file_name: FileName
    width: Side
    height: Side


class SegmentEntry(_Entry):
    id: Annotated[int, Field(ge=1, le=MAX_ID)]
    category_id: Annotated[int, Field(ge=0, lt=2**31)]
    iscrowd: Flag = 0
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class AnnotationEntry(_Entry):
    image_id: ImageId
    file_name: FileName
    segments_info: list[SegmentEntry]


@dataclass
class Tally:
    """The count of a fault, and its first examples: where and what."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Faults:
    """Faults in files, by kind."""

    limit: int = 5  # maximum number of examples of each kind
    kinds: dict[str, Tally] = field(default_factory=dict)

    def add(self, kind: str, where: object, detail: str) -> None:
        tally = self.kinds.setdefault(kind, Tally())
        tally.count += 1
        if len(tally.examples) < self.limit:
            tally.examples.append(f"{where}: {detail}")

    @property
    def count(self) -> int:
        return sum(tally.count for tally in self.kinds.values())

    def __str__(self) -> str:
        lines = []
        for kind, tally in self.kinds.items():
            lines += [f"{kind}: {tally.count}"] + [f"    {example}" for example in tally.examples]
            lines += ["    …"] if tally.count > len(tally.examples) else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Split:
    """The files of a split. `image_path` gives the path of an image."""

    name: str
    annotations: Path  # the JSON file
    folder: Path  # of the panoptic PNG files
    image_path: Callable[[ImageEntry], Path]


@dataclass(frozen=True)
class Segments:
    """The segments of an image in the order of its JSON entry; `PanopticDataset.load` numbers them from 1."""

    ids: np.ndarray  # int32 [K]
    category_ids: np.ndarray  # int32 [K]
    crowd: np.ndarray  # bool [K]
    areas: np.ndarray  # int64 [K], pixels; `UNSTATED` if the file has none


@dataclass(frozen=True)
class ImageRecord:
    """An image and its annotation."""

    image_id: int | str
    image: Path
    panoptic: Path
    width: int
    height: int
    segments: Segments
    left_out: frozenset[int] = frozenset()  # ids of segments whose entries are faulty

    @property
    def segments_info(self) -> list[dict[str, int]]:
        """The segments in the format of the official evaluation; without `area` if the file has none."""
        columns = self.segments.ids, self.segments.category_ids, self.segments.crowd, self.segments.areas
        names = "id", "category_id", "iscrowd", "area"
        rows = (dict(zip(names, map(int, row), strict=True)) for row in zip(*columns, strict=True))
        return [{name: value for name, value in row.items() if (name, value) != ("area", UNSTATED)} for row in rows]


@dataclass(frozen=True)
class Document:
    """The valid content of a panoptic JSON file."""

    categories: Categories
    records: list[ImageRecord]
    fingerprint: str  # sha256 of the file


def parse(split: Split, faults: Faults) -> Document:
    """Reads the JSON file of a split. Faulty entries are left out and added to `faults`.

    Raises:
        DataError: the file cannot be read or is not a JSON object with the lists images, annotations and categories.
    """
    path = split.annotations
    raw = read_bytes(path)
    content = parse_json(raw, path, error=DataError)
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(f'{path}: has no list "{name}", so it is not a panoptic JSON file')

    where = path.name
    # do not report the consequences of a faulty entry
    categories, bad_categories = _entries(CategoryEntry, content["categories"], f"{where} categories", "id", faults)
    images, bad_images = _entries(ImageEntry, content["images"], f"{where} images", "id", faults)
    annotations, bad_annotations = _entries(
        AnnotationEntry, content["annotations"], f"{where} annotations", "image_id", faults
    )

    categories = list(_unique(categories, "id", where, "duplicate category id", faults).values())
    categories = list(_unique(categories, "name", where, "duplicate category name", faults).values())
    images = list(_unique(images, "id", where, "duplicate image id", faults).values())
    images = list(_unique(images, "file_name", where, "duplicate image file name", faults).values())
    annotations = list(_unique(annotations, "image_id", where, "duplicate annotation", faults).values())
    annotations = list(_unique(annotations, "file_name", where, "duplicate panoptic file name", faults).values())

    annotation_of = {annotation.image_id: annotation for annotation in annotations}
    for image_id in annotation_of.keys() - {image.id for image in images} - bad_images:
        faults.add("annotation without image", where, f"image_id {image_id!r}")
    known = {category.id for category in categories}
    records = []
    for image in images:
        annotation = annotation_of.get(image.id)
        if annotation is None:
            if image.id not in bad_annotations:
                faults.add("image without annotation", where, f"id {image.id!r}")
            continue
        place = f"{where} {annotation.file_name}"
        segments = _unique(annotation.segments_info, "id", place, "duplicate segment id", faults)
        usable = [segment for segment in segments.values() if segment.category_id in known]
        left_out = segments.keys() - {segment.id for segment in usable}
        for segment in (segments[id_] for id_ in sorted(left_out)):
            if segment.category_id not in bad_categories:
                faults.add("unknown category", place, f"segment {segment.id} has category_id {segment.category_id}")
        records.append(_record(split, image, annotation.file_name, usable, frozenset(left_out)))
    kinds = [
        Category(c.id, c.name, bool(c.isthing), (c.color[0], c.color[1], c.color[2]), c.supercategory)
        for c in categories
    ]
    return Document(Categories.of(kinds), records, hashlib.sha256(raw).hexdigest())


def _entries(
    model: type[Any], items: list[Any], where: str, key: str, faults: Faults
) -> tuple[list[Any], set[int | str]]:
    """The valid entries, and the values of `key` in the others."""
    entries, others = [], set()
    for index, item in enumerate(items):
        try:
            entries.append(model.model_validate(item))
        except ValidationError as error:
            if isinstance(item, dict) and isinstance(value := item.get(key), int | str):
                others.add(value)
            names = set()  # a value that matches neither of two types is one fault
            for fault in error.errors(include_url=False):
                kind = "file name leaves the folder" if fault["type"] == "outside" else "malformed entry"
                name = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("function", "constr")))
                if name in names:
                    continue
                names.add(name)
                faults.add(kind, f"{where}[{index}]", f"{name}: {fault['msg']}, got {str(fault['input'])[:80]!r}")
    return entries, others


def _unique(entries: list[Any], key: str, where: str, kind: str, faults: Faults) -> dict[Any, Any]:
    """The entries by key; of duplicates, the first."""
    first: dict[Any, Any] = {}
    for entry in entries:
        value = getattr(entry, key)
        if value in first:
            faults.add(kind, where, repr(value))
        first.setdefault(value, entry)
    return first


def _record(
    split: Split, image: ImageEntry, file_name: str, segments: list[SegmentEntry], left_out: frozenset[int]
) -> ImageRecord:
    return ImageRecord(
        image_id=image.id,
        image=split.image_path(image),
        panoptic=split.folder / file_name,
        width=image.width,
        height=image.height,
        left_out=left_out,
        segments=Segments(
            ids=np.array([s.id for s in segments], np.int32),
            category_ids=np.array([s.category_id for s in segments], np.int32),
            crowd=np.array([s.iscrowd for s in segments], bool),
            areas=np.array([UNSTATED if s.area is None else min(s.area, 2**40) for s in segments], np.int64),
        ),
    )
