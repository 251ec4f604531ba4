"""People, bicycles and motorcycles of SynthCity: jointed limbs, seen from any side, flat towards the camera.

A limb runs between joints (forward, sideways, up) in metres; `heading` is the angle between its owner's forward and the
direction from the camera to it: 0 shows the back, a quarter turn the side with the front to the right, half a turn the face.
"""

from __future__ import annotations

import numpy as np

from spinet.data.synthcity.dice import Color, Dice, circle, turn
from spinet.data.synthcity.mesh import Builder, Mesh, capsules, shade

SKIN: tuple[Color, ...] = ((236, 196, 168), (222, 176, 144), (188, 136, 102), (140, 94, 66), (92, 62, 46))
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

Limb = tuple[tuple[float, float, float], tuple[float, float, float], float, float, Color]


def _paint_limbs(b: Builder, limbs: list[Limb], heading: float) -> None:
    """Paints limbs from the farthest to the nearest."""
    cos, sin = turn(heading)
    ends = np.array([limb[:2] for limb in limbs])  # [n, 2, 3]: forward, sideways, up
    depth = (ends[..., 0] * cos - ends[..., 1] * sin).sum(axis=1)
    flat = np.stack([ends[..., 0] * sin + ends[..., 1] * cos, ends[..., 2]], axis=-1)
    outlines = capsules(flat, np.array([limb[2:4] for limb in limbs]))
    solid = np.concatenate([outlines, np.zeros((*outlines.shape[:2], 1))], axis=-1)
    for i in np.argsort(-depth, kind="stable").tolist():
        b.polygon(solid[i], limbs[i][4])


def person(dice: Dice, heading: float, walking: bool) -> tuple[Mesh, float]:
    """Somebody on foot: the mesh and the height in metres."""
    child = dice.chance(0.12)
    h = dice.between(1.05, 1.45) if child else dice.between(1.58, 1.9)
    build = dice.between(0.88, 1.2)
    skin, hair = dice.vary(dice.pick(SKIN), 0.12), dice.vary(dice.pick(HAIR), 0.2)
    top, trousers = dice.vary(dice.pick(CLOTHES), 0.25), dice.vary(dice.pick(TROUSERS), 0.25)
    coat, skirt, bare = dice.chance(0.25), dice.chance(0.16), dice.chance(0.25)
    shoe = dice.vary(dice.pick(((30, 28, 28), (200, 200, 200), (110, 70, 44))), 0.2)
    hip, knee, shoulder, neck = 0.52 * h, 0.28 * h, 0.8 * h, 0.85 * h
    swing = dice.between(0.09, 0.17) * h if walking else dice.between(0.0, 0.03) * h
    lean = 0.02 * h if walking else 0.0
    w = build * h
    limbs: list[Limb] = []
    first = dice.pick((-1, 1))
    legs = skin if skirt and dice.chance(0.5) else trousers
    for side in (-1, 1):
        step = swing * side * first
        foot = (-step * 1.5, side * 0.05 * w, 0.03 * h + (0.05 * h if step > 0.05 and walking else 0.0))
        bend = (-step * 0.45 + (0.05 * h if walking else 0.01), side * 0.052 * w, knee)
        limbs.append(((foot[0] - 0.02, foot[1], foot[2]), (foot[0] + 0.09 * h, foot[1], 0.022 * h), 0.026 * h, 0.02 * h, shoe))
        limbs.append((bend, foot, 0.036 * w, 0.024 * w, legs))
        limbs.append(((0.0, side * 0.045 * w, hip), bend, 0.056 * w, 0.038 * w, legs))
    arms: list[Limb] = []
    pose = dice.weighted({"hang": 6, "phone": 1, "cross": 1})
    sleeve = skin if bare else top
    for side in (-1, 1):
        step = -swing * side * first
        joint = (lean, side * 0.105 * w, shoulder - 0.01 * h)
        if pose == "hang" or (pose == "phone" and side < 0):
            elbow = (-step * 0.5 - 0.02, side * 0.135 * w, 0.63 * h)
            hand = (-step * 1.2 + 0.03, side * 0.135 * w, 0.48 * h)
        elif pose == "phone":
            elbow, hand = (0.05 * h, side * 0.14 * w, 0.64 * h), (0.12 * h, side * 0.07 * w, 0.86 * h)
        else:
            elbow, hand = (0.02 * h, side * 0.15 * w, 0.63 * h), (0.12 * h, side * 0.02 * w, 0.66 * h)
        arms.append((joint, elbow, 0.036 * w, 0.03 * w, shade(top, 0.88)))
        arms.append((elbow, hand, 0.028 * w, 0.022 * w, shade(sleeve, 0.94)))
        arms.append((hand, hand, 0.026 * h, 0.026 * h, skin))
    cos, sin = turn(heading)
    b = Builder()
    near = 1 if sin > 0 else -1  # the side that lies towards the camera
    _paint_limbs(b, limbs, heading)
    broad = abs(cos)
    half_s, half_w, half_h = ((0.125 * broad + 0.085) * w * f for f in (0.8, 0.66, 0.7))
    dx = lean * sin
    far_arms, near_arms = (arms[:3], arms[3:]) if near > 0 else (arms[3:], arms[:3])
    if broad < 0.8:
        _paint_limbs(b, far_arms, heading)
    else:
        near_arms = arms
    low = 0.36 * h if coat or skirt else hip - 0.04 * h
    flare = 1.3 if skirt else 1.05
    if skirt:
        lower = dice.vary(dice.pick(CLOTHES), 0.2)
        b.flat([(-half_w, 0.6 * h), (half_w, 0.6 * h), (half_h * flare, low), (-half_h * flare, low)], lower)
        low = hip
    b.flat(
        [
            (dx - half_s * 0.6, shoulder + 0.025 * h),
            (dx + half_s * 0.6, shoulder + 0.025 * h),
            (dx + half_s, shoulder - 0.02 * h),
            (half_w, 0.64 * h),
            (half_h * 1.05, low),
            (-half_h * 1.05, low),
            (-half_w, 0.64 * h),
            (dx - half_s, shoulder - 0.02 * h),
        ],
        top,
    )
    if broad > 0.7:  # a shaded half gives the body roundness
        b.flat(
            [(dx, shoulder), (dx + half_s * 0.9, shoulder - 0.02 * h), (half_w * 0.95, 0.64 * h), (half_h, low), (0, low)],
            shade(top, 0.86),
        )
    if dice.chance(0.25):
        bag = dice.vary(dice.pick(CLOTHES), 0.3)
        if broad > 0.6 and cos > 0:
            b.flat([(-half_w, 0.78 * h), (half_w, 0.78 * h), (half_w * 0.95, 0.56 * h), (-half_w * 0.95, 0.56 * h)], bag)
        elif broad <= 0.6:
            back = -1 if sin > 0 else 1
            x = back * half_s
            b.flat([(x * 0.7, 0.79 * h), (x * 1.9, 0.76 * h), (x * 1.9, 0.57 * h), (x * 0.7, 0.55 * h)], bag)
    _paint_limbs(b, near_arms, heading)
    head = 0.925 * h if not child else 0.9 * h
    r = 0.066 * h if not child else 0.085 * h
    b.flat([(dx - 0.03 * h, neck), (dx + 0.03 * h, neck), (dx + 0.03 * h, shoulder), (dx - 0.03 * h, shoulder)], shade(skin, 0.85))
    _head(b, dx, head, r, cos, sin, skin, hair, dice.chance(0.4), None)
    return b.build(), h


