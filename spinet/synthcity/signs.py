"""Traffic lights and traffic signs of SynthCity; the origin is the foot of their pole."""

from __future__ import annotations

from spinet.synthcity.dice import Color, Dice, circle, turn
from spinet.synthcity.mesh import Builder, Mesh


def traffic_light(dice: Dice, x: float, y: float, back: bool = False) -> Mesh:
    """A traffic light with its centre at (x, y); `back` shows its rear side."""
    b = Builder()
    if dice.chance(0.4):
        b.flat([(x - 0.3, y + 0.66), (x + 0.3, y + 0.66), (x + 0.3, y - 0.66), (x - 0.3, y - 0.66)], (222, 222, 216))
    b.flat([(x - 0.2, y + 0.56), (x + 0.2, y + 0.56), (x + 0.2, y - 0.56), (x - 0.2, y - 0.56)], (28, 32, 30))
    if back:
        return b.build()
    on = dice.weighted({0: 4, 1: 1, 2: 4})
    lamps = (((255, 46, 36), (84, 26, 24)), ((255, 190, 40), (84, 66, 24)), ((54, 250, 150), (22, 70, 52)))
    for i, (bright, dark) in enumerate(lamps):
        middle = y + 0.36 * (1 - i)
        b.flat([(x + 0.14 * c, middle + 0.14 * s) for c, s in _LAMP], (*bright, 1.0) if i == on else dark)
    return b.build()


_LAMP: list[tuple[float, float]] = [(float(c), float(s)) for c, s in circle(10)]
_OCTAGON = [turn(-(i + 0.5) * 0.78539816) for i in range(8)]
RED, WHITE, BLUE, YELLOW, GREEN = (196, 24, 30), (236, 236, 232), (24, 82, 168), (240, 196, 30), (20, 110, 70)


def sign(dice: Dice, y: float) -> Mesh:
    """A traffic sign, sometimes two, with the centre at the height y."""
    b = Builder()
    for i in range(1 if dice.chance(0.75) else 2):
        _plate(dice, b, y - 0.72 * i)
    return b.build()


def _plate(dice: Dice, b: Builder, y: float) -> None:
    kind = dice.weighted(
        {"limit": 3, "ban": 1, "warning": 2, "order": 2, "priority": 2, "stop": 1, "yield": 1, "park": 2, "name": 1}
    )
    if dice.chance(0.2):
        kind = "back"

    def disc(r: float, color: Color, shape: list = _LAMP) -> None:
        b.flat([(r * c, y + r * s) for c, s in shape], (*color, 0.12))

    def box(w: float, h: float, color: Color, dx: float = 0.0, dy: float = 0.0) -> None:
        b.flat([(dx - w, y + dy + h), (dx + w, y + dy + h), (dx + w, y + dy - h), (dx - w, y + dy - h)], (*color, 0.12))

    def triangle(r: float, color: Color, up: int) -> None:
        b.flat([(0, y + up * r), (r * 0.9, y - up * 0.6 * r), (-r * 0.9, y - up * 0.6 * r)], (*color, 0.12))

    if kind == "limit":
        disc(0.34, RED)
        disc(0.25, WHITE)
        box(0.05, 0.11, (30, 30, 30), -0.08)
        box(0.05, 0.11, (30, 30, 30), 0.08)
    elif kind == "ban":
        disc(0.34, RED)
        box(0.22, 0.06, WHITE)
    elif kind == "warning":
        triangle(0.42, RED, 1)
        triangle(0.26, WHITE, 1)
    elif kind == "yield":
        triangle(0.42, RED, -1)
        triangle(0.26, WHITE, -1)
    elif kind == "order":
        disc(0.34, BLUE)
        b.flat(
            [
                (-0.04, y - 0.2),
                (0.04, y - 0.2),
                (0.04, y + 0.06),
                (0.14, y + 0.06),
                (0, y + 0.22),
                (-0.14, y + 0.06),
                (-0.04, y + 0.06),
            ],
            (*WHITE, 0.12),
        )
    elif kind == "priority":
        b.flat([(0, y + 0.4), (0.4, y), (0, y - 0.4), (-0.4, y)], (*WHITE, 0.12))
        b.flat([(0, y + 0.28), (0.28, y), (0, y - 0.28), (-0.28, y)], (*YELLOW, 0.12))
    elif kind == "stop":
        disc(0.38, RED, _OCTAGON)
        box(0.24, 0.07, WHITE)
    elif kind == "park":
        box(0.32, 0.32, BLUE)
        box(0.05, 0.2, WHITE, -0.06)
        box(0.1, 0.1, WHITE, 0.05, 0.08)
    elif kind == "name":
        box(0.7, 0.26, dice.pick((BLUE, GREEN, YELLOW)))
        box(0.5, 0.05, WHITE, 0, 0.08)
        box(0.4, 0.05, WHITE, 0, -0.08)
    else:
        disc(0.34, (126, 128, 130))


def gantry(dice: Dice, x: float, y: float) -> Mesh:
    """A large direction board with its centre at (x, y)."""
    b = Builder()
    w, h = dice.between(1.2, 1.8), dice.between(0.55, 0.8)
    for grow, color in ((0.07, WHITE), (0.0, dice.pick((BLUE, GREEN)))):
        b.flat(
            [
                (x - w - grow, y + h + grow),
                (x + w + grow, y + h + grow),
                (x + w + grow, y - h - grow),
                (x - w - grow, y - h - grow),
            ],
            (*color, 0.1),
        )
    for k in range(3):
        top = y + h * (0.7 - 0.55 * k)
        right = x + w * dice.between(0.0, 0.7)
        b.flat([(x - w * 0.85, top), (right, top), (right, top - 0.17), (x - w * 0.85, top - 0.17)], (*WHITE, 0.1))
    return b.build()
