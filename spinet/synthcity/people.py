"""People of SynthCity: jointed limbs, seen from any side, painted flat towards the camera.

A limb connects two joints (forward, sideways, up) in metres. `heading` is the angle between the person's forward
direction and the camera's view: 0 shows the back, a quarter turn the side with the front to the right, half a turn the
face.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from spinet.synthcity.dice import Color, Dice, circle, turn
from spinet.synthcity.mesh import Builder, Mesh, capsules, shade

SKIN_TONES: tuple[Color, ...] = ((236, 196, 168), (222, 176, 144), (188, 136, 102), (140, 94, 66), (92, 62, 46))
HAIR: tuple[Color, ...] = ((30, 24, 22), (62, 42, 30), (110, 76, 44), (186, 150, 92), (150, 150, 150), (120, 48, 28))
CLOTHES: tuple[Color, ...] = (
    (28, 30, 36),
    (58, 62, 70),
    (196, 34, 40),
    (226, 226, 222),
    (34, 62, 130),
    (70, 130, 190),
    (210, 170, 40),
    (40, 110, 70),
    (120, 60, 110),
    (220, 110, 140),
    (126, 92, 64),
    (206, 186, 150),
    (226, 104, 30),
    (96, 160, 150),
)
TROUSERS: tuple[Color, ...] = ((26, 28, 34), (44, 56, 86), (70, 92, 134), (104, 96, 84), (160, 146, 120), (60, 60, 62))
RING = circle(16)
TURNS = 24  # number of headings; others are rounded
WALKERS, STANDERS, RIDERS = 16, 12, 8  # numbers of poses

# palette slots of people
SKIN, SKIN_DARK, HAIR_, TOP, TOP_DARK, SLEEVE, LEGS, LEGS_DARK, SHOE, SKIRT, BAG, HELMET = range(12)

Joint = tuple[float, float, float]
Limb = tuple[Joint, Joint, float, float, int]  # from, to, the radii at both, palette slot


def pose_of(heading: float) -> int:
    """Index of the nearest heading."""
    return round(heading * TURNS / (2 * math.pi)) % TURNS


def direction(pose: int) -> tuple[float, float]:
    """Cosine and sine of the heading with this index."""
    return turn(2 * math.pi * pose / TURNS)


def paint_limbs(b: Builder, limbs: list[Limb], cos: float, sin: float) -> None:
    """Paints limbs from the farthest to the nearest."""
    ends = np.array([limb[:2] for limb in limbs])  # [n, 2, 3]: forward, sideways, up
    depth = (ends[..., 0] * cos - ends[..., 1] * sin).sum(axis=1)
    flat = np.stack([ends[..., 0] * sin + ends[..., 1] * cos, ends[..., 2]], axis=-1)
    outlines = capsules(flat, np.array([limb[2:4] for limb in limbs]))
    for i in np.argsort(-depth, kind="stable").tolist():
        b.flat(outlines[i], limbs[i][4])


def _clothes(dice: Dice) -> list[tuple[float, ...]]:
    skin, hair = dice.vary(dice.pick(SKIN_TONES), 0.12), dice.vary(dice.pick(HAIR), 0.2)
    top, trousers = dice.vary(dice.pick(CLOTHES), 0.25), dice.vary(dice.pick(TROUSERS), 0.25)
    sleeve = shade(skin if dice.chance(0.25) else top, 0.94)
    legs = skin if dice.chance(0.1) else trousers
    shoe = dice.vary(dice.pick(((30, 28, 28), (210, 210, 210), (110, 70, 44))), 0.2)
    skirt, bag, helmet = (dice.vary(dice.pick(CLOTHES), 0.25) for _ in range(3))
    colors = (
        skin,
        shade(skin, 0.86),
        hair,
        top,
        shade(top, 0.84),
        sleeve,
        legs,
        shade(legs, 0.84),
        shoe,
        skirt,
        bag,
        helmet,
    )
    return [(*color, 0.0) for color in colors]


def person(dice: Dice, heading: float, walking: bool) -> tuple[Mesh, float]:
    """A pedestrian: the mesh and the height in metres."""
    variant = dice.whole(0, (WALKERS if walking else STANDERS) - 1)
    h = dice.between(1.05, 1.45) if variant == 0 else dice.between(1.58, 1.92)
    mesh = _person(variant, walking, pose_of(heading)).painted(_clothes(dice), (h * dice.between(0.88, 1.2), h, h))
    return mesh, h


@cache
def _person(variant: int, walking: bool, pose: int) -> Mesh:
    """A person one metre tall; the first variant has a child's proportions."""
    dice = Dice(11, variant, walking)
    cos, sin = direction(pose)
    coat, skirt = dice.chance(0.25), dice.chance(0.16)
    hip, knee, shoulder, neck = 0.52, 0.28, 0.8, 0.85
    swing = dice.between(0.09, 0.17) if walking else dice.between(0.0, 0.03)
    lean = 0.02 if walking else 0.0
    limbs: list[Limb] = []
    first = dice.pick((-1, 1))
    for side in (-1, 1):
        step = swing * side * first
        legs = LEGS if side == (1 if sin > 0 else -1) else LEGS_DARK
        foot = (-step * 1.5, side * 0.05, 0.03 + (0.05 if step > 0.05 and walking else 0.0))
        bend = (-step * 0.45 + (0.05 if walking else 0.01), side * 0.052, knee)
        limbs.append(((foot[0] - 0.02, foot[1], foot[2]), (foot[0] + 0.09, foot[1], 0.022), 0.026, 0.02, SHOE))
        limbs.append((bend, foot, 0.036, 0.024, legs))
        limbs.append(((0.0, side * 0.045, hip), bend, 0.056, 0.038, legs))
    arms: dict[int, list[Limb]] = {}
    gesture = dice.weighted({"hang": 6, "phone": 1, "cross": 1})
    for side in (-1, 1):
        step = -swing * side * first
        if gesture == "hang" or (gesture == "phone" and side < 0):
            elbow, hand = (-step * 0.5 - 0.02, side * 0.135, 0.63), (-step * 1.2 + 0.03, side * 0.135, 0.48)
        elif gesture == "phone":
            elbow, hand = (0.05, side * 0.14, 0.64), (0.12, side * 0.07, 0.86)
        else:
            elbow, hand = (0.02, side * 0.15, 0.63), (0.12, side * 0.02, 0.66)
        arms[side] = [
            ((lean, side * 0.105, shoulder - 0.01), elbow, 0.036, 0.03, TOP_DARK),
            (elbow, hand, 0.028, 0.022, SLEEVE),
            (hand, hand, 0.026, 0.026, SKIN_DARK),
        ]
    b = Builder([(0, 0, 0, 0)] * 12)
    near = 1 if sin > 0 else -1  # the side that lies towards the camera
    paint_limbs(b, limbs, cos, sin)
    broad = abs(cos)
    front_view = broad > 0.8  # both arms are beside the body
    half_s, half_w, half_h = ((0.125 * broad + 0.085) * f for f in (0.8, 0.66, 0.7))
    dx = lean * sin
    if not front_view:
        paint_limbs(b, arms[-near], cos, sin)
    low = 0.36 if coat or skirt else hip - 0.04
    if skirt:
        b.flat([(-half_w, 0.6), (half_w, 0.6), (half_h * 1.3, low), (-half_h * 1.3, low)], SKIRT)
        low = hip
    b.flat(
        [
            (dx - half_s * 0.6, shoulder + 0.025),
            (dx + half_s * 0.6, shoulder + 0.025),
            (dx + half_s, shoulder - 0.02),
            (half_w, 0.64),
            (half_h * 1.05, low),
            (-half_h * 1.05, low),
            (-half_w, 0.64),
            (dx - half_s, shoulder - 0.02),
        ],
        TOP,
    )
    if broad > 0.5:  # a shaded half makes the body look round
        right = dx + half_s * 0.9
        b.flat([(dx, shoulder), (right, shoulder - 0.02), (half_w * 0.95, 0.64), (half_h, low), (0, low)], TOP_DARK)
        if coat and cos < 0:
            b.flat([(-0.008, shoulder), (0.008, shoulder), (0.008, low), (-0.008, low)], LEGS_DARK)
    if dice.chance(0.3):
        if broad > 0.6 and cos > 0:
            b.flat([(-half_w, 0.78), (half_w, 0.78), (half_w * 0.95, 0.56), (-half_w * 0.95, 0.56)], BAG)
        elif broad <= 0.6:
            x = -near * half_s
            b.flat([(x * 0.7, 0.79), (x * 1.9, 0.76), (x * 1.9, 0.57), (x * 0.7, 0.55)], BAG)
    paint_limbs(b, arms[near] + (arms[-near] if front_view else []), cos, sin)
    child = variant == 0
    b.flat([(dx - 0.03, neck), (dx + 0.03, neck), (dx + 0.03, shoulder), (dx - 0.03, shoulder)], SKIN_DARK)
    _head(b, (dx, 0.9 if child else 0.925), 0.085 if child else 0.066, cos, sin, long=dice.chance(0.4), helmet=False)
    return b.build()


