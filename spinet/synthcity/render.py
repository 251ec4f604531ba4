"""Render a SynthCity scene: paint polygons, then apply light, texture and weather to each pixel.

The canvas has four channels. The fourth is the segment's id, so colour and label always agree. The canvas has twice the
image's resolution, which smooths the edges of colours.
"""

from __future__ import annotations

import cv2
import numpy as np

from spinet.synthcity.paint import FIRST_INSTANCE, VEILED, paint, paint_frame
from spinet.synthcity.scene import SKY, THINGS, VEGETATION, Scene
from spinet.synthcity.shading import develop, texture
from spinet.synthcity.view import FINE, View

SPECK = 1e-4  # share of the image; an instance with a smaller visible area becomes part of a group


def render(scene: Scene, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders a scene as an image of the given height and width.

    Returns the image, uint8 [H, W, 3] RGB; Cityscapes' label ids, uint8 [H, W]; and its instance ids, uint16 [H, W].
    """
    h, w = size
    view = View(scene, h, w)
    light = scene.light
    climb = np.clip((np.arange(h * FINE) + 0.5) / (view.horizon * FINE), 0, 1)[:, None]
    sky = np.array((*light.sky_top, SKY)) * (1 - climb) + np.array((*light.sky_bottom, SKY)) * climb
    canvas = np.empty((h * FINE, w * FINE, 4), np.uint8)
    canvas.view(np.uint32)[...] = np.rint(sky).astype(np.uint8).view(np.uint32)[:, None]
    instances = paint(canvas, scene, view)
    paint_frame(canvas, scene)

    names = np.ascontiguousarray(canvas[1::FINE, 1::FINE, 3])
    label_of = np.arange(256, dtype=np.uint8)
    label_of[VEILED] = VEGETATION
    number_of = label_of.astype(np.uint16)
    areas = np.bincount(names.ravel(), minlength=256)
    seen: dict[int, int] = dict.fromkeys(THINGS, 0)
    for i, thing in enumerate(instances, start=FIRST_INSTANCE):
        label_of[i] = number_of[i] = thing.label
        if areas[i] >= max(8, SPECK * h * w):
            number_of[i] = thing.label * 1000 + seen[thing.label]
            seen[thing.label] += 1
    smooth = cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA)
    image = np.stack(cv2.split(smooth)[:3]).astype(np.uint16)
    texture(image, names, scene, view)
    return develop(image, scene, view), label_of[names], number_of[names]