def _head(
    b: Builder, x: float, y: float, r: float, cos: float, sin: float, skin: Color, hair: Color, long: bool, helmet: Color | None
) -> None:
    """A head with hair or a helmet; the face shows where it looks at the camera."""
    if helmet is not None:
        b.flat([(x + r * 1.15 * c, y + r * 1.2 * s) for c, s in RING], helmet)
        if cos < 0.5:
            b.flat([(x + sin * r * 0.45 + r * 0.7 * c, y - r * 0.15 + r * 0.5 * s) for c, s in RING], shade(skin, 0.9))
        return
    length = 1.5 if long else 1.0
    b.flat([(x - sin * r * 0.15 + r * c, y + r * 1.12 * (s if s > 0 else s * length)) for c, s in RING], hair)
    if cos < 0.6:
        b.flat([(x + sin * r * 0.3 + r * 0.82 * c, y - r * 0.18 + r * 0.95 * s) for c, s in RING], skin)


def _wheel(b: Builder, x: float, r: float, foreshortening: float, tyre: Color, inside: Color, thick: float) -> None:
    """A wheel whose middle is at x on the screen's axis, in metres."""
    half = max(r * abs(foreshortening), thick)
    b.flat([(x + half * c, r + r * s) for c, s in RING], tyre)
    rim = r - 1.6 * thick
    half = max(half - 1.6 * thick, 0.0)
    if half > 0.03:
        b.flat([(x + half * c, r + rim * s) for c, s in RING], inside)
        b.flat([(x + 0.04 * c, r + 0.05 * s) for c, s in RING[::2]], shade(tyre, 1.6))