def _head(b: Builder, at: tuple[float, float], r: float, cos: float, sin: float, long: bool, helmet: bool) -> None:
    """A head with hair or a helmet; the face is visible if it points to the camera."""
    x, y = at
    if helmet:
        b.flat([(x + r * 1.15 * c, y + r * 1.2 * s) for c, s in RING], HELMET)
        if cos < 0.5:
            b.flat([(x + sin * r * 0.45 + r * 0.7 * c, y - r * 0.15 + r * 0.5 * s) for c, s in RING], SKIN_DARK)
        return
    length = 1.5 if long else 1.0
    b.flat([(x - sin * r * 0.15 + r * c, y + r * 1.12 * (s if s > 0 else s * length)) for c, s in RING], HAIR_)
    if cos < 0.6:
        b.flat([(x + sin * r * 0.3 + r * 0.82 * c, y - r * 0.18 + r * 0.95 * s) for c, s in RING], SKIN)


def rider(dice: Dice, heading: float, motor: bool) -> Mesh:
    """A person on a bicycle or a motorcycle whose middle is at the origin."""
    mesh = _rider(dice.whole(0, RIDERS - 1), motor, pose_of(heading))
    return mesh.painted(_clothes(dice), (dice.between(0.94, 1.1), dice.between(0.98, 1.04), 1))


