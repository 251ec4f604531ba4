"""The data of a SynthCity scene: a camera, a light, and things along a street, in metres, without pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spinet.synthcity.dice import Color, circle
from spinet.synthcity.light import Light
from spinet.synthcity.mesh import Mesh

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


@dataclass
class Thing:
    """One object; objects are painted by decreasing `key`, a depth."""

    label: int
    mesh: Mesh
    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    key: float = 0.0
    group: bool = False  # a crowd: a region of a thing class without instances
    footprint: np.ndarray | None = None  # [k, 2], (x, z) relative to the object, for its shadow
    heights: tuple[float, float] = (0.0, 0.0)  # lowest and highest part that casts a shadow


@dataclass(frozen=True)
class Glow:
    """The glow of a lamp: its position (m), its reach (m), its colour."""

    place: tuple[float, float, float]
    reach: float
    color: Color


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the street; lengths on the sensor are shares of the image's width or height."""

    focal: float  # of the width
    horizon: float  # of the height, from the top
    height: float  # m above the ground
    yaw: float
    bend: float  # curvature of the street: x grows by bend z², 1/m


@dataclass
class Scene:
    """All data from which an image is painted."""

    camera: Camera
    light: Light
    ground: list[Thing] = field(default_factory=list)  # painted first, in this order
    things: list[Thing] = field(default_factory=list)
    glows: list[Glow] = field(default_factory=list)
    bonnet: float = 0.0  # height of the ego vehicle's bonnet, as a share of the image's height; 0: not in view
    border: float = 0.0  # width of the rectification border, as a share of the image's height
    noise: float = 4.0  # the sensor's noise, grey levels
    texture: tuple[int, int] = (0, 0)  # offset into the noise tiles


def oblong(half: float, length: float) -> np.ndarray:
    """The footprint of a vehicle, [4, 2]."""
    return np.array([[-half, -length / 2], [-half, length / 2], [half, length / 2], [half, -length / 2]])


def disc(r: float) -> np.ndarray:
    """A round footprint, [8, 2]."""
    return _ROUND * r


_ROUND = circle(8)
