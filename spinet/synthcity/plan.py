"""The layout of a SynthCity street: lanes, kerbs, pavements, crossings. All other objects are placed by it."""

from __future__ import annotations

import numpy as np

from spinet.synthcity import plants
from spinet.synthcity.dice import Color, Dice
from spinet.synthcity.light import draw_light
from spinet.synthcity.mesh import UP, Builder, Mesh
from spinet.synthcity.scene import Camera, Scene, Thing

NODES = (0.6, 1.2, 2.5, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64, 85, 110, 140, 180, 240)  # depths where a strip may bend


class Plan:
    """A street's layout, drawn first, and its scene. Sides are -1 (left) and 1 (right); lengths are in metres."""

    def __init__(self, dice: Dice):
        self.dice = dice
        self.light = draw_light(dice)
        self.night = self.light.dark
        self.left_lanes = dice.whole(1, 2)
        self.right_lanes = 1 if dice.chance(0.7) else 2
        self.lane = dice.between(3.1, 3.6)
        self.parking = {-1: dice.chance(0.62), 1: dice.chance(0.62)}
        self.walk = {side: dice.between(2.6, 5.6) for side in (-1, 1)}
        self.style = {side: dice.weighted({"city": 4.4, "houses": 2.6, "park": 1.5, "works": 1.8}) for side in (-1, 1)}
        self.tram = dice.chance(0.32)
        middle = self.lane / 2 + dice.between(-0.3, 0.3)
        self.lanes_end = {  # x; a tram's track counts as a lane
            -1: -(self.lane - middle) - self.left_lanes * self.lane - (3.0 if self.tram else 0.0),
            1: middle + (self.right_lanes - 1) * self.lane,
        }
        self.centre = middle - self.lane  # x of the line between the directions
        self.track = self.lanes_end[-1] + 1.5  # x of the tram's track
        self.kerb = {side: self.lanes_end[side] + side * (2.3 if self.parking[side] else 0.4) for side in (-1, 1)}
        self.verge = {side: dice.chance(0.25) for side in (-1, 1)}
        self.crossing = dice.between(15, 40) if dice.chance(0.5) else None  # where a street crosses
        self.crossing_width = dice.between(7, 10)
        self.zebras: list[float] = []  # depths of the zebra crossings, set with the road markings
        self.autumn = dice.chance(0.14)
        self.scene = Scene(
            camera=Camera(
                focal=dice.between(0.8, 1.02),
                horizon=dice.between(0.4, 0.47),
                height=dice.between(1.45, 2.3),
                yaw=dice.between(-0.07, 0.07),
                bend=dice.between(-0.0011, 0.0011) if dice.chance(0.6) else 0.0,
            ),
            light=self.light,
            bonnet=dice.between(0.03, 0.07) if dice.chance(0.45) else 0.0,
            border=dice.between(0.008, 0.016) if dice.chance(0.3) else 0.0,
            noise=dice.between(2.0, 6.0) * (1.6 if self.night else 1.0),
            texture=(dice.whole(0, 511), dice.whole(0, 511)),
        )

    def add(
        self,
        label: int,
        mesh: Mesh,
        x: float,
        z: float,
        yaw: float = 0.0,
        *,
        key: float | None = None,
        footprint: np.ndarray | None = None,
        heights: tuple[float, float] = (0.0, 0.0),
        group: bool = False,
    ) -> None:
        """Adds a thing; see `Thing`. Its `key` defaults to its depth."""
        depth = z if key is None else key
        self.scene.things.append(Thing(label, mesh, x, z, yaw, depth, group, footprint, heights))

    def leaf(self) -> Color:
        """The colour of one plant."""
        color = self.dice.pick(plants.AUTUMN if self.autumn and self.dice.chance(0.6) else plants.LEAF)
        color = self.dice.vary(color, 0.2)
        if self.light.snow:
            color = (color[0] * 0.5 + 105, color[1] * 0.5 + 108, color[2] * 0.5 + 112)
        return color

    def open_at(self, z0: float, z1: float) -> bool:
        """Whether the crossing street does not overlap the range between two depths."""
        return self.crossing is None or z1 < self.crossing or z0 > self.crossing + self.crossing_width

    def strip(self, label: int, color: Color, x0: float, x1: float, z0: float = 0.6, z1: float = 240.0) -> None:
        """A flat band along the street."""
        depths = [z0, *(z for z in NODES if z0 < z < z1), z1]
        b = Builder()
        b.polygon([(x0, 0, z) for z in depths] + [(x1, 0, z) for z in depths[::-1]], color, UP)
        self.scene.ground.append(Thing(label, b.build()))

    def gaps(self) -> list[tuple[float, float]]:
        """Ranges of depth outside the crossing street."""
        if self.crossing is None:
            return [(0.6, 240.0)]
        return [(0.6, self.crossing), (self.crossing + self.crossing_width, 240.0)]
