"""Scale, crop, flip and colour (§5.2) of an image with its segments, and batches of samples.

The crop is taken first, in whole source pixels. Only the crop is decoded and resized. Image and map are resized by the
same factors about pixel centres: the image by bilinear interpolation, with antialiasing if it shrinks, the map by the
nearest pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spinet.data.segments import VOID, Batch, RawSample, Sample

ScaleUnit = Literal["short_side", "factor"]


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random scale, crop, flip and colour.

    `scale` is the range of a factor, or of the short side in pixels. The long side is at most `max_long_side`. `crop`
    is height and width; a smaller image is padded with black and void, at the right and the bottom. Without `crop`, the
    image stays whole. `flip` is a probability. The factors of brightness, contrast and saturation differ from 1 by at
    most `colour_jitter`. `photo` is the share of images that `as_photo` changes.
    """

    scale: tuple[float, float]
    scale_unit: ScaleUnit
    max_long_side: int | None
    crop: tuple[int, int] | None
    flip: float
    colour_jitter: float
    photo: float = 0.0

    def __call__(self, sample: Sample | RawSample, generator: torch.Generator) -> Sample:
        """Transforms a sample. The same state of the generator gives the same result, bit for bit.

        `window` is left, top, full width and full height, in pixels of the whole image after scaling and flipping:
        pixel (x, y) of the result is pixel (left + x, top + y) there. These can be fractions. Segments outside the crop
        are left out.

        Raises:
            DataError: a raw sample has an unknown segment id in its crop.
        """
        draw, draw_top, draw_left, draw_flip, *draw_colour = torch.rand(7, generator=generator).tolist()
        size = sample.size
        low, high = self.scale
        factor = scale_factor(size, low + draw * (high - low), self.scale_unit, self.max_long_side)
        (height, source_height), (width, source_width) = (
            _extent(side, factor, None if self.crop is None else self.crop[axis]) for axis, side in enumerate(size)
        )
        top = int(draw_top * (size[0] - source_height + 1))
        left = int(draw_left * (size[1] - source_width + 1))

        part = sample.crop(top, left, source_height, source_width)
        image = resize_image(part.image, height, width).permute(1, 2, 0).numpy()
        maps = [part.segment_map] if part.smallest_map is None else [part.segment_map, part.smallest_map]
        maps = [resize_map(one.numpy(), height, width) for one in maps]
        if self.colour_jitter:
            image = jitter(image, *(1 + self.colour_jitter * (2 * draw - 1) for draw in draw_colour))
        if self.photo and float(torch.rand((), generator=generator)) < self.photo:
            image = as_photo(image, generator)
        down, across = height / source_height, width / source_width  # near `factor`, as both sides are whole pixels
        window = [left * across, top * down, size[1] * across, size[0] * down]
        if draw_flip < self.flip:
            image, maps = cv2.flip(image, 1), [cv2.flip(one, 1) for one in maps]
            window[0] = (size[1] - left - source_width) * across

        full_height, full_width = self.crop or (height, width)
        canvas = torch.zeros(3, full_height, full_width, dtype=torch.uint8)
        canvas[:, :height, :width] = torch.from_numpy(image).permute(2, 0, 1)
        map_canvases = torch.full((len(maps), full_height, full_width), VOID, dtype=torch.int32)
        for canvas_map, one in zip(map_canvases, maps, strict=True):
            canvas_map[:height, :width] = torch.from_numpy(one)
        segment_map, smallest_map = map_canvases[0], map_canvases[1] if len(maps) > 1 else None
        window = torch.tensor(window)
        return drop_absent(
            replace(part, image=canvas, segment_map=segment_map, window=window, smallest_map=smallest_map)
        )


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Scales the image to `scale`, if given, as in `TrainTransform`. The map keeps its full resolution."""

    scale: float | None
    scale_unit: ScaleUnit = "short_side"
    max_long_side: int | None = None

    def __call__(self, sample: Sample | RawSample) -> Sample:
        """Image, uint8 [3, h, w], and map, int32 [H, W]. `window` is 0, 0, w, h."""
        sample = sample.crop(0, 0, *sample.size)
        image = self.scaled(sample.image)
        window = torch.tensor([0, 0, image.shape[2], image.shape[1]], dtype=torch.float32)
        return replace(sample, image=image, window=window)

    def scaled(self, image: Tensor) -> Tensor:
        """Scales an image, uint8 [3, H, W], for the network: [3, h, w]."""
        if self.scale is None:
            return image
        height, width = image.shape[-2:]
        factor = scale_factor((height, width), self.scale, self.scale_unit, self.max_long_side)
        return resize_image(image, *(max(1, round(side * factor)) for side in (height, width)))


def scale_factor(size: tuple[int, int], scale: float, unit: ScaleUnit, max_long_side: int | None) -> float:
    """The factor that resizes an image of `size`, pixels, to the scale."""
    factor = scale if unit == "factor" else scale / min(size)
    return factor if max_long_side is None else min(factor, max_long_side / max(size))


def _extent(side: int, factor: float, crop: int | None) -> tuple[int, int]:
    """Length of the scaled crop along one side, and of its part of the source, in pixels."""
    scaled = max(1, round(side * factor))
    if crop is None or scaled <= crop:
        return scaled, side
    return crop, min(side, max(1, round(crop / factor)))


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Resizes an image, uint8 [3, H, W]. The result is channels last in memory."""
    pixels = image[None].contiguous(memory_format=torch.channels_last)
    if image.shape[-2:] != (height, width):
        pixels = interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return pixels[0]


