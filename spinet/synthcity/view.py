"""The pinhole camera of SynthCity: from street coordinates in metres to canvas pixels."""

from __future__ import annotations

import numpy as np

from spinet.synthcity.dice import turn
from spinet.synthcity.scene import Scene

FINE = 2  # canvas pixels per image pixel, along each axis
SHIFT = 4  # fractional bits of a polygon's coordinates


class View:
    """Projection onto an image of h x w pixels."""

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
        """First row below the horizon; from there on, depth of the rows [r, 1], and x and z [r, w] on the street."""
        top = min(max(int(self.horizon) + 1, 0), h)
        depth = self.focal * self.height / (np.arange(top, h) + 0.5 - self.horizon)[:, None]
        across = (np.arange(w)[None] + 0.5 - self.centre) * (depth / self.focal)
        z = self.cos * depth - self.sin * across
        return top, depth, self.cos * across + self.sin * depth - self.bend * z * z, z


def haze_at(depth: np.ndarray, fog: float) -> np.ndarray:
    """Share of the haze colour at a depth (m): a rational approximation of 1 - exp(-fog depth)."""
    t = fog * depth
    return 1 - 1 / (1 + t + 0.5 * t * t)
