"""Readers of images and panoptic PNG files, shared by training, check, evaluation and prediction."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from spinet.data.segments import DataError

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
RGB, RGBA = 2, 6  # colour types of PNG
DEPTHS = 8, 10, 12, 14, 16  # bits that cameras and microscopes use of 16-bit values
ORIENTATION = 0x0112  # EXIF tag
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}  # Pillow modes
TURNED_LATER = {"JPEG", "MPO", "PNG", "WEBP"}  # for these, Pillow gives the size before rotation


class UnfitError(DataError):
    """A file of the wrong kind."""


class DataWarning(UserWarning):
    """Data is read, but perhaps not as intended."""


def read_image(path: Path) -> np.ndarray:
    """The image as RGB, uint8 [H, W, 3]. Its EXIF orientation is applied.

    Grey, palette and CMYK images become RGB. Transparency is dropped. Of an animation, the first frame is read. Values
    of more than 8 bits are scaled from the smallest usual range that includes them, such as 4095 for 12 bits, with a
    warning.

    Raises:
        DataError: the file is missing, broken or truncated, or its pixels are not integers of at most 16 bits.
    """
    content = read_bytes(path)
    image = _decode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise DataError(f"{path}: truncated, or not an image that can be read; fetch it again, or store 8-bit RGB")
    if image.dtype == np.uint8:
        return image
    deep = _decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)  # OpenCV 5 reads 16-bit TIFF wrongly as RGB
    if deep is None or deep.dtype != np.uint16:
        raise DataError(f"{path}: its pixels are {image.dtype}; store uint8 or uint16")
    bits = next(bits for bits in DEPTHS if deep.max() < 2**bits)
    if bits > 8:
        warnings.warn(f"{path}: 16 bits per value; 0 … {2**bits - 1} were scaled to 8 bits", DataWarning, stacklevel=2)
    return np.rint(deep[..., ::-1] * (255 / (2**bits - 1))).astype(np.uint8)


def as_image(image: Any) -> np.ndarray:
    """An image as RGB, uint8 [H, W, 3]: such an array, a grey one [H, W], a Pillow image, or the path of a file.

    The EXIF orientation of Pillow images and files is applied.

    Raises:
        ValueError: it is something else; the message says what it is, and what is allowed.
        DataError: the file cannot be read, see `read_image`.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    wanted = "an image is uint8 of shape (H, W, 3), RGB, or (H, W), grey; or a Pillow image of 8 bits; or a path"
    if isinstance(image, Image.Image):
        if image.mode not in EIGHT_BITS:
            raise ValueError(f"{wanted}; got a Pillow image of mode {image.mode}")
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if image is None:
        raise ValueError(f"{wanted}; got None, which cv2.imread returns for a file that it cannot read")
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{wanted}; got {type(image).__module__}.{type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or 0 in image.shape:
        raise ValueError(f"{wanted}; got {image.dtype} of shape {image.shape}")
    return np.ascontiguousarray(np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image)


def read_panoptic_png(path: Path) -> np.ndarray:
    """The RGB colours, uint8 [H, W, 3], of which `decode_ids` makes segment ids.

    Raises:
        DataError: the file is missing, broken or truncated.
        UnfitError: it is not a PNG with 8 bits of R, G, B and optional alpha, which is dropped. Palettes, grey values
            and 16 bits do not store segment ids.
    """
    content = read_bytes(path)
    if content[:8] != PNG_HEAD:
        raise UnfitError(f"{path}: not a PNG file, as segment ids require; write it again")
    bits, colours = content[24:26] if len(content) > 25 else (0, 0)
    if bits != 8 or colours not in (RGB, RGBA):
        kind = {0: "grey", 3: "a palette", 4: "grey and alpha"}.get(colours, "colours")
        raise UnfitError(
            f"{path}: stores {kind} of {bits} bits, not segment ids; store 8-bit RGB, id = R + 256 G + 65536 B"
        )
    image = _decode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f"{path}: damaged or truncated; write it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


@dataclass(frozen=True)
class Header:
    """Size and orientation of an image, read without decoding pixels."""

    width: int  # of the upright image
    height: int
    orientation: int  # EXIF: 1 upright; 2-4 rotated by 180° or mirrored; 5-8 with width and height exchanged


def read_header(path: Path) -> Header:
    """Reads the header. Raises `DataError` if the file is not an image."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            # Pillow would decode a whole PNG to look for EXIF after the pixels
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            turned = exif.get(ORIENTATION, 1)
            width, height, stored = *image.size, image.format in TURNED_LATER
    except Exception as error:  # Pillow raises many types for a damaged file
        raise DataError(f"{path}: not an image, or damaged ({error}); fetch it again") from None
    if not isinstance(turned, int) or not 1 <= turned <= 8:
        turned = 1
    if turned > 4 and stored:
        width, height = height, width
    return Header(width, height, turned)


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises `DataError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; put the file there") from None


def _decode(content: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # empty, or larger than OpenCV allows
        return None