def resize_map(segment_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a map, int32 [H, W]: each pixel takes the value at its centre."""
    if segment_map.shape == (height, width):
        return segment_map
    return cv2.resize(segment_map, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


GREY = np.array([0.299, 0.587, 0.114])  # luminance of R, G, B (ITU-R BT.601)


def jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Applies the factors to an image, RGB uint8 [H, W, 3], in this order, as one affine map of the colours.

    Brightness scales every value, contrast the distance from the mean grey of the image, saturation the distance from
    the grey of the pixel.
    """
    mean = brightness * float(GREY @ cv2.mean(image)[:3])
    colours = saturation * np.eye(3) + (1 - saturation) * GREY  # rows sum to 1: grey stays as it is
    matrix = np.column_stack([contrast * brightness * colours, np.full(3, (1 - contrast) * mean)])
    return cv2.transform(image, matrix.astype(np.float32))


def as_photo(image: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Changes an image, RGB uint8 [H, W, 3], as if another camera had taken it.

    In this order: white balance, gamma and hue; Gaussian blur; sensor noise, equal in all channels or not; JPEG
    compression. Blur, noise and compression each have a probability of 1/2.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    gains = [draw(0.8, 1.25) for _ in range(3)]
    gamma, hue = 2 ** draw(-0.8, 0.8), draw(-16, 16)  # of 256
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gains
    image = cv2.LUT(image, (255 * levels.clip(0, 1)).round().astype(np.uint8)[None])
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned[..., 0] += np.uint8(round(hue) % 256)
    image = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)
    if draw(0, 1) < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), draw(0.3, 1.5))
    if draw(0, 1) < 0.5:
        strength, channels = draw(2, 14), 1 if draw(0, 1) < 0.5 else 3
        noise = strength * torch.randn(*image.shape[:2], channels, generator=generator).numpy()
        image = (image + noise).clip(0, 255).astype(np.uint8)
    if draw(0, 1) < 0.5:
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, round(draw(25, 95))])
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))  # its channels keep their order
    return image


def drop_absent(sample: Sample) -> Sample:
    """Removes segments that have no pixel in the map. The others get new numbers, in the same order."""
    count = len(sample.labels)
    present = torch.bincount(sample.segment_map.flatten(), minlength=count + 1)[1:] > 0
    if bool(present.all()):
        return sample
    table = torch.cat([present.new_zeros(1), present]).int()
    table *= table.cumsum(0).int()

    def renumbered(segment_map: Tensor) -> Tensor:
        return table.index_select(0, segment_map.flatten()).view_as(segment_map)

    segment_map, smallest_map = renumbered(sample.segment_map), None
    if sample.smallest_map is not None:  # a thing that is hidden everywhere in the map is not a segment
        smallest_map = renumbered(sample.smallest_map)
        smallest_map = smallest_map.where(smallest_map != VOID, segment_map)
    labels, crowd = sample.labels[present], sample.crowd[present]
    return replace(sample, segment_map=segment_map, smallest_map=smallest_map, labels=labels, crowd=crowd)


def collate(samples: list[Sample], seeds: list[int]) -> Batch:
    """A batch of the samples, padded to their largest size with black and void at the right and the bottom."""
    maps: Any = [sample.smallest_map for sample in samples]
    return Batch(
        images=_stack([sample.image for sample in samples], 0),
        segment_maps=_stack([sample.segment_map for sample in samples], VOID),
        labels=[sample.labels for sample in samples],
        crowd=[sample.crowd for sample in samples],
        windows=torch.stack([sample.window for sample in samples]),
        seeds=seeds,
        image_ids=[sample.image_id for sample in samples],
        smallest_maps=_stack(maps, VOID) if all(one is not None for one in maps) else None,
    )


def _stack(tensors: list[Tensor], fill: int) -> Tensor:
    """Stacks tensors of [..., H_i, W_i] to one of [B, ..., H, W]."""
    height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (-2, -1))
    stacked = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), fill)
    for target, tensor in zip(stacked, tensors, strict=True):
        target[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return stacked
