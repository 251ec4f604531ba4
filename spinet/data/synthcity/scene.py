"""What a SynthCity scene holds: a camera, a light, and things along a street, in metres and without any pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spinet.data.synthcity import people, street, vehicles
from spinet.data.synthcity.dice import Color, Dice, turn
from spinet.data.synthcity.light import Light, draw_light
from spinet.data.synthcity.mesh import UP, Builder, Mesh, shade

# ids of Cityscapes
EGO, BORDER, STATIC, DYNAMIC, ROAD, SIDEWALK, PARKING, TRACK, BUILDING, WALL, FENCE = (
    1,
    2,
    4,
    5,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
)
BRIDGE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = 15, 17, 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33
GROUND = (ROAD, SIDEWALK, PARKING, TRACK, TERRAIN)
THINGS = (PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE)
NODES = (0.6, 1.2, 2.5, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64, 85, 110, 140, 180, 240)  # depths where a strip may bend


@dataclass
class Thing:
    """One object; `key` is the depth by which it is painted, farthest first."""

    label: int
    mesh: Mesh
    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    key: float = 0.0
    group: bool = False  # a crowd: a thing class without instances
    footprint: np.ndarray | None = None  # [k, 2], its own (x, z), for its shadow
    heights: tuple[float, float] = (0.0, 0.0)  # between which it throws a shadow


@dataclass(frozen=True)
class Glow:
    """A lamp that outshines its surroundings: where it is (m), how far it reaches (m), its colour."""

    place: tuple[float, float, float]
    reach: float
    color: Color


@dataclass(frozen=True)
class Camera:
    """A pinhole over the street; lengths on the sensor are shares of the picture's width or height."""

    focal: float  # of the width
    horizon: float  # of the height, from the top
    height: float  # m over the ground
    yaw: float
    bend: float  # of the street: x grows by bend z², 1/m


@dataclass
class Scene:
    camera: Camera
    light: Light
    ground: list[Thing] = field(default_factory=list)  # painted first, in this order
    things: list[Thing] = field(default_factory=list)
    glows: list[Glow] = field(default_factory=list)
    bonnet: float = 0.0  # height of the ego vehicle's bonnet, of the picture's height; 0: not in view
    border: float = 0.0  # width of the rectification border, of the picture's height
    noise: float = 4.0  # the sensor's noise, grey levels
    texture: tuple[int, int] = (0, 0)  # offset into the noise tiles


def _box(half: float, length: float) -> np.ndarray:
    return np.array([[-half, -length / 2], [-half, length / 2], [half, length / 2], [half, -length / 2]])


def _disc(r: float) -> np.ndarray:
    return np.array([turn(i * 0.78539816) for i in range(8)]) * r


