"""From a SynthCity scene to pixels: painted polygons, then light, texture and weather for each pixel.

The canvas has four channels, of which the fourth names the segment, so colour and label never disagree; it is twice as
fine as the picture, which smooths the colours' edges.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from spinet.data.synthcity.dice import Dice, turn
from spinet.data.synthcity.scene import (
    BORDER,
    BUILDING,
    EGO,
    GROUND,
    SIDEWALK,
    SKY,
    STATIC,
    THINGS,
    VEGETATION,
    WALL,
    Scene,
    Thing,
)

FINE = 2  # canvas pixels in one of the picture's
SHIFT = 4  # fractional bits of a polygon's coordinates
TILE = 512
FIRST_INSTANCE = 40  # values of the fourth channel below are label ids
SPECK = 10  # pixels; an instance of which less is seen is not counted but belongs to a group


@lru_cache(maxsize=1)
def _tiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White, leafy and cloudy noise, int16 [TILE, TILE] about 0, endless in both directions."""
    dice = Dice(20240518)
    white = ((dice.units(TILE, TILE) + dice.units(TILE, TILE) + dice.units(TILE, TILE)) * 85.0 - 127.5).astype(np.int16)

    def smooth(cells: int) -> np.ndarray:  # value noise of a period of TILE / cells
        step = TILE // cells
        grid = np.floor(dice.units(cells, cells) * 256).astype(np.int64)
        weight = np.arange(step)
        for axis in (0, 1):
            after = np.roll(grid, -1, axis)
            shape = (1, 1, -1) if axis else (1, -1, 1)
            w = weight.reshape(shape)
            low, high = np.expand_dims(grid, axis + 1), np.expand_dims(after, axis + 1)
            blended = (low * (step - w) + high * w) // step
            grid = blended.reshape(-1, grid.shape[1]) if axis == 0 else blended.reshape(grid.shape[0], -1)
        return grid - 128

    leaves = (smooth(256) * 3 + smooth(128) * 3 + smooth(64) * 2) // 6 + white // 4
    clouds = (smooth(8) * 8 + smooth(16) * 5 + smooth(32) * 3 + smooth(64) * 2 + smooth(128)) // 12
    return white, leaves.astype(np.int16), clouds.astype(np.int16)


def _window(tile: np.ndarray, offset: tuple[int, int], h: int, w: int) -> np.ndarray:
    """A part [h, w] of an endless tile."""
    y, x = offset
    return tile[(np.arange(y, y + h) % TILE)[:, None], (np.arange(x, x + w) % TILE)[None]]


class _View:
    """Projection onto a picture of h x w pixels."""

    def __init__(self, scene: Scene, h: int, w: int):
        camera = scene.camera
        self.focal, self.horizon, self.centre = camera.focal * w, camera.horizon * h, w / 2
        self.height, self.bend = camera.height, camera.bend
        self.cos, self.sin = turn(camera.yaw)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Canvas coordinates, int32 [P, 2] with SHIFT fractional bits, and depths [P] of points [P, 3] (m)."""
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        x = x + self.bend * z * z
        depth = np.maximum(self.sin * x + self.cos * z, 0.3)
        u = self.centre + self.focal * (self.cos * x - self.sin * z) / depth
        v = self.horizon + self.focal * (self.height - y) / depth
        canvas = np.stack([u, v], axis=1) * FINE - 0.5
        limit = 1 << 20
        return np.rint(np.clip(canvas * (1 << SHIFT), -limit, limit)).astype(np.int32), depth

    def ground(self, h: int, w: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """The first row below the horizon, and of each pixel from there on depth [r, 1], x and z [r, w] on the street."""
        top = min(max(int(self.horizon) + 1, 0), h)
        depth = self.focal * self.height / (np.arange(top, h) + 0.5 - self.horizon)[:, None]
        across = (np.arange(w)[None] + 0.5 - self.centre) * (depth / self.focal)
        z = self.cos * depth - self.sin * across
        x = self.cos * across + self.sin * depth - self.bend * z * z
        return top, depth, x, z


def _haze(depth: np.ndarray, fog: float) -> np.ndarray:
    """Share of the haze's colour at a depth (m): a rational stand-in for 1 - exp(-fog depth)."""
    t = fog * depth
    return 1 - 1 / (1 + t + 0.5 * t * t)