@cache
def _rider(variant: int, motor: bool, pose: int) -> Mesh:
    dice = Dice(13, variant, motor)
    cos, sin = direction(pose)
    if motor:
        hip, shoulder, hand, bend, foot, spread, stroke = (
            (-0.3, 0.92),
            (0.0, 1.38),
            (0.32, 1.1),
            (0.16, 0.66),
            (0.02, 0.34),
            0.2,
            0.0,
        )
    else:
        hip, shoulder, hand, bend, foot, spread = (
            (-0.18, 0.98),
            (0.1, 1.46),
            (0.32, 1.05),
            (0.2, 0.72),
            (0.04, 0.24),
            0.115,
        )
        stroke = dice.pick((-1, 1)) * dice.between(0.04, 0.13)
    b = Builder([(0, 0, 0, 0)] * 12)
    near = 1 if sin > 0 else -1  # the side that lies towards the camera
    legs: dict[int, list[Limb]] = {}
    arms: dict[int, list[Limb]] = {}
    for side in (-1, 1):
        lift = side * stroke
        knee = (bend[0] + abs(lift) * 0.3, side * spread, bend[1] + lift * 0.7)
        toe = (foot[0], side * spread, foot[1] + lift)
        cloth = LEGS if side == near else LEGS_DARK
        legs[side] = [
            ((toe[0] - 0.05, toe[1], toe[2]), (toe[0] + 0.15, toe[1], toe[2] - 0.03), 0.045, 0.04, SHOE),
            (knee, toe, 0.062, 0.045, cloth),
            ((hip[0], side * 0.08, hip[1]), knee, 0.1, 0.068, cloth),
        ]
        elbow = ((shoulder[0] + hand[0]) / 2 - 0.02, side * 0.27, (shoulder[1] + hand[1]) / 2 - 0.06)
        grip = (hand[0], side * 0.28, hand[1])
        arms[side] = [
            ((shoulder[0], side * 0.18, shoulder[1] - 0.03), elbow, 0.06, 0.05, TOP_DARK),
            (elbow, grip, 0.048, 0.04, SLEEVE),
            (grip, grip, 0.045, 0.045, SKIN_DARK),
        ]
    broad = abs(cos)
    front_view = broad > 0.8
    paint_limbs(b, legs[-near] + ([] if front_view else arms[-near]), cos, sin)
    if cos > 0:
        paint_limbs(b, legs[near], cos, sin)
    x0, y0, x1, y1 = hip[0] * sin, hip[1], shoulder[0] * sin, shoulder[1]
    wide, waist = 0.12 + 0.11 * broad, 0.11 + 0.06 * broad
    b.flat(
        [
            (x1 - wide * 0.6, y1 + 0.05),
            (x1 + wide * 0.6, y1 + 0.05),
            (x1 + wide, y1 - 0.04),
            (x0 + waist, y0 + 0.05),
            (x0 + waist * 0.9, y0 - 0.08),
            (x0 - waist * 0.9, y0 - 0.08),
            (x0 - waist, y0 + 0.05),
            (x1 - wide, y1 - 0.04),
        ],
        TOP,
    )
    if broad > 0.5:
        b.flat(
            [(x1, y1 + 0.03), (x1 + wide * 0.9, y1 - 0.04), (x0 + waist * 0.9, y0 - 0.06), (x0, y0 - 0.06)], TOP_DARK
        )
    if dice.chance(0.3) and cos > -0.3:
        x = (x1 + x0) / 2 - 0.16 * sin
        b.flat([(x - 0.15, y1 - 0.03), (x + 0.15, y1 - 0.03), (x + 0.14, y0 + 0.1), (x - 0.16, y0 + 0.1)], BAG)
    if cos <= 0:
        paint_limbs(b, legs[near], cos, sin)
    paint_limbs(b, arms[near] + (arms[-near] if front_view else []), cos, sin)
    helmet, long = motor or dice.chance(0.45), dice.chance(0.3)
    _head(b, ((shoulder[0] + 0.07) * sin, y1 + 0.2), 0.115, cos, sin, long, helmet)
    return b.build()
