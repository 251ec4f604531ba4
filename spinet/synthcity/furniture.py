"""Street furniture of SynthCity: poles, lamps, bridges, and objects that Cityscapes does not evaluate."""

from __future__ import annotations

from spinet.synthcity.dice import Color, Dice, circle
from spinet.synthcity.mesh import NOWHERE, Builder, Mesh, shade
from spinet.synthcity.plants import LEAF

RIM = [(float(c), float(s)) for c, s in circle(10)]
PAINT: tuple[Color, ...] = ((176, 34, 38), (34, 84, 60), (36, 66, 124), (214, 196, 152), (60, 60, 64), (206, 120, 36))


def pole(height: float, radius: float, color: Color, arm: float = 0.0, at: float = 0.0) -> Mesh:
    """A pole; `arm` is the length of its beam to the right (left if negative) at the height `at`."""
    b = Builder()
    b.flat([(-radius, height), (radius, height), (radius * 1.3, 0), (-radius * 1.3, 0)], color)
    b.flat([(0, height), (radius, height), (radius * 1.3, 0), (0.2 * radius, 0)], shade(color, 0.7))
    if arm:
        b.flat([(0, at), (arm, at + 0.08), (arm, at - 0.04), (0, at - 0.16)], shade(color, 0.92))
    return b.build()


def lamp_head(arm: float, at: float, night: bool) -> Mesh:
    """The lantern at the end of a lamp post's arm."""
    b = Builder()
    side = 1 if arm > 0 else -1
    x0, x1 = arm - side * 0.15, arm + side * 0.65
    b.flat([(x0, at + 0.12), (x1, at + 0.08), (x1, at - 0.06), (x0, at - 0.06)], (92, 94, 98))
    b.flat(
        [(x0, at - 0.05), (x1, at - 0.05), (x1, at - 0.13), (x0, at - 0.13)],
        (255, 230, 170, 1.0) if night else (214, 214, 206),
    )
    return b.build()


def clutter(dice: Dice) -> Mesh:
    """Street furniture that Cityscapes does not evaluate: a bin, a bench, a planter, a cabinet."""
    b = Builder()
    kind = dice.pick(("bin", "bench", "planter", "cabinet"))
    if kind == "bin":
        b.box(
            (-0.28, 0.28),
            (0, 0.95),
            (-0.28, 0.28),
            dice.vary(dice.pick(((60, 70, 64), (196, 110, 30), (60, 62, 66))), 0.2),
        )
        b.box((-0.32, 0.32), (0.95, 1.05), (-0.32, 0.32), (40, 42, 42))
    elif kind == "bench":
        wood = dice.vary((122, 84, 54), 0.2)
        b.box((-0.25, 0.25), (0.38, 0.46), (-0.9, 0.9), wood)
        b.box((-0.25, 0.25), (0.0, 0.38), (-0.8, -0.7), (50, 50, 52))
        b.box((-0.25, 0.25), (0.0, 0.38), (0.7, 0.8), (50, 50, 52))
        b.box((0.2, 0.27), (0.5, 0.9), (-0.9, 0.9), wood)
    elif kind == "planter":
        b.box((-0.5, 0.5), (0, 0.55), (-0.5, 0.5), dice.vary((150, 142, 132), 0.2))
        b.flat(
            [(-0.45, 0.55), (-0.5, 0.8), (-0.2, 0.95), (0.1, 0.85), (0.3, 1.0), (0.5, 0.75), (0.45, 0.55)],
            dice.vary(dice.pick(LEAF), 0.2),
        )
    else:
        b.box((-0.3, 0.3), (0, 1.25), (-0.5, 0.5), dice.vary((136, 140, 132), 0.15))
    return b.build()


def luggage(dice: Dice) -> Mesh:
    """A movable object: a suitcase, a pram, a dog (Cityscapes: dynamic)."""
    b = Builder()
    color = dice.vary(dice.pick(PAINT), 0.3)
    kind = dice.pick(("case", "pram", "dog"))
    if kind == "case":
        b.box((-0.2, 0.2), (0.08, 0.65), (-0.13, 0.13), color)
        b.flat([(-0.1, 0.65), (-0.1, 0.95), (0.1, 0.95), (0.1, 0.65)], (50, 50, 52))
    elif kind == "pram":
        b.flat([(-0.4, 0.45), (-0.42, 0.95), (-0.1, 1.05), (0.05, 0.75), (0.4, 0.72), (0.38, 0.45)], color)
        for x in (-0.3, 0.32):
            b.flat([(x + 0.13 * c, 0.14 + 0.13 * s) for c, s in RIM], (40, 40, 42))
    else:
        fur = dice.vary((110, 84, 58), 0.4)
        b.flat(
            [(-0.4, 0.32), (-0.4, 0.58), (0.3, 0.6), (0.4, 0.78), (0.62, 0.7), (0.6, 0.6), (0.4, 0.5), (0.32, 0.3)], fur
        )
        for x in (-0.36, -0.24, 0.18, 0.28):
            b.flat([(x - 0.04, 0.34), (x + 0.04, 0.34), (x + 0.03, 0), (x - 0.03, 0)], shade(fur, 0.8))
    return b.build()


def bridge(dice: Dice, half: float, y: float, thick: float) -> Mesh:
    """A bridge across the street (Cityscapes: bridge, not evaluated)."""
    b = Builder()
    color = dice.vary((140, 138, 132), 0.12)
    b.box((-half, half), (y, y + thick), (-4, 4), color)
    b.polygon([(-half, y, -4), (half, y, -4), (half, y, 4), (-half, y, 4)], shade(color, 0.45))
    b.polygon(
        [(-half, y + thick + 0.9, -4), (half, y + thick + 0.9, -4), (half, y + thick, -4), (-half, y + thick, -4)],
        shade(color, 0.75),
        NOWHERE,
    )
    return b.build()