def _paint(canvas: np.ndarray, scene: Scene, view: _View) -> list[Thing]:
    """Paints ground and things; returns the counted instances in the order of their numbers."""
    light = scene.light
    everything = scene.ground + scene.things
    meshes = [thing.mesh for thing in everything]
    count = np.array([len(m.counts) for m in meshes])
    size = np.array([len(m.points) for m in meshes])
    place = np.array([(t.x, t.z, *turn(t.yaw)) for t in everything])

    points = np.concatenate([m.points for m in meshes])
    x, z, cos, sin = np.repeat(place, size, axis=0).T
    world = np.stack(
        [points[:, 0] * cos + points[:, 2] * sin + x, points[:, 1], points[:, 2] * cos - points[:, 0] * sin + z], axis=1
    )
    canvas_points, depth = view.project(world)

    counts = np.concatenate([m.counts for m in meshes])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    near = np.minimum.reduceat(depth, starts)
    low, high = np.minimum.reduceat(canvas_points, starts), np.maximum.reduceat(canvas_points, starts)
    extent = np.array([canvas.shape[1], canvas.shape[0]]) << SHIFT
    shown = ((high > 0) & (low < extent)).all(axis=1) & ((high - low).max(axis=1) >= 10) & (near > 0.31)
    shown[: count[: len(scene.ground)].sum()] = True
    after = np.arange(len(points)) + 1
    after[starts + counts - 1] = starts
    u, v = canvas_points.astype(np.int64).T
    turned = np.add.reduceat(u * v[after] - u[after] * v, starts) <= 0
    shown &= ~(np.concatenate([m.solid for m in meshes]) & turned)

    normals = np.concatenate([m.normals for m in meshes])
    _, _, cos, sin = np.repeat(place, count, axis=0).T
    toward = light.direction
    facing = (
        (normals[:, 0] * cos + normals[:, 2] * sin) * toward[0]
        + normals[:, 1] * toward[1]
        + (normals[:, 2] * cos - normals[:, 0] * sin) * toward[2]
    )
    round_body = (normals == 0).all(axis=1)
    lit = np.where(round_body, 0.5, np.maximum(facing, 0.0))[:, None]
    bounce = np.where(round_body, 0.95, 0.86 + 0.14 * normals[:, 1])[:, None]
    gain = np.array(light.ambient) * bounce + np.array(light.sun) * lit
    paint = np.concatenate([m.palette[m.slots] for m in meshes])
    glow = paint[:, 3:]
    colors = paint[:, :3] * (gain * (1 - glow) + glow)
    haze = _haze(near, light.fog)[:, None]
    haze[: count[: len(scene.ground)].sum()] = 0.0
    colors = colors * (1 - haze) + np.array(light.sky_bottom) * haze
    colors = np.clip(np.rint(colors), 0, 255).astype(np.int64)

    instances: list[Thing] = []
    names = []
    for thing in everything:
        if thing.label in THINGS and not thing.group:
            names.append(FIRST_INSTANCE + len(instances))
            instances.append(thing)
        else:
            names.append(thing.label)
    if len(instances) > 255 - FIRST_INSTANCE:
        raise ValueError(f"a scene holds at most {255 - FIRST_INSTANCE} instances, not {len(instances)}")
    rows = np.concatenate([colors, np.repeat(names, count)[:, None]], axis=1).tolist()
    parts = np.concatenate([m.parts for m in meshes]).tolist()
    ends = (starts + counts).tolist()
    starts = starts.tolist()
    for i in np.flatnonzero(shown).tolist():
        polygon = canvas_points[starts[i] : ends[i]]
        shapes = [polygon] if parts[i] == 1 else list(polygon.reshape(parts[i], -1, 2))
        cv2.fillPoly(canvas, shapes, rows[i], cv2.LINE_8, SHIFT)
    return instances


def _shadows(scene: Scene, view: _View, h: int, w: int) -> np.ndarray:
    """How much light the ground lacks, uint8 [h, w], of 256."""
    mask = np.zeros((h * FINE, w * FINE), np.uint8)
    light = scene.light
    x, y, z = light.direction
    sunny = light.sun[0] > 0
    dx, dz = -x / y, -z / y
    casts: list[tuple[np.ndarray, int]] = []
    for thing in scene.things:
        if thing.footprint is None:
            continue
        cos, sin = turn(thing.yaw)
        fx, fz = thing.footprint.T
        foot = np.stack([fx * cos + fz * sin + thing.x, fz * cos - fx * sin + thing.z], axis=1)
        if sunny:
            low, high = thing.heights
            casts.append((np.concatenate([foot + np.array([dx, dz]) * low, foot + np.array([dx, dz]) * high]), 0))
        if thing.heights[0] < 1:
            casts.append((foot, 1))
    if not casts:
        return mask
    flat = np.concatenate([c for c, _ in casts])
    world = np.stack([flat[:, 0], np.zeros(len(flat)), np.maximum(flat[:, 1], 0.8)], axis=1)
    points, _ = view.project(world)
    for contact, value in ((0, 118), (1, 150)):
        start = 0
        for outline, kind in casts:
            end = start + len(outline)
            if kind == contact:
                cv2.fillConvexPoly(mask, cv2.convexHull(points[start:end]), value, cv2.LINE_8, SHIFT)
            start = end
    return cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)


