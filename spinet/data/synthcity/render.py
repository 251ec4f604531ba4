"""From a SynthCity scene to pixels: painted polygons, then light, texture and weather for each pixel.

The canvas has four channels, of which the fourth names the segment, so colour and label never disagree; it is twice as
fine as the picture, which smooths the colours' edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from spinet.data.synthcity.dice import Dice, turn
from spinet.data.synthcity.scene import (
    BORDER,
    BUILDING,
    EGO,
    GROUND,
    ROAD,
    SIDEWALK,
    SKY,
    THINGS,
    VEGETATION,
    WALL,
    Scene,
    Thing,
)

FINE = 2  # canvas pixels in one of the picture's
SHIFT = 4  # fractional bits of a polygon's coordinates
TILE = 512
FIRST_INSTANCE = 40  # values of the fourth channel below are label ids, but for
VEILED = 39  # vegetation in haze, whose leaves do not show
SPECK = 1e-4  # of the picture; an instance of which less is seen is not counted but belongs to a group


@dataclass(frozen=True)
class _Grain:
    """Noise, endless in both directions: [TILE, TILE], or [2, TILE, TILE] for the two kinds of ground."""

    white: np.ndarray  # int16, about 0
    leaves: np.ndarray  # uint16, a gain of 128
    plaster: np.ndarray  # uint16, a gain of 128
    clouds: np.ndarray  # int16, about 0
    ground: np.ndarray  # int16, about 0: asphalt, and slabs with joints


@lru_cache(maxsize=1)
def _grain() -> _Grain:
    dice = Dice(20240518)
    white = np.floor((dice.units(TILE, TILE) + dice.units(TILE, TILE) + dice.units(TILE, TILE)) * 85 - 127.5)
    white = white.astype(np.int64)

    def smooth(cells: int) -> np.ndarray:
        """Value noise, -128 … 127, of so many cells in a period."""
        step = TILE // cells
        grid = np.floor(dice.units(cells, cells) * 256).astype(np.int64)
        for axis in (0, 1):
            weight = np.arange(step).reshape((1, step, 1) if axis == 0 else (1, 1, step))
            low, high = np.expand_dims(grid, axis + 1), np.expand_dims(np.roll(grid, -1, axis), axis + 1)
            grid = ((low * (step - weight) + high * weight) // step).reshape((TILE, -1) if axis == 0 else (TILE, TILE))
        return grid - 128

    leaves = (smooth(256) * 3 + smooth(128) * 3 + smooth(64) * 2) // 12 + white // 8
    clouds = (smooth(8) * 8 + smooth(16) * 5 + smooth(32) * 3 + smooth(64) * 2 + smooth(128)) // 12
    asphalt = white // 3 + (smooth(128) + smooth(32)) // 6
    joint = (np.arange(TILE) % 12 == 0)[:, None] | (np.arange(TILE) % 8 == 0)[None]
    slab = np.repeat(np.repeat(white[:43, :64], 12, 0)[:TILE], 8, 1) // 4
    paving = white // 5 + slab - 26 * joint
    return _Grain(
        white=white.astype(np.int16),
        leaves=(128 + leaves).astype(np.uint16),
        plaster=(128 + white // 12).astype(np.uint16),
        clouds=clouds.astype(np.int16),
        ground=np.stack([asphalt, paving]).astype(np.int16),
    )


@lru_cache(maxsize=8)
def _sheet(kind: str, h: int, w: int) -> np.ndarray:
    """A kind of grain repeated, so that [h, w] of it can be cut out at any offset up to TILE."""
    tile = getattr(_grain(), kind)
    return np.ascontiguousarray(np.tile(tile, (h // TILE + 2, w // TILE + 2))[: h + TILE, : w + TILE])


def _cut(kind: str, offset: tuple[int, int], h: int, w: int) -> np.ndarray:
    return _sheet(kind, h, w)[offset[0] : offset[0] + h, offset[1] : offset[1] + w]


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
        """The first row below the horizon, and of the rows from there on depth [r, 1], x and z [r, w] on the street."""
        top = min(max(int(self.horizon) + 1, 0), h)
        depth = self.focal * self.height / (np.arange(top, h) + 0.5 - self.horizon)[:, None]
        across = (np.arange(w)[None] + 0.5 - self.centre) * (depth / self.focal)
        z = self.cos * depth - self.sin * across
        return top, depth, self.cos * across + self.sin * depth - self.bend * z * z, z


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
    shown = near > 0.31
    u, v = canvas_points.T.astype(np.int64)
    visible = np.zeros(len(counts), bool)
    for axis, extent in ((u, canvas.shape[1]), (v, canvas.shape[0])):
        low, high = np.minimum.reduceat(axis, starts), np.maximum.reduceat(axis, starts)
        shown &= (high > 0) & (low < extent << SHIFT)
        visible |= high - low >= 1 << SHIFT
    shown &= visible
    lying = count[: len(scene.ground)].sum()
    shown[:lying] = True
    after = np.arange(len(points)) + 1
    after[starts + counts - 1] = starts
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
    haze[:lying] = 0.0  # `_texture` veils the ground, row by row
    colors = colors * (1 - haze) + np.array(light.sky_bottom) * haze
    colors = np.clip(np.rint(colors), 0, 255).astype(np.int64)

    instances: list[Thing] = []
    names = []
    for thing in everything:
        if thing.label in THINGS and not thing.group:
            names.append(FIRST_INSTANCE + len(instances))
            instances.append(thing)
        elif thing.label == VEGETATION:
            names.append(VEILED if light.fog * thing.key > 0.5 else VEGETATION)
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
    x, y, z = scene.light.direction
    away = np.array([-x / y, -z / y])  # from a thing's foot to its shadow's tip, for each metre of height
    casts: list[np.ndarray] = []
    contacts: list[np.ndarray] = []
    for thing in scene.things:
        if thing.footprint is None:
            continue
        cos, sin = turn(thing.yaw)
        fx, fz = thing.footprint[:, 0], thing.footprint[:, 1]
        foot = np.stack([fx * cos + fz * sin + thing.x, fz * cos - fx * sin + thing.z], axis=1)
        low, high = thing.heights
        if scene.light.sun[0] > 0:
            casts.append(np.concatenate([foot + away * low, foot + away * high]))
        if low < 1:
            contacts.append(foot)
    outlines = casts + contacts
    if not outlines:
        return cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)
    flat = np.concatenate(outlines)
    points, _ = view.project(np.stack([flat[:, 0], np.zeros(len(flat)), np.maximum(flat[:, 1], 0.8)], axis=1))
    start = 0
    for i, outline in enumerate(outlines):
        hull = cv2.convexHull(points[start : start + len(outline)])
        cv2.fillConvexPoly(mask, hull, 112 if i < len(casts) else 150, cv2.LINE_8, SHIFT)
        start += len(outline)
    return cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)


GRAINY = {VEGETATION: 3, BUILDING: 4, WALL: 4} | dict.fromkeys(GROUND, 1) | {SIDEWALK: 2}


def _texture(picture: np.ndarray, names: np.ndarray, scene: Scene, view: _View) -> None:
    """Gives ground, leaves, walls and sky their grain, and the ground shadows, mirror images and haze, in place.

    `picture` is uint16 [3, h, w], 0 … 255; `names` uint8 [h, w] the canvas' fourth channel.
    """
    h, w = names.shape
    light, grain = scene.light, _grain()
    kinds = np.zeros(256, np.uint8)
    kinds[list(GRAINY)] = list(GRAINY.values())
    kind = kinds[names]
    gain = np.full((h, w), 128, np.uint16)
    np.copyto(gain, _cut("leaves", scene.texture, h, w), where=kind == 3)
    np.copyto(gain, _cut("plaster", scene.texture, h, w), where=kind == 4)

    top, depth, x, z = view.ground(h, w)
    below = kind[top:]
    flat = (below == 1) | (below == 2)
    far = 1 << 20  # makes the cut to an integer a floor
    cell = ((z * 14 + far).astype(np.int32) & TILE - 1) * TILE + ((x * 14 + far).astype(np.int32) & TILE - 1)
    rough = grain.ground.ravel()[cell + (below == 2) * np.int32(TILE * TILE)]
    fade = np.rint(140 / (1 + depth * 0.12)).astype(np.int16)
    ground = (128 + (rough * fade >> 8)).astype(np.uint16)
    ground = ground * (256 - _shadows(scene, view, h, w)[top:].astype(np.uint16)) >> 8
    np.copyto(gain[top:], ground, where=flat)
    picture *= gain
    picture >>= 7
    np.minimum(picture, 255, out=picture)

    rows = picture[:, top:]
    if light.wet and top:
        mirrored = np.clip(2 * top - 1 - np.arange(top, h), int(scene.border * h) + 1, top - 1)
        share = int(light.wet * 256)
        shine = np.where(names[top:] == ROAD, np.clip(share + (rough.astype(np.int32) * share >> 7), 0, 220), 0).astype(
            np.uint16
        )
        rows[:] = rows * (256 - shine) + picture[:, mirrored] * shine >> 8
    veil = np.where(flat, np.rint(_haze(depth, light.fog) * 256).astype(np.uint16), np.uint16(0))
    rows[:] = rows * (256 - veil) + np.rint(light.sky_bottom).astype(np.uint16)[:, None, None] * veil >> 8

    bottom = min(top, h)
    if light.clouds and bottom:
        climb = 1 / (np.maximum(view.horizon - (np.arange(bottom) + 0.5), 0) / h + 0.08)[:, None]
        u = (np.arange(w)[None] + 0.5 - view.centre) / h * climb * 90 + (scene.texture[0] + far)
        v = climb * 60 + (scene.texture[1] + far)
        cloud = grain.clouds.ravel()[(v.astype(np.int32) & TILE - 1) * TILE + (u.astype(np.int32) & TILE - 1)]
        share = np.clip((cloud + int(60 * (2 * light.clouds - 1))) * 3, 0, 200)
        share = np.where(names[:bottom] == SKY, share, 0).astype(np.uint16)
        part = picture[:, :bottom]
        part[:] = part * (256 - share) + (40 if light.dark else 246) * share >> 8


def _halo(picture: np.ndarray, scene: Scene, view: _View) -> np.ndarray:
    """The light that lamps add, uint8 [h, w, 3]; those behind something, where the picture is not bright, add none."""
    h, w = picture.shape[1:]
    rows, columns = max(h // 8, 4), max(w // 8, 4)
    total = np.zeros((3, rows, columns))
    v, u = (np.arange(rows)[:, None] + 0.5) * (h / rows), (np.arange(columns)[None] + 0.5) * (w / columns)
    points, depth = view.project(np.array([glow.place for glow in scene.glows]))
    for glow, (x, y), far in zip(scene.glows, (points + 0.5) / (FINE << SHIFT), depth, strict=True):
        row, column = min(max(int(y), 0), h - 1), min(max(int(x), 0), w - 1)
        around = picture[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if glow.place[1] > 0 and around.max() < 190:
            continue
        reach = min(glow.reach * view.focal / far, 0.05 * w)
        flat = 6.0 if glow.place[1] == 0 else 1.0  # a pool of light on the ground
        share = 1 / (1 + ((u - x) ** 2 + flat * (v - y) ** 2) / (reach * reach))
        total += share * share * np.array(glow.color)[:, None, None]
    halo = np.clip(np.rint(total), 0, 130).astype(np.uint8).transpose(1, 2, 0)
    return cv2.resize(np.ascontiguousarray(halo), (w, h), interpolation=cv2.INTER_LINEAR_EXACT)


@lru_cache(maxsize=4)
def _vignette(h: int, w: int) -> np.ndarray:
    """What the lens leaves towards the corners, uint16 [h, w] of 256."""
    v, u = (np.arange(h)[:, None] + 0.5) / h - 0.5, (np.arange(w)[None] + 0.5) / w - 0.5
    return np.rint(256 - 100 * (u * u + v * v)).astype(np.uint16)


def _develop(picture: np.ndarray, scene: Scene, view: _View) -> np.ndarray:
    """Lamps, rain, the lens, the colour cast and the sensor's noise: uint16 [3, h, w] to the image, uint8 [h, w, 3]."""
    h, w = picture.shape[1:]
    if scene.glows:
        picture += _halo(picture, scene, view).transpose(2, 0, 1)
    if scene.light.rain:
        streaks = np.zeros((h, w), np.uint8)
        dice = Dice(*scene.texture)
        for _ in range(90):
            x, y, length = dice.unit() * w, dice.unit() * h, dice.between(0.03, 0.09) * h
            x0, y0, x1, y1 = (int(c * (1 << SHIFT)) for c in (x, y, x - 0.12 * length, y + length))
            cv2.line(streaks, (x0, y0), (x1, y1), 26, 1, cv2.LINE_8, SHIFT)
        picture += streaks
    np.minimum(picture, 255, out=picture)
    picture *= np.rint(np.array(scene.light.cast) * 128).astype(np.uint16)[:, None, None]
    picture >>= 7
    np.minimum(picture, 255, out=picture)
    picture *= _vignette(h, w)
    picture >>= 8
    noisy = picture.view(np.int16)
    noisy += _cut("white", (scene.texture[1], scene.texture[0]), h, w) * np.int16(scene.noise * 8) >> 9
    np.clip(noisy, 0, 255, out=noisy)
    return cv2.merge(list(noisy.astype(np.uint8)))


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
    climb = np.clip((np.arange(h * FINE) + 0.5) / (view.horizon * FINE), 0, 1)[:, None]
    sky = np.array((*light.sky_top, SKY)) * (1 - climb) + np.array((*light.sky_bottom, SKY)) * climb
    canvas = np.empty((h * FINE, w * FINE, 4), np.uint8)
    canvas.view(np.uint32)[...] = np.rint(sky).astype(np.uint8).view(np.uint32)[:, None]
    instances = _paint(canvas, scene, view)
    _frame(canvas, scene)

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
    picture = np.stack(cv2.split(smooth)[:3]).astype(np.uint16)
    _texture(picture, names, scene, view)
    return _develop(picture, scene, view), label_of[names], number_of[names]
