"""Per-pixel effects of SynthCity: texture, shadows, reflections and haze; lamps, rain, lens and sensor."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from spinet.synthcity.dice import Dice, turn
from spinet.synthcity.grain import TILE, cut, grains
from spinet.synthcity.scene import BUILDING, GROUND, ROAD, SIDEWALK, SKY, VEGETATION, WALL, Scene
from spinet.synthcity.view import FINE, SHIFT, View, haze_at


def _shadows(scene: Scene, view: View, h: int, w: int) -> np.ndarray:
    """Loss of light on the ground from shadows, uint8 [h, w], in units of 1/256."""
    mask = np.zeros((h * FINE, w * FINE), np.uint8)
    x, y, z = scene.light.direction
    away = np.array([-x / y, -z / y])  # from a thing's base to the end of its shadow, per metre of height
    cast = [thing for thing in scene.things if thing.footprint is not None]
    feet = [thing.footprint for thing in cast if thing.footprint is not None]
    if not cast:
        return mask[::FINE, ::FINE]
    sizes = [len(foot) for foot in feet]
    local = np.concatenate(feet)
    place = np.array([(thing.x, thing.z, *turn(thing.yaw), *thing.heights) for thing in cast])
    left, far, cos, sin, low, high = np.repeat(place, sizes, axis=0).T
    foot = np.stack([local[:, 0] * cos + local[:, 1] * sin + left, local[:, 1] * cos - local[:, 0] * sin + far], axis=1)
    prism = np.stack(
        [foot + away * low[:, None], foot + away * high[:, None]], axis=1
    )  # projections of its bottom and top on the ground
    flat = np.concatenate([prism.reshape(-1, 2), foot])
    points, _ = view.project(np.stack([flat[:, 0], np.zeros(len(flat)), np.maximum(flat[:, 1], 0.8)], axis=1))
    ends = np.cumsum(sizes)
    for end, size in zip(ends.tolist(), sizes, strict=True):
        if scene.light.sun[0] > 0:
            hull = cv2.convexHull(points[2 * (end - size) : 2 * end])
            cv2.fillConvexPoly(mask, hull, 112, cv2.LINE_8, SHIFT)
    for thing, end, size in zip(cast, (ends + 2 * ends[-1]).tolist(), sizes, strict=True):
        if thing.heights[0] < 1:
            cv2.fillConvexPoly(mask, cv2.convexHull(points[end - size : end]), 150, cv2.LINE_8, SHIFT)
    return cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)


GRAINY = {VEGETATION: 3, BUILDING: 4, WALL: 4} | dict.fromkeys(GROUND, 1) | {SIDEWALK: 2}


def texture(image: np.ndarray, names: np.ndarray, scene: Scene, view: View) -> None:
    """Adds texture to ground, leaves, walls and sky, and shadows, reflections and haze to the ground, in place.

    `image` is uint16 [3, h, w], 0 … 255. `names`, uint8 [h, w], is the canvas' fourth channel.
    """
    h, w = names.shape
    light, grain = scene.light, grains()
    kinds = np.zeros(256, np.uint8)
    kinds[list(GRAINY)] = list(GRAINY.values())
    kind = kinds[names]
    gain = np.full((h, w), 128, np.uint16)
    np.copyto(gain, cut("leaves", scene.texture, h, w), where=kind == 3)
    np.copyto(gain, cut("plaster", scene.texture, h, w), where=kind == 4)

    top, depth, x, z = view.ground(h, w)
    below = kind[top:]
    flat = (below == 1) | (below == 2)
    far = 1 << 20  # makes the values positive, so that the conversion to integers rounds down
    cell = ((z * 14 + far).astype(np.int32) & TILE - 1) * TILE + ((x * 14 + far).astype(np.int32) & TILE - 1)
    rough = grain.ground.ravel()[cell + (below == 2) * np.int32(TILE * TILE)]
    fade = np.rint(140 / (1 + depth * 0.12)).astype(np.int16)
    ground = (128 + (rough * fade >> 8)).astype(np.uint16)
    ground = ground * (256 - _shadows(scene, view, h, w)[top:].astype(np.uint16)) >> 8
    np.copyto(gain[top:], ground, where=flat)
    image *= gain
    image >>= 7
    np.minimum(image, 255, out=image)

    rows = image[:, top:]
    if light.wet and top:
        mirrored = np.clip(2 * top - 1 - np.arange(top, h), int(scene.border * h) + 1, top - 1)
        share = int(light.wet * 256)
        shine = np.where(names[top:] == ROAD, np.clip(share + (rough.astype(np.int32) * share >> 7), 0, 220), 0).astype(
            np.uint16
        )
        rows[:] = rows * (256 - shine) + image[:, mirrored] * shine >> 8
    veil = np.where(flat, np.rint(haze_at(depth, light.fog) * 256).astype(np.uint16), np.uint16(0))
    rows[:] = rows * (256 - veil) + np.rint(light.sky_bottom).astype(np.uint16)[:, None, None] * veil >> 8

    bottom = min(top, h)
    if light.clouds and bottom:
        climb = 1 / (np.maximum(view.horizon - (np.arange(bottom) + 0.5), 0) / h + 0.08)[:, None]
        u = (np.arange(w)[None] + 0.5 - view.centre) / h * climb * 90 + (scene.texture[0] + far)
        v = climb * 60 + (scene.texture[1] + far)
        cloud = grain.clouds.ravel()[(v.astype(np.int32) & TILE - 1) * TILE + (u.astype(np.int32) & TILE - 1)]
        share = np.clip((cloud + int(60 * (2 * light.clouds - 1))) * 3, 0, 200)
        share = np.where(names[:bottom] == SKY, share, 0).astype(np.uint16)
        part = image[:, :bottom]
        part[:] = part * (256 - share) + (40 if light.dark else 246) * share >> 8


def _halo(image: np.ndarray, scene: Scene, view: View) -> np.ndarray:
    """The light of lamps, uint8 [h, w, 3]; a lamp on a dark part of the image is occluded and adds none."""
    h, w = image.shape[1:]
    rows, columns = max(h // 8, 4), max(w // 8, 4)
    total = np.zeros((3, rows, columns))
    v, u = (np.arange(rows)[:, None] + 0.5) * (h / rows), (np.arange(columns)[None] + 0.5) * (w / columns)
    points, depth = view.project(np.array([glow.place for glow in scene.glows]))
    for glow, (x, y), far in zip(scene.glows, (points + 0.5) / (FINE << SHIFT), depth, strict=True):
        row, column = min(max(int(y), 0), h - 1), min(max(int(x), 0), w - 1)
        around = image[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if glow.place[1] > 0 and around.max() < 190:
            continue
        reach = min(glow.reach * view.focal / far, 0.05 * w)
        flat = 6.0 if glow.place[1] == 0 else 1.0  # the spot of light on the ground
        share = 1 / (1 + ((u - x) ** 2 + flat * (v - y) ** 2) / (reach * reach))
        total += share * share * np.array(glow.color)[:, None, None]
    halo = np.clip(np.rint(total), 0, 130).astype(np.uint8).transpose(1, 2, 0)
    return cv2.resize(np.ascontiguousarray(halo), (w, h), interpolation=cv2.INTER_LINEAR_EXACT)


@lru_cache(maxsize=4)
def _vignette(h: int, w: int) -> np.ndarray:
    """The lens's transmission, lower at the corners, uint16 [h, w], in units of 1/256."""
    v, u = (np.arange(h)[:, None] + 0.5) / h - 0.5, (np.arange(w)[None] + 0.5) / w - 0.5
    return np.rint(256 - 100 * (u * u + v * v)).astype(np.uint16)