def bicycle(dice: Dice, heading: float) -> Mesh:
    """A bicycle, standing with its middle at the origin."""
    paint = dice.vary(dice.pick(CLOTHES), 0.25)
    cos, sin = turn(heading)
    b = Builder()
    gray = dice.between(96, 124)
    for z in (0.52, -0.52) if cos > 0 else (-0.52, 0.52):
        _wheel(b, z * sin, 0.345, sin, (26, 26, 28), (gray, gray * 0.98, gray * 0.96), 0.034)
    crank, seat, head, rear, front = (0.0, 0.0, 0.3), (-0.17, 0.0, 0.78), (0.36, 0.0, 0.82), (-0.52, 0, 0.345), (0.52, 0, 0.345)
    bar = (0.36, 0.0, 1.0)
    tube = 0.024
    limbs: list[Limb] = [
        (crank, seat, tube, tube, paint),
        (seat, head, tube, tube, paint),
        (crank, head, tube, tube, paint),
        (rear, crank, tube * 0.8, tube * 0.8, paint),
        (rear, seat, tube * 0.8, tube * 0.8, paint),
        (head, front, tube, tube * 0.8, paint),
        (seat, (-0.2, 0, 0.92), tube, tube, (60, 60, 62)),
        ((-0.32, 0, 0.94), (-0.08, 0, 0.93), 0.05, 0.03, (24, 22, 22)),
        (head, bar, tube, tube, (70, 70, 72)),
        (bar, (0.3, 0.29, 1.02), 0.022, 0.026, (40, 40, 42)),
        (bar, (0.3, -0.29, 1.02), 0.022, 0.026, (40, 40, 42)),
    ]
    if dice.chance(0.35):
        limbs.append(((0.5, 0.12, 0.85), (0.5, -0.12, 0.85), 0.11, 0.11, dice.vary((134, 100, 64), 0.2)))
    if dice.chance(0.6):
        limbs.append(((-0.7, 0, 0.66), (-0.3, 0, 0.7), 0.025, 0.025, (40, 40, 42)))
    _paint_limbs(b, limbs, heading)
    return b.build()


def motorcycle(dice: Dice, heading: float, night: bool) -> Mesh:
    """A motorcycle or a scooter, standing with its middle at the origin."""
    paint = dice.vary(dice.pick(CLOTHES), 0.25)
    scooter = dice.chance(0.4)
    cos, sin = turn(heading)
    b = Builder()
    r, base = (0.24, 0.6) if scooter else (0.32, 0.72)
    for z in (base, -base) if cos > 0 else (-base, base):
        _wheel(b, z * sin, r, sin, (22, 22, 24), (84, 86, 90), 0.075)
    dark, steel = (34, 34, 38), (120, 122, 126)
    if scooter:
        limbs: list[Limb] = [
            ((-0.55, 0, 0.52), (-0.2, 0, 0.5), 0.2, 0.2, paint),
            ((-0.3, 0, 0.3), (0.35, 0, 0.26), 0.1, 0.08, shade(paint, 0.8)),
            ((0.4, 0, 0.35), (0.44, 0, 0.85), 0.15, 0.13, paint),
            ((-0.55, 0, 0.77), (-0.05, 0, 0.77), 0.08, 0.08, (38, 30, 28)),
            ((0.45, 0, 0.6), (base, 0, r), 0.05, 0.04, steel),
        ]
        bar = (0.4, 0.0, 1.02)
    else:
        limbs = [
            ((-0.2, 0, 0.42), (0.25, 0, 0.42), 0.17, 0.17, dark),
            ((-0.7, 0, 0.78), (-0.2, 0, 0.76), 0.08, 0.1, (26, 24, 24)),
            ((-0.05, 0, 0.84), (0.3, 0, 0.86), 0.14, 0.16, paint),
            ((-0.65, 0, 0.66), (-0.3, 0, 0.6), 0.08, 0.12, paint),
            ((0.38, 0, 0.84), (base, 0, r), 0.06, 0.05, steel),
            ((0.1, 0.14, 0.3), (-0.7, 0.16, 0.34), 0.04, 0.065, steel),
            ((-base, 0.0, r), (-0.1, 0.0, 0.38), 0.05, 0.06, dark),
            ((0.45, 0, 0.85), (0.52, 0, 0.95), 0.16, 0.13, shade(paint, 0.9)),
        ]
        bar = (0.34, 0.0, 1.06)
    limbs.append((bar, (0.3, 0.34, 1.08), 0.028, 0.034, dark))
    limbs.append((bar, (0.3, -0.34, 1.08), 0.028, 0.034, dark))
    _paint_limbs(b, limbs, heading)
    lamp, glow = ((255, 246, 220), 1.0) if cos < 0 else ((200, 24, 24), 0.9 if night else 0.3)
    if abs(cos) > 0.3:
        x, y = (0.56 * sin, 0.92) if cos < 0 else (-0.8 * sin, 0.72)
        b.flat([(x + 0.085 * c, y + 0.085 * s) for c, s in RING[::2]], (*lamp, glow))
    return b.build()


