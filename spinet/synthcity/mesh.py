"""Shapes of SynthCity: flat polygons in space, in painting order.

Axes in metres: x to the right, y up, z forward. A vehicle faces +z; the origin is its middle, on the ground. Polygons
of a `solid` body run clockwise as seen from outside; those that face away from the camera are not painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spinet.synthcity.dice import Color, circle

Points = np.ndarray | Sequence[Sequence[float]]
NOWHERE = (0.0, 0.0, 0.0)  # the normal of an object lit from all sides, such as a person
UP = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Mesh:
    """Polygons and their paint.

    `points` is float64 [P, 3]. Each of n polygons has `counts` (its number of points), `parts` (its number of shapes of
    the same colour that do not overlap), `slots` (row of `palette`), `normals` [n, 3] and `solid`. `palette`, float64
    [k, 4], is red, green, blue (0 … 255) and glow (0: lit by the scene, 1: emits its own colour).
    """

    points: np.ndarray
    counts: np.ndarray
    parts: np.ndarray
    slots: np.ndarray
    normals: np.ndarray
    solid: np.ndarray
    palette: np.ndarray

    def painted(self, palette: Sequence[Sequence[float]] | np.ndarray, scale: Sequence[float] = (1, 1, 1)) -> Mesh:
        """The same shape, scaled along its axes, in other colours."""
        return replace(self, points=self.points * np.array(scale), palette=np.asarray(palette, dtype=np.float64))


class Builder:
    """Collects polygons into a mesh. A colour is (r, g, b), (r, g, b, glow) or the number of a palette slot."""

    def __init__(self, palette: Sequence[Sequence[float]] = ()):
        self.palette = [tuple(entry) for entry in palette]
        self._points: list[Points] = []
        self._rows: list[tuple] = []

    def polygon(
        self,
        points: Points,
        color: Sequence[float] | int,
        normal: Sequence[float] = NOWHERE,
        solid: bool = False,
        parts: int = 1,
    ) -> None:
        """One polygon [k, 3], or several with the same number of corners, concatenated."""
        self._points.append(points)
        self._rows.append((len(points), parts, self._slot(color), solid, *normal))

    def _slot(self, color: Sequence[float] | int) -> int:
        if isinstance(color, int):
            return color
        self.palette.append((*color, 0.0) if len(color) == 3 else tuple(color))
        return len(self.palette) - 1

    def many(self, shapes: np.ndarray, color: Sequence[float] | int, normal: Sequence[float] = NOWHERE) -> None:
        """n polygons [n, k, 3] of one colour, or n columns [n, m, k, 3] of m polygons that do not overlap."""
        parts = shapes.shape[1] if shapes.ndim == 4 else 1
        if shapes.size:
            self._points.append(shapes.reshape(-1, 3))
            row = (shapes[0].size // 3, parts, self._slot(color), False, *normal)
            self._rows.extend([row] * len(shapes))

    def quads(self, corners: np.ndarray, color: Sequence[float] | int, normal: Sequence[float] = NOWHERE) -> None:
        """Quadrilaterals [m, 4, 3] of one colour that do not overlap."""
        if len(corners):
            self.polygon(corners.reshape(-1, 3), color, normal, parts=len(corners))

    def flat(self, points: Points, color: Sequence[float] | int, depth: float = 0.0) -> None:
        """A polygon in the vertical plane that faces the camera; its points are [k, 2] (right, up)."""
        if isinstance(points, np.ndarray):
            self.polygon(np.concatenate([points, np.full((len(points), 1), depth)], axis=1), color)
        else:
            self.polygon([(x, y, depth) for x, y in points], color)

    def prism(
        self,
        profile: Sequence[tuple[float, float]],
        widths: Sequence[float],
        colors: Sequence[Sequence[float] | int],
        side: Sequence[float] | int,
        bottom: bool = False,
    ) -> None:
        """A body that is symmetric in x.

        `profile` lists (z, y) from the bottom of the rear over the top to the bottom of the front, `widths` the half
        width at each point, `colors` the colour of each strip between two points. `side` is the colour of both sides.
        """
        right = [(w, y, z) for (z, y), w in zip(profile, widths, strict=True)]
        left = [(-x, y, z) for x, y, z in right]
        for i, color in enumerate(colors):
            (z0, y0), (z1, y1) = profile[i], profile[i + 1]
            length = ((z1 - z0) ** 2 + (y1 - y0) ** 2) ** 0.5
            normal = (0.0, (z1 - z0) / length, (y0 - y1) / length)
            self.polygon([left[i + 1], right[i + 1], right[i], left[i]], color, normal, solid=True)
        self.polygon(right, side, (1.0, 0.0, 0.0), solid=True)
        self.polygon(left[::-1], side, (-1.0, 0.0, 0.0), solid=True)

    def box(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], color: Sequence[float] | int
    ) -> None:
        """A box with vertical sides, without its floor."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        faces = (
            ([(x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)], (0, 0, -1)),
            ([(x1, y1, z1), (x0, y1, z1), (x0, y0, z1), (x1, y0, z1)], (0, 0, 1)),
            ([(x1, y1, z0), (x1, y1, z1), (x1, y0, z1), (x1, y0, z0)], (1, 0, 0)),
            ([(x0, y1, z1), (x0, y1, z0), (x0, y0, z0), (x0, y0, z1)], (-1, 0, 0)),
            ([(x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)], UP),
        )
        for points, normal in faces:
            self.polygon(points, color, normal, solid=True)

    def panel(
        self, axis: str, at: float, a: tuple[float, float], b: tuple[float, float], color: Sequence[float] | int
    ) -> None:
        """A rectangle on the face of a solid body.

        `axis` is the face: "rear" and "front" span x = a, y = b at z = at; "sides" spans z = a, y = b at x = ± at.
        """
        (a0, a1), (b0, b1) = a, b
        if axis == "rear":
            self.polygon([(a0, b1, at), (a1, b1, at), (a1, b0, at), (a0, b0, at)], color, (0, 0, -1), solid=True)
        elif axis == "front":
            self.polygon([(a1, b1, at), (a0, b1, at), (a0, b0, at), (a1, b0, at)], color, (0, 0, 1), solid=True)
        else:
            self.on_sides([(a0, b0), (a0, b1), (a1, b1), (a1, b0)], at, color)

    def on_sides(self, outline: Sequence[tuple[float, float]], at: float, color: Sequence[float] | int) -> None:
        """A shape of (z, y), clockwise with the front to the right, on both sides of a body at x = ± at."""
        self.polygon([(at, y, z) for z, y in outline], color, (1.0, 0.0, 0.0), solid=True)
        self.polygon([(-at, y, z) for z, y in outline[::-1]], color, (-1.0, 0.0, 0.0), solid=True)

    def wheel(self, z: float, radius: float, at: float, tyre: int, rim: int) -> None:
        """A wheel on each side of a body."""
        for r, color in ((radius, tyre), (radius * 0.62, rim), (radius * 0.2, tyre)):
            self.on_sides([(z + r * c, radius + r * s) for c, s in WHEEL], at, color)

    def build(self) -> Mesh:
        rows = np.array(self._rows, dtype=np.float64)
        return Mesh(
            points=np.concatenate([np.asarray(p, dtype=np.float64) for p in self._points]),
            counts=rows[:, 0].astype(np.int64),
            parts=rows[:, 1].astype(np.int64),
            slots=rows[:, 2].astype(np.int64),
            solid=rows[:, 3] > 0,
            normals=rows[:, 4:],
            palette=np.array(self.palette, dtype=np.float64),
        )


WHEEL: list[tuple[float, float]] = [(float(c), float(s)) for c, s in circle(14)]
_CAP = circle(8)[:5]  # half a circle, from (1, 0) over (0, -1) to (-1, 0)


def capsules(ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Outlines [n, 10, 2] of limbs with round ends in a plane, from their ends [n, 2, 2] and radii [n, 2]."""
    p, q = ends[:, 0], ends[:, 1]
    along = q - p
    length = np.sqrt(along[:, :1] ** 2 + along[:, 1:] ** 2)
    along = np.where(length > 1e-9, along / np.maximum(length, 1e-9), np.array([0.0, 1.0]))
    across = np.stack([along[:, 1], -along[:, 0]], axis=1)
    turned = across[:, None] * _CAP[None, :, :1] + along[:, None] * _CAP[None, :, 1:]
    first = p[:, None] + turned * radii[:, :1, None]
    last = q[:, None] - turned * radii[:, 1:, None]
    return np.concatenate([first, last], axis=1)


def shade(color: Sequence[float], gain: float) -> Color:
    """A colour made darker or lighter."""
    return color[0] * gain, color[1] * gain, color[2] * gain
