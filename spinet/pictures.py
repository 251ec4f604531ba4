"""Pictures in, predictions out: photos, folders and videos to COCO panoptic files and overlays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spinet.data.segments import Categories, encode_ids
from spinet.figures.overlay import draw_panoptic
from spinet.inference import Prediction
from spinet.runs import atomic_write

PHOTOS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}


class PictureError(ValueError):
    """A file that is no picture."""


def read_pictures(inputs: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB image, uint8 [H, W, 3], of each photo, of each photo in a folder, of each frame of a video.

    Raises:
        PictureError: a file is missing, of an unknown kind, or broken; a folder has no photo.
    """
    for path in inputs:
        if path.is_dir():
            photos = sorted(file for file in path.rglob("*") if file.suffix.lower() in PHOTOS)
            if not photos:
                raise PictureError(f"{path}: no photo in this folder ({', '.join(sorted(PHOTOS))})")
            for photo in photos:
                yield "_".join(photo.relative_to(path).with_suffix("").parts), _read_photo(photo)
        elif path.suffix.lower() in VIDEOS and path.is_file():
            for number, frame in enumerate(_read_frames(path)):
                yield f"{path.stem}_{number:06d}", frame
        else:
            yield path.stem, _read_photo(path)


def _read_photo(path: Path) -> np.ndarray:
    if not path.is_file():
        raise PictureError(f"{path}: no such file")
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None:
        raise PictureError(f"{path}: not a picture, or truncated; photos are {', '.join(sorted(PHOTOS))}")
    return image


def _read_frames(path: Path) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    try:
        good, frame = video.read()
        if not good:
            raise PictureError(f"{path}: not a video that can be decoded, or without frames")
        while good:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            good, frame = video.read()
    finally:
        video.release()


class PredictionWriter:
    """Writes predictions to a folder: `panoptic/*.png` and `panoptic.json` (COCO format), `overlay/*.png`.

    The JSON is written by `close`, if there was a picture; its segments also say `score` (things), `area` and `bbox`.
    """

    def __init__(self, folder: Path, categories: Categories):
        self.folder = folder
        self.categories = categories
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: set[str] = set()

    def write(self, name: str, image: np.ndarray, prediction: Prediction) -> None:
        """Adds one picture; a name that was there before gets a number."""
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        overlay = draw_panoptic(image, prediction.ids, prediction.segments, self.categories)
        _write_png(self.folder / "panoptic" / f"{unique}.png", encode_ids(prediction.ids))
        _write_png(self.folder / "overlay" / f"{unique}.png", overlay)
        height, width = prediction.ids.shape
        identity = len(self.images) + 1
        self.images.append({"id": identity, "file_name": f"{unique}.png", "height": height, "width": width})
        segments = [
            {"iscrowd": 0, **{key: value for key, value in segment.items() if key != "isthing"}}
            for segment in prediction.segments
        ]
        self.annotations.append({"image_id": identity, "file_name": f"{unique}.png", "segments_info": segments})

    def close(self) -> None:
        if not self.images:
            return
        categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)} for c in self.categories.all
        ]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        atomic_write(self.folder / "panoptic.json", json.dumps(content).encode())


def _write_png(path: Path, image: np.ndarray) -> None:
    _, content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    atomic_write(path, content.tobytes())