def rider(dice: Dice, heading: float, motor: bool) -> Mesh:
    """Somebody on a bicycle or a motorcycle whose middle is at the origin."""
    skin, hair = dice.vary(dice.pick(SKIN), 0.12), dice.vary(dice.pick(HAIR), 0.2)
    top, trousers = dice.vary(dice.pick(CLOTHES), 0.25), dice.vary(dice.pick(TROUSERS), 0.25)
    cos, sin = turn(heading)
    size = dice.between(0.94, 1.06)
    if motor:
        hip, shoulder, hand, seat_knee, foot = -0.3, 0.0, 0.32, (0.16, 0.66), (0.02, 0.34)
        hip_y, shoulder_y, hand_y = 0.92, 1.38 * size, 1.1
    else:
        hip, shoulder, hand, seat_knee, foot = -0.18, 0.1, 0.32, (0.2, 0.72), (0.04, 0.24)
        hip_y, shoulder_y, hand_y = 0.98, 1.46 * size, 1.05
    b = Builder()
    legs: list[list[Limb]] = []
    arms: list[list[Limb]] = []
    stroke = dice.pick((-1, 1)) * (0.0 if motor else 0.13)
    for side in (-1, 1):
        lift = side * stroke
        knee = (seat_knee[0] + abs(lift) * 0.3, side * (0.2 if motor else 0.11), seat_knee[1] + lift * 0.7)
        toe = (foot[0], side * (0.2 if motor else 0.12), foot[1] + lift)
        legs.append(
            [
                ((toe[0] - 0.05, toe[1], toe[2]), (toe[0] + 0.15, toe[1], toe[2] - 0.03), 0.045, 0.04, (34, 32, 32)),
                (knee, toe, 0.062, 0.045, trousers),
                ((hip, side * 0.08, hip_y), knee, 0.1, 0.068, shade(trousers, 1.08)),
            ]
        )
        elbow = ((shoulder + hand) / 2 - 0.02, side * 0.27, (shoulder_y + hand_y) / 2 - 0.06)
        arms.append(
            [
                ((shoulder, side * 0.18, shoulder_y - 0.03), elbow, 0.06, 0.05, shade(top, 0.88)),
                (elbow, (hand, side * 0.28, hand_y), 0.048, 0.04, shade(top, 0.94)),
                ((hand, side * 0.28, hand_y), (hand, side * 0.28, hand_y), 0.045, 0.045, skin),
            ]
        )
    near = 1 if sin > 0 else 0  # index of the side that lies towards the camera
    broad = abs(cos)
    far = 1 - near
    _paint_limbs(b, legs[far] + (arms[far] if broad < 0.8 else []), heading)
    if cos > 0:
        _paint_limbs(b, legs[near], heading)
    bottom, upper = (hip * sin, hip_y), (shoulder * sin, shoulder_y)
    wide, waist = 0.12 + 0.11 * broad, 0.11 + 0.06 * broad
    b.flat(
        [
            (upper[0] - wide * 0.6, upper[1] + 0.05),
            (upper[0] + wide * 0.6, upper[1] + 0.05),
            (upper[0] + wide, upper[1] - 0.04),
            (bottom[0] + waist, bottom[1] + 0.05),
            (bottom[0] + waist * 0.9, bottom[1] - 0.08),
            (bottom[0] - waist * 0.9, bottom[1] - 0.08),
            (bottom[0] - waist, bottom[1] + 0.05),
            (upper[0] - wide, upper[1] - 0.04),
        ],
        top,
    )
    if dice.chance(0.3) and cos > -0.3:
        bag = dice.vary(dice.pick(CLOTHES), 0.3)
        x = (upper[0] + bottom[0]) / 2 - 0.16 * sin
        b.flat([(x - 0.15, upper[1] - 0.03), (x + 0.15, upper[1] - 0.03), (x + 0.14, bottom[1] + 0.1), (x - 0.16, bottom[1] + 0.1)], bag)
    if cos <= 0:
        _paint_limbs(b, legs[near], heading)
    _paint_limbs(b, arms[near] + (arms[far] if broad >= 0.8 else []), heading)
    r = 0.115
    x, y = (shoulder + 0.07) * sin, shoulder_y + 0.2
    helmet = dice.vary(dice.pick(CLOTHES), 0.2) if motor or dice.chance(0.45) else None
    _head(b, x, y, r, cos, sin, skin, hair, dice.chance(0.3), helmet)
    return b.build()