def _texture(image: np.ndarray, labels: np.ndarray, scene: Scene, view: _View) -> None:
    """Gives ground, leaves, walls and sky their grain, and the ground its shadows, mirror images and haze, in place."""
    h, w = labels.shape
    light = scene.light
    white, leaves, clouds = _tiles()
    gain = np.full((h, w), 256, np.int16)
    kinds = np.zeros(256, np.uint8)
    kinds[list(GROUND)], kinds[SIDEWALK], kinds[VEGETATION] = 1, 2, 3
    kinds[[BUILDING, WALL]] = 4
    kind = kinds[labels]
    grain = _window(white, scene.texture, h, w)
    np.copyto(gain, 256 + _window(leaves, scene.texture, h, w), where=kind == 3)
    np.copyto(gain, 256 + grain // 6, where=kind == 4)

    top, depth, x, z = view.ground(h, w)
    if top < h:
        below = kind[top:]
        fine = white[np.floor(z * 14).astype(np.int64) & (TILE - 1), np.floor(x * 14).astype(np.int64) & (TILE - 1)]
        coarse = clouds[np.floor(z * 24).astype(np.int64) & (TILE - 1), np.floor(x * 24).astype(np.int64) & (TILE - 1)]
        fade = (90 / (1 + depth * 0.12)).astype(np.int16)
        ground = 256 + fine * fade // 200 + coarse // 3
        joint = (np.floor(x * 14).astype(np.int64) % 10 == 0) | (np.floor(z * 14).astype(np.int64) % 14 == 0)
        ground = np.where(joint & (below == 2), ground - (fade // 3), ground)
        ground = ground * (256 - _shadows(scene, view, h, w)[top:].astype(np.int32)) // 256
        is_ground = (below == 1) | (below == 2)
        np.copyto(gain[top:], ground.astype(np.int16), where=is_ground)
    np.copyto(image, np.clip(image.astype(np.int32) * gain[..., None] >> 8, 0, 255).astype(np.uint8))

    if top < h:
        rows = image[top:].astype(np.int32)
        if light.wet:
            mirrored = np.arange(top, h)
            mirrored = np.clip(2 * top - mirrored - 1, 0, top - 1 if top else 0)
            share = np.floor(light.wet * 256).astype(np.int32)
            wavy = share + (coarse.astype(np.int32) * share >> 7)
            wavy = np.clip(wavy, 0, 200)[..., None]
            glint = rows + ((image[mirrored].astype(np.int32) - rows) * wavy >> 8)
            rows = np.where((below == 1)[..., None], glint, rows)
        veil = np.rint(_haze(depth, light.fog) * 256).astype(np.int32)[..., None]
        rows = rows + ((np.rint(light.sky_bottom).astype(np.int32) - rows) * veil >> 8)
        np.copyto(image[top:], rows.astype(np.uint8), where=is_ground[..., None])

    if light.clouds and top > 0:
        bottom = min(top, h)
        climb = 1 / (view.horizon - (np.arange(bottom) + 0.5) + 0.08 * h)[:, None]
        u = (np.arange(w)[None] + 0.5 - view.centre) * climb * 90 + scene.texture[0]
        v = climb * h * 60 + scene.texture[1]
        cloud = clouds[np.floor(v).astype(np.int64) & (TILE - 1), np.floor(u).astype(np.int64) & (TILE - 1)].astype(np.int32)
        bright = 40 if light.dark else 244
        share = np.clip((cloud + 60 * (2 * light.clouds - 1)).astype(np.int32) * 3, 0, 200)[..., None]
        part = image[:bottom].astype(np.int32)
        part = part + ((bright - part) * share >> 8)
        np.copyto(image[:bottom], part.astype(np.uint8), where=(labels[:bottom] == SKY)[..., None])


def _shine(image: np.ndarray, scene: Scene, view: _View) -> np.ndarray:
    """Adds the halo of lamps, int32 [h, w, 3] out."""
    h, w = image.shape[:2]
    total = image.astype(np.int16)
    if not scene.glows:
        return total
    rows, columns = max(h // 8, 4), max(w // 8, 4)
    halo = np.zeros((rows, columns, 3))
    v, u = (np.arange(rows)[:, None] + 0.5) * (h / rows), (np.arange(columns)[None] + 0.5) * (w / columns)
    points, depth = view.project(np.array([glow.place for glow in scene.glows]))
    for glow, (x, y), far in zip(scene.glows, (points + 0.5) / (FINE << SHIFT), depth, strict=True):
        reach = glow.reach * view.focal / far
        flat = 4.0 if glow.place[1] == 0 else 1.0
        share = 1 / (1 + ((u - x) ** 2 + flat * (v - y) ** 2) / (reach * reach))
        halo += (share * share)[..., None] * np.array(glow.color)
    halo = np.clip(np.rint(halo), 0, 160).astype(np.uint8)
    return total + cv2.resize(halo, (w, h), interpolation=cv2.INTER_LINEAR_EXACT)


@lru_cache(maxsize=4)
def _vignette(h: int, w: int) -> np.ndarray:
    """Loss of light towards the corners, uint16 [h, w, 1] of 256."""
    v, u = (np.arange(h)[:, None] + 0.5) / h - 0.5, (np.arange(w)[None] + 0.5) / w - 0.5
    return np.rint(256 - 110 * (u * u + v * v)).astype(np.uint16)[..., None]


def _develop(image: np.ndarray, scene: Scene, view: _View) -> np.ndarray:
    """Lamps, rain, vignette, colour cast and sensor noise: what lies between the street and the file."""
    h, w = image.shape[:2]
    light = scene.light
    white, _, _ = _tiles()
    picture = _shine(image, scene, view)
    if light.rain:
        streaks = np.zeros((h, w), np.uint8)
        dice = Dice(*scene.texture)
        for _ in range(90):
            x, y, length = dice.unit() * w, dice.unit() * h, dice.between(0.03, 0.09) * h
            ends = [int(16 * c) for c in (x, y, x - 0.12 * length, y + length)]
            cv2.line(streaks, (ends[0], ends[1]), (ends[2], ends[3]), 26, 1, cv2.LINE_8, SHIFT)
        picture += streaks[..., None]
    gains = np.rint(np.array(light.cast) * 128).astype(np.uint16)
    picture = np.clip(picture, 0, 255).astype(np.uint16) * gains >> 7
    picture = (np.minimum(picture, 255) * _vignette(h, w) >> 8).astype(np.int16)
    level = int(scene.noise * 4)
    noise = _window(white, scene.texture[::-1], h, w) * level >> 8
    picture += noise[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _frame(canvas: np.ndarray, scene: Scene) -> None:
    """The ego vehicle's bonnet and the border that rectification leaves."""
    h, w = canvas.shape[:2]
    if scene.bonnet:
        top = int(h * (1 - scene.bonnet))
        axes = (int(w * 0.75) << SHIFT, (h - top) * 2 << SHIFT)
        arc = np.array([turn(3.14159265 * (1 + i / 40)) for i in range(41)])
        outline = np.rint(arc * np.array(axes) + np.array([w // 2 << SHIFT, (top << SHIFT) + axes[1]])).astype(np.int32)
        gloss = 30 if scene.light.dark else 62
        cv2.fillPoly(canvas, [outline], (gloss, gloss, gloss + 4, EGO), cv2.LINE_8, SHIFT)
        shine = outline + np.array([0, int(h * 0.012) << SHIFT], np.int32)
        cv2.fillPoly(canvas, [shine], (gloss // 2, gloss // 2, gloss // 2 + 3, EGO), cv2.LINE_8, SHIFT)
    if scene.border:
        edge = max(int(h * scene.border), FINE)
        for part in (canvas[:edge], canvas[:, :edge], canvas[:, -edge:], canvas[-edge:]):
            part[:] = (0, 0, 0, BORDER)


def render(scene: Scene, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene as a picture of the given height and width.

    Returns the image, uint8 [H, W, 3] RGB; Cityscapes' label ids, uint8 [H, W]; and its instance ids, uint16 [H, W].
    """
    h, w = size
    view = _View(scene, h, w)
    light = scene.light
    canvas = np.empty((h * FINE, w * FINE, 4), np.uint8)
    climb = np.clip((np.arange(h * FINE) + 0.5) / (view.horizon * FINE), 0, 1)[:, None]
    canvas[..., :3] = np.rint(np.array(light.sky_top) * (1 - climb) + np.array(light.sky_bottom) * climb)[:, None]
    canvas[..., 3] = SKY
    instances = _paint(canvas, scene, view)
    _frame(canvas, scene)

    names = np.ascontiguousarray(canvas[1::FINE, 1::FINE, 3])
    label_of = np.arange(256, dtype=np.uint8)
    label_of[FIRST_INSTANCE:] = STATIC
    number_of = label_of.astype(np.uint16)
    areas = np.bincount(names.ravel(), minlength=256)
    seen = dict.fromkeys(THINGS, 0)
    for i, thing in enumerate(instances, start=FIRST_INSTANCE):
        label_of[i] = number_of[i] = thing.label
        if areas[i] >= SPECK:
            number_of[i] = thing.label * 1000 + seen[thing.label]
            seen[thing.label] += 1
    labels = label_of[names]
    image = np.ascontiguousarray(cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA)[..., :3])
    _texture(image, labels, scene, view)
    return _develop(image, scene, view), labels, number_of[names]
