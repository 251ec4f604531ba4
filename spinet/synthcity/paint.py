"""Paint a SynthCity scene: flat polygons with light and haze, from far to near."""

from __future__ import annotations

import cv2
import numpy as np

from spinet.synthcity.dice import turn
from spinet.synthcity.scene import BORDER, EGO, THINGS, VEGETATION, Scene, Thing
from spinet.synthcity.view import FINE, SHIFT, View, haze_at

FIRST_INSTANCE = 40  # smaller values of the canvas' fourth channel are label ids, except VEILED
VEILED = 39  # vegetation in haze, painted without leaves


def paint(canvas: np.ndarray, scene: Scene, view: View) -> list[Thing]:
    """Paints ground and things; returns the instances in the order of their numbers."""
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
    surface = np.concatenate([m.palette[m.slots] for m in meshes])
    glow = surface[:, 3:]
    colors = surface[:, :3] * (gain * (1 - glow) + glow)
    haze = haze_at(near, light.fog)[:, None]
    haze[:lying] = 0.0  # `texture` adds the haze of the ground, row by row
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


def paint_frame(canvas: np.ndarray, scene: Scene) -> None:
    """Paints the ego vehicle's bonnet and the border from image rectification."""
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