def develop(image: np.ndarray, scene: Scene, view: View) -> np.ndarray:
    """Adds lamps, rain, lens, colour cast and sensor noise: from uint16 [3, h, w] to the image, uint8 [h, w, 3]."""
    h, w = image.shape[1:]
    if scene.glows:
        image += _halo(image, scene, view).transpose(2, 0, 1)
    if scene.light.rain:
        streaks = np.zeros((h, w), np.uint8)
        dice = Dice(*scene.texture)
        for _ in range(90):
            x, y, length = dice.unit() * w, dice.unit() * h, dice.between(0.03, 0.09) * h
            x0, y0, x1, y1 = (int(c * (1 << SHIFT)) for c in (x, y, x - 0.12 * length, y + length))
            cv2.line(streaks, (x0, y0), (x1, y1), 26, 1, cv2.LINE_8, SHIFT)
        image += streaks
    np.minimum(image, 255, out=image)
    image *= np.rint(np.array(scene.light.cast) * 128).astype(np.uint16)[:, None, None]
    image >>= 7
    np.minimum(image, 255, out=image)
    image *= _vignette(h, w)
    image >>= 8
    noisy = image.view(np.int16)
    noisy += cut("white", (scene.texture[1], scene.texture[0]), h, w) * np.int16(scene.noise * 8) >> 9
    np.clip(noisy, 0, 255, out=noisy)
    return cv2.merge(list(noisy.astype(np.uint8)))
