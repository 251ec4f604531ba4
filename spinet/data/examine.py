"""Finds all faults in the files of one image, for checks of a data folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spinet.data.annotations import UNSTATED, ImageRecord
from spinet.data.panoptic import read_sized
from spinet.data.readers import UnfitError, read_header, read_image, read_panoptic_png
from spinet.data.segments import VOID, decode_ids

ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
"""The last bytes of a complete file."""

Finding = tuple[str, Path, str]  # kind, file, detail


@dataclass
class Findings:
    """Faults, and warnings about possible faults."""

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


def examine(record: ImageRecord, others: tuple[Path, ...] = (), *, pixels: bool = True) -> Findings:
    """Checks an image, its panoptic PNG, and `others`: images of the same size.

    Without `pixels`, only headers are decoded, and files that do not end like a complete file.
    """
    found = Findings()
    _open(record.image, record, "image", read_image, pixels, found)
    png = _open(record.panoptic, record, "panoptic PNG", read_panoptic_png, pixels, found)
    if png is not None:
        found.faults += _segment_faults(record, decode_ids(png))
    for path in others:
        _open(path, record, "ground truth PNG", read_image, pixels, found)
    return found


def _open(
    path: Path,
    record: ImageRecord,
    what: str,
    read: Callable[[Path], np.ndarray],
    pixels: bool,
    found: Findings,
) -> np.ndarray | None:
    """The pixels, uint8 [H, W, 3]; None if there is a fault, or without `pixels`.

    The header is checked first, so an image larger than in the JSON file is never decoded.
    """
    if not path.is_file():
        found.faults.append((f"{what} missing", path, "no such file"))
        return None
    try:
        header = read_header(path)
        turned = header.orientation if read is read_image and what == "image" else 1
        if (header.width, header.height) != (record.width, record.height):
            exif = f" after applying its EXIF orientation {turned}" if turned > 1 else ""
            stated = f"the JSON file says {record.width} × {record.height}"
            size = f"is {header.width} × {header.height} pixels{exif}, {stated}"
            found.faults.append((f"{what} of another size", path, size))
            return None
        if 1 < turned < 5 or (turned > 4 and header.width == header.height):
            doubt = f"EXIF orientation {turned}: it is read upright, as viewers show it; check its annotation"
            found.warnings.append((f"{what} turned by EXIF", path, doubt))
        if not pixels and _is_whole(path):
            return None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            image = read_sized(read, path, width=record.width, height=record.height)
        for warning in told:
            found.warnings.append((f"{what} of more than 8 bits", path, _without(path, warning.message)))
        return image if pixels else None
    except UnfitError as error:
        found.faults.append((f"{what} of another kind", path, _without(path, error)))
    except Exception as error:  # of any type: the other files must still be checked
        found.faults.append((f"{what} broken", path, _without(path, error)))
    return None


def _without(path: Path, message: object) -> str:
    return str(message).removeprefix(f"{path}: ")


def _is_whole(path: Path) -> bool:
    end = ENDS.get(path.suffix.lower())
    if end is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end


def _segment_faults(record: ImageRecord, ids: np.ndarray) -> list[Finding]:
    """Differences between the pixels, int32 [H, W], and the JSON entry of an image."""
    areas = pixel_counts(ids)
    for id_ in (VOID, *record.left_out):
        areas.pop(id_, None)
    stated = dict(zip(record.segments.ids.tolist(), record.segments.areas.tolist(), strict=True))
    found: list[Finding] = []
    for segment_id in sorted(areas.keys() - stated.keys()):
        detail = f"segment id {segment_id}, {areas[segment_id]} pixels"
        found.append(("segment not in the JSON file", record.panoptic, detail))
    for segment_id in sorted(stated.keys() - areas.keys()):
        found.append(("segment not in the PNG", record.panoptic, f"segment id {segment_id}"))
    for segment_id in sorted(stated.keys() & areas.keys()):
        if stated[segment_id] not in (UNSTATED, areas[segment_id]):
            detail = f"segment {segment_id}: {stated[segment_id]} in the JSON file, {areas[segment_id]} in the PNG"
            found.append(("wrong area", record.panoptic, detail))
    return found


def pixel_counts(ids: np.ndarray) -> dict[int, int]:
    """The number of pixels of each value, counted by runs, which are far fewer than pixels."""
    flat = ids.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    values, run_of = np.unique(flat[starts], return_inverse=True)
    return dict(zip(values.tolist(), np.bincount(run_of, lengths).astype(int).tolist(), strict=True))