class _Composer:
    """Draws one scene, step by step along its street."""

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
        self.lanes_end = {
            -1: -(self.lane - middle) - self.left_lanes * self.lane - (3.0 if self.tram else 0.0),
            1: middle + (self.right_lanes - 1) * self.lane,
        }
        self.centre = middle - self.lane
        self.kerb = {side: self.lanes_end[side] + side * (2.3 if self.parking[side] else 0.4) for side in (-1, 1)}
        self.verge = {side: dice.chance(0.25) for side in (-1, 1)}
        self.crossing = dice.between(15, 40) if dice.chance(0.5) else None  # where a street crosses
        self.crossing_width = dice.between(7, 10)
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

    # ---- helpers

    def add(self, label: int, mesh: Mesh, x: float, z: float, yaw: float = 0.0, **more) -> None:
        self.scene.things.append(Thing(label, mesh, x, z, yaw, more.pop("key", z), **more))

    def leaf(self) -> Color:
        color = self.dice.pick(street.AUTUMN if self.autumn and self.dice.chance(0.6) else street.LEAF)
        color = self.dice.vary(color, 0.2)
        if self.light.snow:
            color = (color[0] * 0.5 + 105, color[1] * 0.5 + 108, color[2] * 0.5 + 112)
        return color

    def open_at(self, z0: float, z1: float) -> bool:
        """Whether nothing of the crossing street lies between two depths."""
        return self.crossing is None or z1 < self.crossing or z0 > self.crossing + self.crossing_width

    def strip(self, label: int, color: Color, x0: float, x1: float, z0: float = 0.6, z1: float = 240.0) -> None:
        """A flat band along the street."""
        depths = [z0, *(z for z in NODES if z0 < z < z1), z1]
        b = Builder()
        b.polygon([(x0, 0, z) for z in depths] + [(x1, 0, z) for z in depths[::-1]], color, UP)
        self.scene.ground.append(Thing(label, b.build()))

    # ---- the ground

    def lay_ground(self) -> None:
        dice, kerb = self.dice, self.kerb
        gray = dice.between(84, 122) * (0.8 if self.light.wet else 1.0)
        asphalt = (gray, gray * dice.between(0.97, 1.01), gray * dice.between(0.97, 1.05))
        paving = dice.vary(dice.pick(((168, 160, 152), (150, 148, 148), (176, 152, 136), (140, 138, 134))), 0.1)
        grass = dice.vary(dice.pick(((98, 124, 58), (112, 128, 66), (128, 124, 78), (84, 112, 54))), 0.15)
        marking = dice.vary((226, 226, 218), 0.08)
        if self.light.snow:
            paving, grass = (206, 210, 216), (226, 229, 234)
            asphalt = shade(asphalt, 1.15)
        self.grass = grass
        self.strip(TERRAIN, grass, -400, 400)
        for side in (-1, 1):
            front = kerb[side] + side * self.walk[side]
            beyond = {"city": 14.0, "houses": 0.0, "park": 0.0, "works": 0.0}[self.style[side]]
            self.strip(SIDEWALK, paving, kerb[side], front + side * beyond)
            if self.verge[side]:
                self.strip(TERRAIN, grass, kerb[side] + side * 0.3, kerb[side] + side * 1.5)
        if self.crossing is not None:
            z0, z1 = self.crossing, self.crossing + self.crossing_width
            for x0, x1 in ((-90.0, kerb[-1]), (kerb[1], 90.0)):
                self.strip(SIDEWALK, paving, x0, x1, z0 - 2.6, z1 + 2.6)
                self.strip(ROAD, asphalt, x0, x1, z0, z1)
        self.strip(ROAD, asphalt, kerb[-1], kerb[1])
        for side in (-1, 1):
            if self.parking[side] and dice.chance(0.3):
                tint = dice.vary(shade(asphalt, 1.18), 0.08)
                self.strip(PARKING, tint, kerb[side], self.lanes_end[side])
            for z0, z1 in self.gaps():
                self.strip(SIDEWALK, shade(paving, 1.16), kerb[side], kerb[side] + side * 0.16, z0, z1)
                if self.parking[side]:
                    self.strip(ROAD, marking, self.lanes_end[side], self.lanes_end[side] + side * 0.1, z0, z1)
        for _ in range(dice.whole(2, 5)):  # mended asphalt
            x, z = dice.between(kerb[-1], kerb[1] - 1.5), dice.between(5, 30)
            patch = shade(asphalt, dice.between(0.82, 1.08))
            self.strip(ROAD, patch, x, min(x + dice.between(0.8, 2.6), kerb[1]), z, z + dice.between(1.5, 9))
        if self.tram:
            self.lay_track(asphalt)
        self.mark_lanes(marking)

    def gaps(self) -> list[tuple[float, float]]:
        """Depths beside the crossing street."""
        if self.crossing is None:
            return [(0.6, 240.0)]
        return [(0.6, self.crossing), (self.crossing + self.crossing_width, 240.0)]

    def lay_track(self, asphalt: Color) -> None:
        x = self.lanes_end[-1] + 1.5
        self.track = x
        if self.dice.chance(0.45):
            self.strip(TRACK, self.dice.vary(self.dice.pick(((132, 120, 106), (104, 116, 70))), 0.1), x - 1.5, x + 1.5)
        for rail in (-0.72, 0.72):
            self.strip(TRACK, shade(asphalt, 0.55), x + rail - 0.09, x + rail + 0.09, 0.6, 140)

    def mark_lanes(self, marking: Color) -> None:
        dice = self.dice
        inner = self.lanes_end[-1] + (3.0 if self.tram else 0.0)
        lines = [self.centre + self.lane * i for i in range(1, self.right_lanes)]
        lines += [self.centre - self.lane * i for i in range(1, self.left_lanes)]
        if self.tram:
            lines.append(inner)
        solid = dice.chance(0.35)
        for x in [*lines, self.centre]:
            if solid and x == self.centre:
                for z0, z1 in self.gaps():
                    self.strip(ROAD, marking, x - 0.07, x + 0.07, z0, z1)
                continue
            z = dice.between(1.0, 6.0)
            while z < 90:
                if self.open_at(z, z + 3):
                    self.strip(ROAD, marking, x - 0.07, x + 0.07, z, z + 3)
                z += 7.5
        stops = [] if self.crossing is None else [self.crossing - 4.2, self.crossing + self.crossing_width + 1.2]
        if self.crossing is None and dice.chance(0.3):
            stops = [dice.between(9, 30)]
        self.zebras = stops
        if stops and dice.chance(0.8):
            for z in stops:
                x = self.kerb[-1] + 0.5
                while x < self.kerb[1] - 0.6:
                    self.strip(ROAD, marking, x, x + 0.5, z, z + 3.0)
                    x += 1.05
            self.strip(ROAD, marking, self.centre, self.lanes_end[1], stops[0] - 1.6, stops[0] - 1.2)
        if dice.chance(0.3):
            z = dice.between(8, 16)
            x = self.centre + self.lane / 2
            self.strip(ROAD, marking, x - 0.08, x + 0.08, z, z + 2.4)
            b = Builder()
            b.polygon([(x - 0.4, 0, z + 2.4), (x, 0, z + 4), (x + 0.4, 0, z + 2.4)], marking, UP)
            self.scene.ground.append(Thing(ROAD, b.build()))

    # ---- beside the road

    def line_street(self, side: int) -> None:
        """Buildings, walls, fences and gardens from near to far."""
        dice, style = self.dice, self.style[side]
        front = self.kerb[side] + side * self.walk[side]
        tall = dice.between(3, 6) if style == "city" else dice.between(1.2, 2.4)
        wall_look = (
            dice.pick(("brick", "concrete")),
            dice.between(1.1, 2.6),
            dice.vary(dice.pick(((150, 84, 66), (168, 164, 156), (134, 130, 124), (186, 172, 146))), 0.15),
        )
        fence_look = (
            dice.pick(("picket", "rail", "mesh")),
            dice.between(1.0, 1.9),
            dice.vary(dice.pick(((214, 212, 204), (46, 54, 50), (120, 86, 60), (126, 132, 134), (52, 92, 66))), 0.15),
        )
        plot = dice.weighted({"wall": 1, "fence": 1.2, "hedge": 0.8, "open": 0.8})
        z = 1.6
        while z < 130:
            length = dice.between(8, 14) if z < 60 else dice.between(14, 24)
            end = z + length
            if not self.open_at(z - 2, end + 2):
                assert self.crossing is not None
                if z < self.crossing - 6:
                    end = self.crossing - 2.5
                else:
                    z = self.crossing + self.crossing_width + 2.5
                    continue
            if style == "city":
                if dice.chance(0.07):
                    self.barrier(side, front, z, end, "wall" if dice.chance(0.5) else "fence", wall_look, fence_look)
                    self.grove(side, front + side * 3, z, end, 2)
                else:
                    mesh, high = street.building(dice, front, side, z, end, self.night, tall)
                    self.raise_building(mesh, front, side, z, end, high)
            elif style == "houses":
                back = front + side * dice.between(4, 8)
                if dice.chance(0.75):
                    inset = dice.between(0.5, 2.0)
                    mesh, high = street.building(dice, back, side, z + inset, end - inset, self.night, tall)
                    self.raise_building(mesh, back, side, z + inset, end - inset, high)
                else:
                    self.grove(side, back, z, end, 2)
                if dice.chance(0.5):
                    self.plant(front + side * dice.between(1.5, 3.5), dice.between(z + 1, end - 1))
                self.barrier(side, front, z, end, plot if dice.chance(0.85) else "open", wall_look, fence_look)
            elif style == "park":
                self.grove(side, front + side * 2, z, end, 3)
                if dice.chance(0.5):
                    self.barrier(side, front, z, end, plot, wall_look, fence_look)
            else:
                self.barrier(side, front, z, end, "wall" if dice.chance(0.6) else "fence", wall_look, fence_look)
                if dice.chance(0.5):
                    mesh, high = street.building(dice, front + side * 9, side, z, end, self.night, 1.6)
                    self.raise_building(mesh, front + side * 9, side, z, end, high)
                else:
                    self.grove(side, front + side * 4, z, end, 1)
            z = end + (0.0 if style == "city" and dice.chance(0.85) else dice.between(0.2, 2.0))

    def raise_building(self, mesh: Mesh, x: float, side: int, z0: float, z1: float, high: float) -> None:
        footprint = np.array([[x, z0], [x, z1], [x + side * 10, z1], [x + side * 10, z0]])
        self.add(BUILDING, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))

    def barrier(
        self, side: int, x: float, z0: float, z1: float, kind: str, wall_look: tuple, fence_look: tuple
    ) -> None:
        footprint = np.array([[x, z0], [x, z1], [x + side * 0.3, z1], [x + side * 0.3, z0]])
        if kind == "wall":
            mesh, high = street.wall(self.dice, x, side, z0, z1, wall_look), wall_look[1]
            self.add(WALL, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))
        elif kind == "fence":
            mesh, high = street.fence(self.dice, x, side, z0, z1, fence_look), fence_look[1]
            self.add(FENCE, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))
        elif kind == "hedge":
            high = 1.4
            mesh = street.hedge(self.dice, x, side, z0, z1, high, self.leaf())
            self.add(VEGETATION, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))

    def plant(self, x: float, z: float) -> None:
        """One tree."""
        mesh, high, foot, radius = street.tree(self.dice, self.leaf(), z < 45)
        self.add(VEGETATION, mesh, x, z, footprint=_disc(radius * 0.8), heights=(foot, high))

    def grove(self, side: int, x: float, z0: float, z1: float, count: int) -> None:
        dice = self.dice
        for _ in range(count):
            self.plant(x + side * dice.between(0, 9), dice.between(max(z0, 5), max(z1, 6)))
        if dice.chance(0.5):
            mesh, r = street.bush(dice, self.leaf())
            self.add(
                VEGETATION,
                mesh,
                x + side * dice.between(-1, 3),
                dice.between(max(z0, 6), max(z1, 7)),
                footprint=_disc(r),
            )

    def furnish(self, side: int) -> None:
        """Trees, lamps, signs and clutter on the pavement."""
        dice, kerb = self.dice, self.kerb[side]
        x = kerb + side * 0.8
        trees = dice.chance(0.55)
        step = dice.between(9, 16)
        z = dice.between(7, 7 + step)
        while trees and z < 80:
            if self.open_at(z - 3, z + 3) and dice.chance(0.85):
                self.plant(x, z)
            z += step * dice.between(0.9, 1.1)
        z = dice.between(8, 26)
        steel = dice.vary(dice.pick(((110, 112, 116), (70, 74, 72), (140, 142, 144))), 0.15)
        while z < 90:
            if self.open_at(z - 1, z + 1):
                high = dice.between(6.0, 8.0)
                arm = -side * 1.8
                self.add(
                    POLE,
                    street.pole(high, 0.075, steel, arm, high),
                    x - side * 0.3,
                    z,
                    footprint=_disc(0.1),
                    heights=(0, high),
                )
                self.add(
                    STATIC if dice.chance(0.3) else POLE,
                    street.lamp_head(arm, high, self.night),
                    x - side * 0.3,
                    z,
                    key=z - 0.01,
                )
                if self.night and z < 60:
                    at = x - side * 0.3 + arm * 1.14
                    self.scene.glows.append(Glow((at, high - 0.09, z), 1.0, (255, 200, 120)))
                    self.scene.glows.append(Glow((at, 0.0, z), 4.0, (96, 76, 48)))
            z += dice.between(24, 32)
        for _ in range(dice.whole(1, 4)):
            z = dice.between(7, 45)
            if not self.open_at(z, z):
                continue
            sx = kerb + side * dice.between(0.3, 0.7)
            high = dice.between(2.5, 3.2)
            self.add(
                POLE, street.pole(high + 0.3, 0.045, (138, 140, 142)), sx, z, footprint=_disc(0.06), heights=(0, high)
            )
            self.add(SIGN, street.sign(dice, high), sx, z, key=z - 0.02)
        if dice.chance(0.14):  # a railing at the kerb
            look = ("rail", dice.between(0.9, 1.15), dice.vary((146, 150, 152), 0.3))
            z = dice.between(6, 14)
            while z < 30 and self.open_at(z, z + 4):
                self.barrier(side, kerb + side * 0.25, z, z + 4, "fence", look, look)
                z += 4
        for _ in range(dice.whole(0, 2)):
            z = dice.between(7, 30)
            self.add(
                STATIC,
                street.clutter(dice),
                kerb + side * dice.between(0.6, self.walk[side] * 0.9),
                z,
                footprint=_box(0.35, 0.6),
                heights=(0, 0.9),
            )

    def signal(self) -> None:
        """Traffic lights before a crossing, and a direction board."""
        dice = self.dice
        for z in self.zebras:
            if not dice.chance(0.75):
                continue
            for side in (-1, 1):
                x = self.kerb[side] + side * 0.4
                reach = dice.chance(0.4) and side > 0
                high = 5.2 if reach else 3.1
                steel = (92, 96, 96)
                arm = -3.6 if reach else 0.0
                back = side < 0 and dice.chance(0.5)
                self.add(
                    POLE, street.pole(high, 0.07, steel, arm, high - 0.1), x, z, footprint=_disc(0.1), heights=(0, high)
                )
                self.add(LIGHT, street.traffic_light(dice, 0.0, 2.6, back), x, z, key=z - 0.03)
                if reach:
                    self.add(LIGHT, street.traffic_light(dice, -3.4, 4.6), x, z, key=z - 0.03)
        if dice.chance(0.16):
            z, x = dice.between(16, 40), self.kerb[1] + 0.6
            self.add(
                POLE, street.pole(6.2, 0.11, (126, 130, 132), -3.4, 6.0), x, z, footprint=_disc(0.12), heights=(0, 6)
            )
            self.add(SIGN, street.gantry(dice, -2.6, 5.6), x, z, key=z - 0.02)
        if dice.chance(0.06):
            z = dice.between(45, 80)
            self.add(BRIDGE, street.bridge(dice, 60, dice.between(5.0, 6.0), dice.between(1.0, 1.8)), 0, z)

    # ---- traffic

    def vehicle(self, label: int, x: float, z: float, yaw: float) -> float:
        """Places a vehicle by the middle of its length; returns that length."""
        dice = self.dice
        away = abs(yaw) < 1.5708
        if label == TRUCK:
            mesh, length, half, high = vehicles.truck(dice, self.night, away)
        elif label == BUS:
            mesh, length, half, high = vehicles.bus(dice, self.night)
        elif label == TRAIN:
            mesh, length, half, high = vehicles.tram(dice, self.night)
        else:
            mesh, length, half, high = vehicles.car(dice, self.night)
        self.add(label, mesh, x, z, yaw, footprint=_box(half, length), heights=(0.3, high))
        if self.night and z < 70:
            cos, sin = turn(yaw)
            end = -1.0 if away else 1.0
            color, reach = ((120, 16, 10), 0.5) if away else ((235, 225, 190), 0.8)
            for lamp in (-0.65, 0.65):
                place = (x + lamp * cos + end * sin * length / 2, 0.72, z - lamp * sin + end * cos * length / 2)
                self.scene.glows.append(Glow(place, reach, color))
        return length

    def park(self, side: int) -> None:
        """A row of parked cars, with a bicycle or motorcycle here and there."""
        dice = self.dice
        if not self.parking[side]:
            return
        x = self.lanes_end[side] + side * 1.15
        full = dice.between(0.55, 0.95)
        z = dice.between(5.5, 9)
        while z < 40:
            if not self.open_at(z - 7, z + 7) or any(abs(z - stop - 1.5) < 5 for stop in self.zebras):
                z += 2
                continue
            if not dice.chance(full):
                z += dice.between(2, 6)
                continue
            along = 0.0 if side > 0 or dice.chance(0.15) else 3.14159
            yaw = along + dice.between(-0.03, 0.03)
            kind = dice.weighted({CAR: 12, TRUCK: 0.4, MOTORCYCLE: 1.0})
            if kind == MOTORCYCLE:
                for i in range(dice.whole(1, 4)):
                    self.two_wheeler(MOTORCYCLE, x + dice.between(-0.3, 0.3), z - 1.6 + 0.9 * i, side * 1.1, False)
                z += 5
            elif kind == TRUCK:
                z += self.vehicle(TRUCK, x - side * 0.1, z + 2, yaw) + dice.between(2, 3)
            else:
                z += self.vehicle(CAR, x + dice.between(-0.12, 0.12), z, yaw) + dice.between(0.6, 1.6)

    def drive(self) -> None:
        """Moving traffic: ahead in the lanes, towards the camera on the left, across at a crossing."""
        dice = self.dice
        mix = {CAR: 10, TRUCK: 0.9, BUS: 0.9}
        lanes = [(self.centre + self.lane * (i + 0.5), 0.0) for i in range(self.right_lanes)]
        lanes += [(self.centre - self.lane * (i + 0.5), 3.14159) for i in range(self.left_lanes)]
        jam = dice.chance(0.3)
        for x, yaw in lanes:
            z = dice.between(8, 40) if yaw == 0 else dice.between(8, 26)
            while z < 52:
                kind = dice.weighted(mix)
                half = {CAR: 2.5, TRUCK: 6.2, BUS: 6.2}[kind]
                if z - half < 5:
                    z += half
                self.vehicle(kind, x + dice.between(-0.3, 0.3), z, yaw + dice.between(-0.02, 0.02))
                z += half + dice.between(3.0, 7) if jam else half + dice.between(10, 40)
        if self.tram and dice.chance(0.85):
            self.vehicle(TRAIN, self.track, dice.between(20, 42), dice.pick((0.0, 3.14159)))
        if self.crossing is not None:
            z = self.crossing + self.crossing_width * 0.3
            for row, yaw in ((0.0, 1.5708), (self.crossing_width * 0.42, -1.5708)):
                x = dice.between(-22, -8)
                while x < 20:
                    if dice.chance(0.45):
                        self.vehicle(
                            dice.weighted({CAR: 8, BUS: 0.6, TRUCK: 0.6}), x, z + row, yaw + dice.between(-0.05, 0.05)
                        )
                    x += dice.between(6.5, 12)

    def two_wheeler(self, label: int, x: float, z: float, yaw: float, ridden: bool) -> None:
        """A bicycle or motorcycle with or without its rider; `yaw` as for cars."""
        dice = self.dice
        heading = yaw - _bearing(x, z)
        face = _bearing(x, z)
        motor = label == MOTORCYCLE
        mesh = people.motorcycle(dice, heading, self.night) if motor else people.bicycle(dice, heading)
        self.add(label, mesh, x, z, face, footprint=_box(0.2, 1.5), heights=(0.1, 1.0))
        if ridden:
            mesh = people.rider(dice, heading, motor)
            self.add(RIDER, mesh, x, z, face, key=z - 0.05, footprint=_box(0.25, 0.6), heights=(0.6, 1.75))

    def ride(self) -> None:
        dice = self.dice
        for _ in range(dice.weighted({0: 3, 1: 4, 2: 3, 3: 1.5})):
            label = MOTORCYCLE if dice.chance(0.36) else BICYCLE
            right = dice.chance(0.6)
            x = self.lanes_end[1] - dice.between(0.2, 0.9) if right else self.lanes_end[-1] + dice.between(0.3, 0.9)
            if right and self.right_lanes == 1:
                x = min(x + 0.3, self.kerb[1] - 0.4)
            z, yaw = dice.between(6, 22), (0.0 if right else 3.14159) + dice.between(-0.35, 0.35)
            for i in range(dice.whole(1, 3) if label == BICYCLE else 1):
                self.two_wheeler(label, x + dice.between(-0.5, 0.5), z + 1.4 * i, yaw, True)
        if self.zebras and dice.chance(0.25):
            z = self.zebras[0] + dice.between(0.5, 2.5)
            self.two_wheeler(BICYCLE, dice.between(self.kerb[-1], self.kerb[1]), z, dice.pick((1.57, -1.57)), True)

    def walker(self, x: float, z: float, yaw: float, walking: bool) -> None:
        face = _bearing(x, z)
        mesh, high = people.person(self.dice, yaw - face, walking)
        self.add(PERSON, mesh, x, z, face, footprint=_disc(0.22), heights=(0.0, high))

    def walk_people(self, side: int) -> None:
        """People on the pavement, alone and in groups, and racks of bicycles."""
        dice = self.dice
        kerb, width = self.kerb[side], self.walk[side]
        busy = dice.weighted({0: 1, 1: 1.5, 2: 3, 4: 3})
        for _ in range(busy):
            z = dice.between(5.5, 12) if dice.chance(0.55) else dice.between(9, 32)
            if self.style[side] == "city" and not self.open_at(z, z):
                continue
            x = kerb + side * dice.between(0.6, max(width - 0.4, 0.8))
            size = dice.weighted({1: 4, 2: 3.5, 3: 2, 5: 1})
            walking = dice.chance(0.75)
            yaw = dice.pick((0.0, 3.14159)) + dice.between(-0.4, 0.4)
            for i in range(size):
                turned = yaw + dice.between(-0.3, 0.3) if walking else dice.between(0, 6.28)
                px = x + side * (0.5 * (i % 3) + dice.between(-0.1, 0.1))
                self.walker(px, z + 0.55 * (i // 3) + dice.between(-0.3, 0.3), turned, walking)
            if dice.chance(0.1):
                self.add(DYNAMIC, street.luggage(dice), x - side * 0.5, z - 0.3, _bearing(x, z), footprint=_disc(0.25))
        if dice.chance(0.28):
            z, x = dice.between(6.5, 17), kerb + side * dice.between(0.5, 1.0)
            yaw = dice.between(0.9, 1.4) * dice.pick((-1, 1))
            for i in range(dice.whole(2, 7)):
                self.two_wheeler(
                    BICYCLE, x + dice.between(-0.1, 0.1), z + 0.6 * i, yaw + dice.between(-0.12, 0.12), False
                )

    def gather(self) -> None:
        """People who cross the street or wait, and a far crowd that nobody could count."""
        dice = self.dice
        for z in self.zebras:
            if dice.chance(0.75):
                for _ in range(dice.whole(1, 6)):
                    x = dice.between(self.kerb[-1], self.kerb[1])
                    self.walker(x, z + dice.between(0.2, 2.8), dice.pick((1.57, -1.57)) + dice.between(-0.3, 0.3), True)
        if dice.chance(0.3):
            side = dice.pick((-1, 1))
            z, x = dice.between(7, 16), self.kerb[side] + side * 1.2
            for i in range(dice.whole(4, 10)):
                at = x + side * dice.between(0.0, 1.4)
                self.walker(at, z + 0.42 * i + dice.between(-0.15, 0.15), dice.between(0, 6.28), False)
        if dice.chance(0.12):
            side = dice.pick((-1, 1))
            z = dice.between(55, 75)
            for i in range(9):
                x = self.kerb[side] + side * (0.5 + 0.3 * i)
                face = _bearing(x, z)
                mesh, _ = people.person(dice, dice.between(0, 6.28), True)
                self.add(PERSON, mesh, x, z + dice.between(-1, 1), face, group=True)

    def backdrop(self) -> None:
        """The far end of the street: roofs and tree tops in the haze."""
        dice, air = self.dice, np.array(self.light.sky_bottom) * 0.4
        gray = dice.vary((150, 146, 144), 0.12)
        b = Builder()
        x = -190.0
        while x < 190:
            wide, top = dice.between(9, 22), dice.between(5, 24)
            r, g, blue = dice.vary(gray, 0.1) if self.night else (np.array(dice.vary(gray, 0.1)) * 0.6 + air).tolist()
            b.flat([(x, top), (x + wide, top), (x + wide, 0), (x, 0)], (r, g, blue))
            x += wide
        self.add(BUILDING, b.build(), 0, 200.0)
        b = Builder()
        leaf = self.leaf()
        x = -190.0
        while x < 190:
            wide, top = dice.between(5, 12), dice.between(3, 11)
            if dice.chance(0.75):
                street.blob(dice, b, x + wide / 2, top * 0.45, wide * 0.7, top * 0.55, dice.vary(leaf, 0.12))
                b.flat([(x - 1, top * 0.4), (x + wide + 1, top * 0.4), (x + wide + 1, 0), (x - 1, 0)], leaf)
            x += wide
        self.add(VEGETATION, b.build(), 0, 170.0)

    def compose(self) -> Scene:
        self.lay_ground()
        self.backdrop()
        for side in (-1, 1):
            self.line_street(side)
            self.furnish(side)
            self.park(side)
            self.walk_people(side)
        self.signal()
        self.drive()
        self.ride()
        self.gather()
        self.scene.things.sort(key=lambda thing: -thing.key)
        return self.scene


def _bearing(x: float, z: float) -> float:
    """Direction from the camera to a place, an angle from straight ahead to the right (a rational approximation)."""
    t = x / z
    return t / (1 + 0.28 * t * t)


def compose(seed: int, split: str, index: int) -> Scene:
    """The scene of a data set's seed, split ("train" or "val") and index; independent of the picture's size."""
    return _Composer(Dice(seed, ("train", "val").index(split), index)).compose()
