"""Predicts photos, folders and videos, and writes COCO panoptic files and overlays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from spinet.data.names import Id, Names, forms, matched_names, names_of
from spinet.data.overlay import draw_panoptic
from spinet.data.readers import read_image
from spinet.data.segments import Categories, DataError, encode_ids
from spinet.files import atomic_write, owned, read_json, refuse_file, sealed, visible
from spinet.inference.predict import Prediction, predict
from spinet.system import Model

PHOTOS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts"}
LOOK_ALIKE = VIDEOS | set(
    ".gif .heic .heif .avif .jp2 .jxl .jfif .svg .pdf .psd .dng .cr2 .cr3 .nef .arw .raw .exr .hdr .pgm .pbm".split()
)
"""Suffixes of files in a folder that are reported as left out."""


class PictureError(ValueError):
    """An image cannot be read, or predictions cannot be written."""


@dataclass(frozen=True)
class Source:
    """A photo or a video to predict."""

    path: Path
    file_name: str  # relative to the given folder; of a given file, its name

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name, without suffix, and RGB image, uint8 [H, W, 3], of the photo or of each frame of the video.

        Raises:
            PictureError: the file is missing, of an unknown kind, or broken.
        """
        name = "_".join(Path(self.file_name).with_suffix("").parts)
        if not self.path.is_file():
            raise PictureError(f"{self.path}: no such file")
        if self.path.suffix.lower() in VIDEOS:
            for number, frame in enumerate(_read_frames(self.path)):
                yield f"{name}_{number:06d}", frame
            return
        try:
            image = read_image(self.path)
        except DataError as error:
            raise PictureError(f"{error}; photos are {', '.join(sorted(PHOTOS))}") from None
        yield name, image


def find_pictures(inputs: list[Path]) -> tuple[list[Source], list[Path]]:
    """Finds photos and videos in `inputs`, and photos in folders. Also lists the other media files in folders.

    Hidden files in folders are ignored.

    Raises:
        PictureError: a folder has no photo.
    """
    sources, left_out = [], []
    for path in inputs:
        if not path.is_dir():
            sources.append(Source(path, path.name))
            continue
        files = sorted(file for file in path.rglob("*") if visible(file, path) and file.is_file())
        photos = [file for file in files if file.suffix.lower() in PHOTOS]
        if not photos:
            raise PictureError(f"{path}: no photo in this folder ({', '.join(sorted(PHOTOS))})")
        sources += [Source(photo, photo.relative_to(path).as_posix()) for photo in photos]
        left_out += [file for file in files if file.suffix.lower() in LOOK_ALIKE]
    return sources, left_out


def read_pictures(inputs: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and RGB image, uint8 [H, W, 3], of each photo, each photo in a folder, and each frame of a video.

    Raises:
        PictureError: a file is missing, of an unknown kind, or broken; a folder has no photo.
    """
    for source in find_pictures(inputs)[0]:
        yield from source.read()


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

    `close` writes the JSON file, if there is an image. Its segments also have `score` (things), `area` and `bbox`.
    Images are numbered from 1, or have the ids that `ids` gives to their file names.

    Raises:
        PictureError: the folder already has predictions.
        LockError: another process writes there, or it is a file.
    """

    def __init__(self, folder: Path, categories: Categories, *, ids: dict[str, Id] | None = None):
        refuse_file(folder)
        if held := next((name for name in ("panoptic.json", "panoptic", "overlay") if (folder / name).exists()), None):
            raise PictureError(f"{folder}: holds predictions already ({held}); choose another --out, or delete them")
        self.folder = folder
        self.categories = categories
        self.ids = ids
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: set[str] = set()
        self.file_names: set[str] = set()
        self.lock = ExitStack()

    def write(self, name: str, image: np.ndarray, prediction: Prediction, *, file_name: str | None = None) -> None:
        """Adds one image. A repeated name gets a number. `file_name` is the name of the image file."""
        if not self.names:
            self.lock.enter_context(owned(self.folder))
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        if file_name is None or file_name in self.file_names:
            file_name = f"{unique}{Path(file_name).suffix if file_name else '.png'}"
        self.file_names.add(file_name)
        overlay = draw_panoptic(image, prediction.ids, prediction.segments, self.categories)
        _write_png(self.folder / "panoptic" / f"{unique}.png", encode_ids(prediction.ids))
        _write_png(self.folder / "overlay" / f"{unique}.png", overlay)
        height, width = prediction.ids.shape
        identity = len(self.images) + 1 if self.ids is None else self.ids[file_name]
        self.images.append({"id": identity, "file_name": file_name, "height": height, "width": width})
        segments = [
            {"iscrowd": 0, **{key: value for key, value in segment.items() if key != "isthing"}}
            for segment in prediction.segments
        ]
        self.annotations.append({"image_id": identity, "file_name": f"{unique}.png", "segments_info": segments})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, KeyboardInterrupt):
            left = f"the predictions of {len(self.images)} images are in {self.folder}"
            raise type(error)(left if self.images else "no image was predicted yet") from None

    def close(self) -> None:
        if self.images:
            categories = [
                {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)}
                for c in self.categories.all
            ]
            content = {"images": self.images, "annotations": self.annotations, "categories": categories}
            atomic_write(self.folder / "panoptic.json", json.dumps(sealed(content)).encode())
        self.lock.close()


def predict_all(
    model: Model, sources: list[Source], writer: PredictionWriter, failures: list[str]
) -> Iterator[tuple[str, Prediction]]:
    """Predicts and writes all images. Yields the name and the prediction of each.

    An image that cannot be read, or is too large for the memory, is skipped and added to `failures`.
    """
    for source in sources:
        try:
            for name, image in source.read():
                prediction = predict(model, image)
                video = source.path.suffix.lower() in VIDEOS
                writer.write(name, image, prediction, file_name=None if video else source.file_name)
                yield name, prediction
        except PictureError as error:
            failures.append(str(error))
        except (MemoryError, RuntimeError) as error:
            failures.append(f"{source.path}: {error or 'not enough memory'}")


def ids_of_truth(sources: list[Source], gt_json: Path) -> dict[str, Id]:
    """The image ids in a ground truth in COCO panoptic format, by file name of the sources.

    Raises:
        PictureError: the file cannot be read, or lists none of the images.
    """
    try:
        truth = names_of(read_json(gt_json, error=PictureError))
    except (KeyError, TypeError) as error:
        raise PictureError(f"{gt_json}: not a ground truth in COCO panoptic format ({error})") from None
    own: Names = {source.file_name: forms(source.file_name) for source in sources}
    found = {str(name): image_id for image_id, name in matched_names(truth, own).items()}
    if not found:
        raise PictureError(f"{gt_json}: lists none of the {len(sources)} images by file name")
    return found


def _write_png(path: Path, image: np.ndarray) -> None:
    _, content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    atomic_write(path, content.tobytes())
