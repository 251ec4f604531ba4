"""Bicycles and motorcycles of SynthCity, made of limbs like people."""

from __future__ import annotations

from functools import cache

from spinet.synthcity.dice import Color, Dice
from spinet.synthcity.mesh import Builder, Mesh, shade
from spinet.synthcity.people import CLOTHES, RING, Limb, direction, paint_limbs, pose_of

CYCLES = 6  # number of bicycle shapes
PAINT, PAINT_DARK, TYRE, HUB, INSIDE, DARK, STEEL, SEAT, LAMP = range(9)  # palette slots


def _wheel(b: Builder, x: float, r: float, foreshortening: float, thick: float) -> None:
    """A wheel with its centre at x on the screen's horizontal axis, in metres."""
    half, rim = max(r * abs(foreshortening), thick), r - 1.6 * thick
    b.flat([(x + half * c, r + r * s) for c, s in RING], TYRE)
    half -= 1.6 * thick
    if half > 0.03:
        b.flat([(x + half * c, r + rim * s) for c, s in RING], INSIDE)
        b.flat([(x + 0.04 * c, r + 0.05 * s) for c, s in RING[::2]], HUB)


def _machine_paint(dice: Dice, inside: Color, lamp: tuple[float, ...]) -> list[tuple[float, ...]]:
    paint, seat = dice.vary(dice.pick(CLOTHES), 0.25), dice.vary((44, 34, 30), 0.4)
    colors = (paint, shade(paint, 0.8), (26, 26, 28), (60, 60, 62), inside, (38, 38, 42), (124, 126, 130), seat)
    return [*((*color, 0.0) for color in colors), lamp]


def bicycle(dice: Dice, heading: float) -> Mesh:
    """A standing bicycle with its middle at the origin."""
    gray = dice.between(104, 132)
    palette = _machine_paint(dice, (gray, gray * 0.98, gray * 0.96), (200, 30, 26, 0.4))
    size = dice.between(0.94, 1.08)
    return _bicycle(dice.whole(0, CYCLES - 1), pose_of(heading)).painted(palette, (size, size, 1))


@cache
def _bicycle(variant: int, pose: int) -> Mesh:
    dice = Dice(12, variant)
    cos, sin = direction(pose)
    b = Builder([(0, 0, 0, 0)] * 9)
    for z in (0.52, -0.52) if cos > 0 else (-0.52, 0.52):
        _wheel(b, z * sin, 0.345, sin, 0.034)
    crank, seat, head, rear, front = (0, 0, 0.3), (-0.17, 0, 0.78), (0.36, 0, 0.82), (-0.52, 0, 0.345), (0.52, 0, 0.345)
    bar, tube = (0.36, 0, 1.0), 0.026
    cross = (-0.12, 0, 0.56) if variant % 3 == 0 else seat  # a low frame
    limbs: list[Limb] = [
        (crank, seat, tube, tube, PAINT),
        (cross, head, tube, tube, PAINT),
        (crank, head, tube, tube, PAINT),
        (rear, crank, tube * 0.8, tube * 0.8, PAINT_DARK),
        (rear, seat, tube * 0.8, tube * 0.8, PAINT_DARK),
        (head, front, tube, tube * 0.8, PAINT),
        (seat, (-0.2, 0, 0.92), tube, tube, STEEL),
        ((-0.32, 0, 0.94), (-0.08, 0, 0.93), 0.05, 0.03, SEAT),
        (head, bar, tube, tube, STEEL),
        (bar, (0.3, 0.29, 1.02), 0.024, 0.028, DARK),
        (bar, (0.3, -0.29, 1.02), 0.024, 0.028, DARK),
    ]
    if dice.chance(0.35):
        limbs.append(((0.5, 0.12, 0.85), (0.5, -0.12, 0.85), 0.11, 0.11, SEAT))
    if dice.chance(0.6):
        limbs.append(((-0.7, 0, 0.66), (-0.3, 0, 0.7), 0.025, 0.025, DARK))
    paint_limbs(b, limbs, cos, sin)
    if cos > 0.3:
        b.flat([(-0.7 * sin + 0.045 * c, 0.6 + 0.045 * s) for c, s in RING[::2]], LAMP)
    return b.build()


def motorcycle(dice: Dice, heading: float, night: bool) -> Mesh:
    """A standing motorcycle or scooter with its middle at the origin."""
    pose = pose_of(heading)
    lamp = (255, 246, 220, 1.0) if direction(pose)[0] < 0 else (200, 24, 24, 0.9 if night else 0.3)
    return _motorcycle(dice.chance(0.4), pose).painted(_machine_paint(dice, (84, 86, 90), lamp), (1.05, 1.05, 1))


@cache
def _motorcycle(scooter: bool, pose: int) -> Mesh:
    cos, sin = direction(pose)
    b = Builder([(0, 0, 0, 0)] * 9)
    r, base = (0.24, 0.6) if scooter else (0.32, 0.72)
    for z in (base, -base) if cos > 0 else (-base, base):
        _wheel(b, z * sin, r, sin, 0.075)
    if scooter:
        limbs: list[Limb] = [
            ((-0.55, 0, 0.52), (-0.2, 0, 0.5), 0.2, 0.2, PAINT),
            ((-0.3, 0, 0.3), (0.35, 0, 0.26), 0.1, 0.08, PAINT_DARK),
            ((0.4, 0, 0.35), (0.44, 0, 0.85), 0.15, 0.13, PAINT),
            ((-0.55, 0, 0.77), (-0.05, 0, 0.77), 0.08, 0.08, SEAT),
            ((0.45, 0, 0.6), (base, 0, r), 0.05, 0.04, STEEL),
        ]
        bar = (0.4, 0, 1.02)
    else:
        limbs = [
            ((-0.2, 0, 0.42), (0.25, 0, 0.42), 0.17, 0.17, DARK),
            ((-0.7, 0, 0.78), (-0.2, 0, 0.76), 0.08, 0.1, SEAT),
            ((-0.05, 0, 0.84), (0.3, 0, 0.86), 0.14, 0.16, PAINT),
            ((-0.65, 0, 0.66), (-0.3, 0, 0.6), 0.08, 0.12, PAINT_DARK),
            ((0.38, 0, 0.84), (base, 0, r), 0.06, 0.05, STEEL),
            ((0.1, 0.14, 0.3), (-0.7, 0.16, 0.34), 0.04, 0.065, STEEL),
            ((-base, 0, r), (-0.1, 0, 0.38), 0.05, 0.06, DARK),
            ((0.45, 0, 0.85), (0.52, 0, 0.95), 0.16, 0.13, PAINT_DARK),
        ]
        bar = (0.34, 0, 1.06)
    limbs.append((bar, (0.3, 0.34, 1.08), 0.028, 0.034, DARK))
    limbs.append((bar, (0.3, -0.34, 1.08), 0.028, 0.034, DARK))
    paint_limbs(b, limbs, cos, sin)
    if abs(cos) > 0.3:
        x, y = (0.56 * sin, 0.92) if cos < 0 else (-0.8 * sin, 0.72)
        b.flat([(x + 0.085 * c, y + 0.085 * s) for c, s in RING[::2]], LAMP)
    return b.build()
