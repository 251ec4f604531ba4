"""Cityscapes layout (§5.1): `leftImg8bit/{split}/{city}/`, `gtFine/{split}/{city}/`.

The panoptic files, `gtFine/cityscapes_panoptic_{split}`, are not in the download:
`prepare.prepare_cityscapes` makes them by the official script.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from spinet.data.annotations import ImageEntry, Split
from spinet.data.readers import read_bytes
from spinet.data.segments import DataError
from spinet.files import visible

SPLITS = ("train", "val", "test")
IMAGE = "_leftImg8bit.png"
INSTANCE_IDS = "_gtFine_instanceIds.png"
LABEL_IDS = "_gtFine_labelIds.png"


def recognised(root: Path) -> bool:
    """Whether the folder has this layout."""
    return (root / "gtFine").is_dir() or (root / "leftImg8bit").is_dir()


def splits(root: Path) -> dict[str, Split]:
    """The splits that have annotations, with or without panoptic files."""
    found = {name: split(root, name) for name in SPLITS}
    return {name: s for name, s in found.items() if s.annotations.is_file() or instance_files(root, name)}


def split(root: Path, name: str) -> Split:
    """The split, even if its files do not exist."""
    folder = root / "gtFine" / f"cityscapes_panoptic_{name}"
    images = root / "leftImg8bit" / name

    @cache
    def paths() -> dict[str, Path]:
        return {path.name: path for path in files(images, IMAGE)}

    def image_path(image: ImageEntry) -> Path:
        # "file_name" in the official JSON file is not a file name; the id is "{city}_{sequence}_{frame}", but the
        # folder may have another name than the city
        city = str(image.id).rsplit("_", 2)[0]
        return paths().get(f"{image.id}{IMAGE}", images / city / f"{image.id}{IMAGE}")

    return Split(name, folder.with_name(f"{folder.name}.json"), folder, image_path)


def instance_file(root: Path, name: str, image_id: int | str) -> Path:
    """The path of an image's instance annotations, in the folder of its city or another one."""
    folder, file = root / "gtFine" / name, f"{image_id}{INSTANCE_IDS}"
    expected = folder / str(image_id).rsplit("_", 2)[0] / file
    return expected if expected.is_file() else next(folder.glob(f"*/{file}"), expected)


def read_instance_ids(path: Path) -> np.ndarray:
    """Instance annotations, uint16 [H, W]: a category id, or 1000 × a thing's category id + its number.

    Raises:
        DataError: the file is missing, broken or another kind of image.
    """
    try:
        ids = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # empty
        ids = None
    if ids is None or ids.ndim != 2 or ids.dtype != np.uint16:
        raise DataError(f"{path}: truncated, or not an image with one channel of 16 bits; fetch it again")
    return ids


def instance_files(root: Path, name: str) -> list[Path]:
    """The instance annotations of a split, from which the panoptic files are made."""
    return files(root / "gtFine" / name, INSTANCE_IDS)


def files(folder: Path, ending: str) -> list[Path]:
    """The files with this ending in the city folders of a split."""
    return sorted(path for path in folder.glob(f"*/*{ending}") if visible(path, folder))
