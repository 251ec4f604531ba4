"""Draws a panoptic map over its image: one colour per class, varied between instances."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from spinet.data.segments import VOID, Categories


def segment_colors(segments: Sequence[Mapping[str, Any]], categories: Categories) -> np.ndarray:
    """RGB, uint8 [K, 3], of each segment: the colour of its class. Instances differ in lightness and hue."""
    category_of = {category.id: category for category in categories.all}
    seen: dict[int, int] = {}
    colors = []
    for segment in segments:
        category = category_of[segment["category_id"]]
        number = seen.get(category.id, 0)
        seen[category.id] = number + 1
        colors.append(_vary(category.color, number) if category.isthing else category.color)
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def _vary(color: tuple[int, int, int], number: int) -> tuple[int, int, int]:
    """The colour of the n-th instance of a class. Steps of the golden ratio separate consecutive instances."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in color))
    step = number * 0.618034 % 1
    varied = colorsys.hls_to_rgb(
        (hue + 0.14 * (step - 0.5)) % 1, min(0.85, max(0.3, lightness + 0.45 * (step - 0.3))), max(0.55, saturation)
    )
    red, green, blue = (round(255 * part) for part in varied)
    return red, green, blue


def draw_panoptic(
    image: np.ndarray,
    ids: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    categories: Categories,
    *,
    opacity: float = 0.55,
) -> np.ndarray:
    """The image, uint8 [H, W, 3], with transparent segments, unchanged void, and a white border around each thing.

    Args:
        image: uint8 RGB [H, W, 3].
        ids: segment id of each pixel [H, W].
        segments: `id`, `category_id` of each.
    """
    things = {category.id for category in categories.things}
    table_ids = np.array([VOID, *(segment["id"] for segment in segments)])
    order = np.argsort(table_ids)
    index = order[np.searchsorted(table_ids[order], ids)]
    colors = np.concatenate([np.zeros((1, 3), np.uint8), segment_colors(segments, categories)])
    blended = cv2.addWeighted(image, 1 - opacity, colors[index], opacity, 0)
    blended[index == 0] = image[index == 0]
    is_thing = np.array([False, *(segment["category_id"] in things for segment in segments)])
    thing_ids = np.where(is_thing[index], index, 0).astype(np.float32)
    border = cv2.dilate(thing_ids, np.ones((3, 3), np.uint8)) != cv2.erode(thing_ids, np.ones((3, 3), np.uint8))
    blended[border] = (255, 255, 255)
    return blended


def sheet(rows: Sequence[Sequence[np.ndarray]], *, titles: Sequence[str], gap: int = 6) -> np.ndarray:
    """Images of one size in a grid, uint8, with a title above each column."""
    height, width = rows[0][0].shape[:2]
    head = max(18, height // 12)
    canvas = np.full((head + len(rows) * (height + gap), len(titles) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for column, title in enumerate(titles):
        left = column * (width + gap)
        scale = head / 36
        cv2.putText(
            canvas, title, (left + 4, round(head * 0.72)), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA
        )
        for row, images in enumerate(rows):
            top = head + row * (height + gap)
            canvas[top : top + height, left : left + width] = images[column]
    return canvas
