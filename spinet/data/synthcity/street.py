"""What stands along the streets of SynthCity: buildings, walls, fences, plants, lamps, lights and signs.

Facades, walls and fences are made where they stand, in the street's own axes; the rest around its foot.
"""

from __future__ import annotations

import numpy as np

from spinet.data.synthcity.dice import Color, Dice, circle, turn
from spinet.data.synthcity.mesh import NOWHERE, UP, Builder, Mesh, shade

PLASTER: tuple[Color, ...] = (
    (206, 190, 160),
    (222, 212, 192),
    (190, 170, 146),
    (176, 132, 104),
    (158, 88, 70),
    (140, 72, 60),
    (198, 158, 112),
    (164, 164, 160),
    (132, 136, 140),
    (214, 196, 140),
    (178, 186, 178),
    (150, 160, 174),
    (226, 222, 214),
    (120, 104, 92),
)
ROOF: tuple[Color, ...] = ((128, 66, 52), (98, 58, 50), (74, 72, 76), (92, 92, 98), (60, 56, 56))
AWNING: tuple[Color, ...] = ((176, 34, 38), (34, 84, 60), (36, 66, 124), (214, 196, 152), (60, 60, 64), (206, 120, 36))
LEAF: tuple[Color, ...] = ((62, 96, 40), (78, 110, 46), (50, 84, 44), (96, 118, 52), (70, 102, 62))
AUTUMN: tuple[Color, ...] = ((176, 116, 40), (156, 82, 36), (190, 150, 56), (110, 112, 46))


def _on_street(x: float, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Rectangles [m, 4, 3] on the plane x, from their [m, 2] heights and [m, 2] depths."""
    corners = np.empty((len(y), 4, 3))
    corners[..., 0] = x
    corners[:, :, 1] = y[:, [1, 1, 0, 0]]
    corners[:, :, 2] = z[:, [0, 1, 1, 0]]
    return corners


def _rows(rows: np.ndarray, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights and depths of rectangles that share a column of a facade."""
    return rows, np.broadcast_to(np.array([start, end]), rows.shape)


def building(dice: Dice, x: float, outward: int, z0: float, z1: float, night: bool, tall: float) -> tuple[Mesh, float]:
    """A building whose front lies on the plane x between z0 and z1 (m); `outward` is the side away from the street.

    Returns its mesh and its height in metres.
    """
    b = Builder()
    style = dice.weighted({"plain": 5, "classic": 3, "office": 2, "glass": 1})
    wall = dice.vary(dice.pick(PLASTER), 0.16) if style != "glass" else dice.vary((112, 130, 146), 0.15)
    storey = dice.between(2.9, 3.6)
    floors = max(1, round(dice.between(0.6, 1.4) * tall))
    ground = storey * dice.between(1.05, 1.3)
    height = ground + floors * storey + 0.4
    street = (-float(outward), 0.0, 0.0)
    facing = (0.0, 0.0, -1.0)
    deep = 11.0
    far = x + outward * deep
    b.polygon([(x, height, z0), (far, height, z0), (far, 0, z0), (x, 0, z0)], shade(wall, 0.95), facing)
    roof = style in ("plain", "classic") and dice.chance(0.7)
    if roof:
        tile, rise = dice.vary(dice.pick(ROOF), 0.15), dice.between(1.6, 3.4)
        ridge = x + outward * 4
        b.polygon(
            [(x - outward * 0.3, height, z0), (ridge, height + rise, z0), (ridge, height + rise, z1), (x - outward * 0.3, height, z1)],
            tile,
            (-outward * 0.6, 0.8, 0.0),
        )
        b.polygon([(x, height, z0), (ridge, height + rise, z0), (far, height, z0)], shade(wall, 0.9), facing)
    columns = max(2, round((z1 - z0) / dice.between(2.4, 3.4)))
    edges = [z0 + (z1 - z0) * i / columns for i in range(columns + 1)]
    pitch = (z1 - z0) / columns
    margin = pitch * (dice.between(0.2, 0.32) if style in ("plain", "classic") else dice.between(0.02, 0.1))
    sill = storey * (dice.between(0.22, 0.34) if style != "glass" else 0.08)
    lintel = storey * (dice.between(0.1, 0.2) if style != "glass" else 0.06)
    base = ground + storey * np.arange(floors)
    rows = np.stack([base + sill, base + storey - lintel], axis=1)
    glass = dice.vary((62, 72, 84) if style != "glass" else (96, 124, 150), 0.3)
    frame = shade(wall, 1.22) if dice.chance(0.6) else dice.vary((222, 220, 214), 0.1)
    lit = (255, 214, 140, 0.85)
    near = z0 < 45
    proud = x - outward * 0.03
    sun_blind = dice.vary(dice.pick(PLASTER), 0.3)
    for i in range(columns):
        a, c = edges[i], edges[i + 1]
        b.quads(_on_street(x, np.array([[0.0, height]]), np.array([[a, c]])), wall, street)
        if style == "classic" and near:
            grown = rows + np.array([[-0.16, 0.22]])
            b.quads(_on_street(x, *_rows(grown, a + margin - 0.14, c - margin + 0.14)), frame, street)
        elif near:
            b.quads(_on_street(x, *_rows(rows + [[-0.1, 0.06]], a + margin - 0.07, c - margin + 0.07)), frame, street)
        bright = dice.units(floors) < (0.42 if night else 0.02)
        b.quads(_on_street(proud, *_rows(rows[~bright], a + margin, c - margin)), (*glass, 0.12), street)
        b.quads(_on_street(proud, *_rows(rows[bright], a + margin, c - margin)), lit, street)
        if near and style != "glass":
            drawn = dice.units(floors) < 0.3
            blinds = rows[drawn] * [[0.45, 0.0]] + rows[drawn][:, [1]] * [[0.55, 1.0]]
            b.quads(_on_street(proud, *_rows(blinds, a + margin, c - margin)), sun_blind, street)
            if style == "plain":
                middle = (a + c) / 2
                b.quads(_on_street(proud, *_rows(rows, middle - 0.05, middle + 0.05)), frame, street)
    _ground_floor(dice, b, x, outward, edges, ground, wall, night)
    band = np.array([[height - 0.45, height]]) if style != "glass" else np.array([[height - 0.2, height]])
    span = np.array([[z0, z1]])
    b.quads(_on_street(x - outward * 0.2, band, span), shade(wall, 1.15), street)
    b.quads(_on_street(x - outward * 0.1, np.array([[ground - 0.12, ground + 0.12]]), span), shade(wall, 0.8), street)
    for i in range(2):  # windows of the end that looks at the camera
        left = x + outward * (1.5 + 3.2 * i)
        right = left + outward * 1.3
        corners = np.empty((floors, 4, 3))
        corners[..., 2] = z0 - 0.02
        corners[..., 0] = [left, right, right, left]
        corners[..., 1] = rows[:, [1, 1, 0, 0]]
        b.quads(corners, (*glass, 0.12) if not night or i else lit, facing)
    if roof and dice.chance(0.6):
        z = dice.between(z0 + 1, z1 - 1)
        cx = x + outward * 2.4
        b.box((min(cx, cx + outward), max(cx, cx + outward)), (height, height + 3.2), (z, z + 0.8), (126, 82, 66))
    return b.build(), height


def _ground_floor(
    dice: Dice, b: Builder, x: float, outward: int, edges: list[float], ground: float, wall: Color, night: bool
) -> None:
    """Doors, shop windows with awnings and signs."""
    street = (-float(outward), 0.0, 0.0)
    shop = dice.chance(0.5)
    out = x - outward * 0.04
    awning = dice.vary(dice.pick(AWNING), 0.15)
    pane = (250, 224, 170, 0.8) if night and shop else (*dice.vary((54, 62, 70), 0.3), 0.15)
    for i, (a, c) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        m = (c - a) * 0.12
        if shop:
            if i % 3 == 0:
                awning = dice.vary(dice.pick(AWNING), 0.2)
            b.quads(_on_street(out, np.array([[0.45, ground - 0.95]]), np.array([[a + m, c - m]])), pane, street)
            b.quads(_on_street(out, np.array([[ground - 0.9, ground - 0.3]]), np.array([[a, c]])), (*awning, 0.1), street)
            if i % 2:
                b.polygon(
                    [(x, ground - 0.9, a + m), (x - outward * 1.2, ground - 1.4, a + m), (x - outward * 1.2, ground - 1.4, c - m), (x, ground - 0.9, c - m)],
                    awning,
                    (-outward * 0.4, 0.9, 0.0),
                )
        elif i % 3 == 1:
            middle = (a + c) / 2
            b.quads(
                _on_street(out, np.array([[0.0, 2.3]]), np.array([[middle - 0.6, middle + 0.6]])),
                dice.vary((86, 60, 44), 0.4),
                street,
            )
        else:
            b.quads(_on_street(out, np.array([[1.0, ground - 0.7]]), np.array([[a + 2 * m, c - 2 * m]])), pane, street)
    b.quads(_on_street(out, np.array([[0.0, 0.4]]), np.array([[edges[0], edges[-1]]])), shade(wall, 0.7), street)


def wall(dice: Dice, x: float, outward: int, z0: float, z1: float, look: tuple[str, float, Color]) -> Mesh:
    """A free-standing wall along the street; `look` is its kind ("brick" or "concrete"), height (m) and colour."""
    kind, height, color = look
    b = Builder()
    street = (-float(outward), 0.0, 0.0)
    span = np.array([[z0, z1]])
    b.polygon([(x, height, z0), (x + outward * 0.4, height, z0), (x + outward * 0.4, 0, z0), (x, 0, z0)], color, (0, 0, -1))
    b.quads(_on_street(x, np.array([[0.0, height]]), span), color, street)
    if z0 < 40:
        if kind == "brick":
            low = np.arange(0.12, height - 0.1, 0.24)[:, None]
            b.quads(_on_street(x, low + [[0.0, 0.035]], np.repeat(span, len(low), 0)), shade(color, 1.25), street)
        else:
            at = np.arange(z0 + 0.5, z1, 2.0)[:, None]
            rows = np.repeat(np.array([[0.0, height]]), len(at), 0)
            b.quads(_on_street(x, rows, at + [[0.0, 0.06]]), shade(color, 0.7), street)
            if dice.chance(0.35):
                z, w = dice.between(z0, z1 - 2.5), dice.between(1.2, 2.4)
                scrawl = dice.vary(dice.pick(AWNING), 0.3)
                for k in range(4):
                    y, s = 0.5 + 0.2 * dice.unit(), z + w * k / 4
                    b.polygon([(x, y, s), (x, y + 0.7, s + 0.1), (x, y + 0.6, s + 0.4), (x, y + 0.1, s + 0.5)], scrawl)
    b.quads(_on_street(x - outward * 0.05, np.array([[height - 0.14, height]]), span), shade(color, 1.18), street)
    return b.build()


def fence(dice: Dice, x: float, outward: int, z0: float, z1: float, look: tuple[str, float, Color]) -> Mesh:
    """A fence along the street; `look` is its kind ("picket", "rail" or "mesh"), height (m) and colour."""
    kind, height, color = look
    b = Builder()
    street = (-float(outward), 0.0, 0.0)
    back = {"picket": shade(color, 0.5), "rail": (74, 82, 66), "mesh": (88, 98, 84)}[kind]
    span = np.array([[z0, z1]])
    b.quads(_on_street(x, np.array([[0.05, height * 0.96]]), span), back, street)
    step, thick = {"picket": (0.3, 0.2), "rail": (0.28, 0.07), "mesh": (2.0, 0.08)}[kind]
    if z0 > 30:
        step, thick = step * 2, thick * 2
    at = np.arange(z0, z1 - thick, step)[:, None]
    rows = np.repeat(np.array([[0.0, height]]), len(at), 0)
    b.quads(_on_street(x, rows, at + [[0.0, thick]]), color, street)
    shares = (0.25, 0.8) if kind != "mesh" else (0.1, 0.3, 0.5, 0.7, 0.92)
    width = 0.09 if kind != "mesh" else 0.04
    low = height * np.array(shares)[:, None]
    b.quads(_on_street(x - outward * 0.03, low + [[0.0, width]], np.repeat(span, len(low), 0)), shade(color, 0.85), street)
    return b.build()


def hedge(dice: Dice, x: float, outward: int, z0: float, z1: float, height: float, leaf: Color) -> Mesh:
    """A clipped hedge along the street."""
    b = Builder()
    street = (-float(outward), 0.0, 0.0)
    steps = np.linspace(z0, z1, max(3, int((z1 - z0) / 0.6)))
    tops = height * (0.9 + 0.2 * dice.units(len(steps)))
    inner = [(x + outward * 0.7, float(t) * 1.04, float(z)) for z, t in zip(steps, tops, strict=True)]
    front = [(x, float(t), float(z)) for z, t in zip(steps, tops, strict=True)]
    b.polygon([*inner, *front[::-1]], shade(leaf, 1.2), UP)
    b.polygon([*front, (x, 0, z1), (x, 0, z0)], leaf, street)
    b.polygon([(x, float(tops[0]), z0), (x + outward * 0.9, float(tops[0]), z0), (x + outward * 0.9, 0, z0), (x, 0, z0)], shade(leaf, 0.9), (0, 0, -1))
    return b.build()


def _blob(dice: Dice, b: Builder, x: float, y: float, rx: float, ry: float, color: Color, depth: float = 0.0) -> None:
    """A clump of leaves with a ragged outline."""
    reach = (0.84 + 0.32 * dice.units(len(_LEAVES)))[:, None]
    outline = np.zeros((len(_LEAVES), 3))
    outline[:, :2] = _LEAVES * reach * [[rx, ry]] + [[x, y]]
    outline[:, 2] = depth
    b.polygon(outline, color)


_LEAVES = circle(20)


def tree(dice: Dice, leaf: Color, detailed: bool) -> tuple[Mesh, float, float, float]:
    """A tree: its mesh, total height, height of the crown's foot and radius of the crown, in metres."""
    b = Builder()
    kind = dice.weighted({"round": 6, "tall": 2, "conifer": 1.5})
    bark = dice.vary((84, 66, 50), 0.25)
    height = dice.between(5.0, 10.5)
    trunk = 0.14 + 0.014 * height
    if kind == "conifer":
        foot, radius = 0.1 * height, 0.2 * height
        b.flat([(-trunk, 0), (-trunk, foot + 1), (trunk, foot + 1), (trunk, 0)], bark)
        layers = 6 if detailed else 4
        green = shade(leaf, 0.72)
        for i in range(layers):
            y = foot + (height - foot) * i / layers * 0.9
            w = radius * (1 - i / layers) + 0.15
            tip = min(height, y + (height - foot) / layers * 2.2)
            ragged = [(-w + 2 * w * k / 8, y + (0.0 if k % 2 else 0.35 * dice.unit())) for k in range(9)]
            b.flat([*ragged, (0, tip)], shade(green, 0.8 + 0.32 * i / layers))
        return b.build(), height, foot, radius
    foot = height * (0.28 if kind == "round" else 0.16)
    radius = height * (dice.between(0.26, 0.36) if kind == "round" else dice.between(0.13, 0.18))
    lean = dice.between(-0.3, 0.3)
    b.flat([(-trunk, 0), (lean - trunk * 0.6, foot + 1.5), (lean + trunk * 0.6, foot + 1.5), (trunk, 0)], bark)
    b.flat([(0, 0), (lean, foot + 1.5), (lean + trunk * 0.6, foot + 1.5), (trunk, 0)], shade(bark, 0.75))
    middle, half = (height + foot) / 2, (height - foot) / 2
    count = 13 if detailed else 7
    _blob(dice, b, lean, middle - 0.1 * half, radius * 0.86, half * 0.86, shade(leaf, 0.72))
    for i in range(count):  # clumps on a spiral from the foot, dark, to the top, light
        cos, sin = turn(2.4 * i)
        share = (i + 0.5) / count
        r = (1 - (2 * share - 1) ** 2) ** 0.5 * 0.62 + 0.06
        x, y = lean + radius * r * cos, middle + half * (1.5 * share - 0.75) + 0.1 * half * sin
        size = radius * dice.between(0.34, 0.5)
        gain = 0.74 + 0.42 * share - 0.1 * (cos + 0.4) + dice.between(-0.06, 0.06)
        _blob(dice, b, x, y, size, size * half / radius * (0.8 if kind == "round" else 0.55), shade(leaf, gain))
    return b.build(), height, foot, radius


def bush(dice: Dice, leaf: Color) -> tuple[Mesh, float]:
    """A bush, and its radius in metres."""
    b = Builder()
    r = dice.between(0.5, 1.2)
    for i in range(5):
        x = r * (i - 2) * 0.38
        size = r * dice.between(0.45, 0.62)
        _blob(dice, b, x, size * 0.8, size, size, shade(leaf, 0.75 + 0.12 * (i % 3)))
    return b.build(), r


def pole(height: float, radius: float, color: Color, arm: float = 0.0, at: float = 0.0) -> Mesh:
    """A mast; `arm` is a beam's reach to the right (left if negative) at the height `at`."""
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
    b.flat([(x0, at - 0.05), (x1, at - 0.05), (x1, at - 0.13), (x0, at - 0.13)], (255, 230, 170, 1.0) if night else (214, 214, 206))
    return b.build()


def traffic_light(dice: Dice, x: float, y: float, back: bool, night: bool) -> Mesh:
    """A traffic light whose middle is at (x, y); `back` shows its rear."""
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
    """A traffic sign, sometimes two, whose middle is at the height y."""
    b = Builder()
    for i in range(1 if dice.chance(0.75) else 2):
        _plate(dice, b, y - 0.72 * i)
    return b.build()


def _plate(dice: Dice, b: Builder, y: float) -> None:
    kind = dice.weighted({"limit": 3, "ban": 1, "warning": 2, "order": 2, "priority": 2, "stop": 1, "yield": 1, "park": 2, "name": 1})
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
        b.flat([(-0.04, y - 0.2), (0.04, y - 0.2), (0.04, y + 0.06), (0.14, y + 0.06), (0, y + 0.22), (-0.14, y + 0.06), (-0.04, y + 0.06)], (*WHITE, 0.12))
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
    """A large direction board whose middle is at (x, y)."""
    b = Builder()
    w, h = dice.between(1.2, 1.8), dice.between(0.55, 0.8)
    for grow, color in ((0.07, WHITE), (0.0, dice.pick((BLUE, GREEN)))):
        b.flat([(x - w - grow, y + h + grow), (x + w + grow, y + h + grow), (x + w + grow, y - h - grow), (x - w - grow, y - h - grow)], (*color, 0.1))
    for k in range(3):
        top = y + h * (0.7 - 0.55 * k)
        right = x + w * dice.between(0.0, 0.7)
        b.flat([(x - w * 0.85, top), (right, top), (right, top - 0.17), (x - w * 0.85, top - 0.17)], (*WHITE, 0.1))
    return b.build()


def clutter(dice: Dice) -> Mesh:
    """Street furniture that Cityscapes leaves unlabelled: a bin, a bench, a planter, a cabinet."""
    b = Builder()
    kind = dice.pick(("bin", "bench", "planter", "cabinet"))
    if kind == "bin":
        b.box((-0.28, 0.28), (0, 0.95), (-0.28, 0.28), dice.vary(dice.pick(((60, 70, 64), (196, 110, 30), (60, 62, 66))), 0.2))
        b.box((-0.32, 0.32), (0.95, 1.05), (-0.32, 0.32), (40, 42, 42))
    elif kind == "bench":
        wood = dice.vary((122, 84, 54), 0.2)
        b.box((-0.25, 0.25), (0.38, 0.46), (-0.9, 0.9), wood)
        b.box((-0.25, 0.25), (0.0, 0.38), (-0.8, -0.7), (50, 50, 52))
        b.box((-0.25, 0.25), (0.0, 0.38), (0.7, 0.8), (50, 50, 52))
        b.box((0.2, 0.27), (0.5, 0.9), (-0.9, 0.9), wood)
    elif kind == "planter":
        b.box((-0.5, 0.5), (0, 0.55), (-0.5, 0.5), dice.vary((150, 142, 132), 0.2))
        b.flat([(-0.45, 0.55), (-0.5, 0.8), (-0.2, 0.95), (0.1, 0.85), (0.3, 1.0), (0.5, 0.75), (0.45, 0.55)], dice.vary(dice.pick(LEAF), 0.2))
    else:
        b.box((-0.3, 0.3), (0, 1.25), (-0.5, 0.5), dice.vary((136, 140, 132), 0.15))
    return b.build()


def luggage(dice: Dice) -> Mesh:
    """Something that somebody moves: a suitcase, a pram, a dog (Cityscapes: dynamic)."""
    b = Builder()
    color = dice.vary(dice.pick(AWNING), 0.3)
    kind = dice.pick(("case", "pram", "dog"))
    if kind == "case":
        b.box((-0.2, 0.2), (0.08, 0.65), (-0.13, 0.13), color)
        b.flat([(-0.1, 0.65), (-0.1, 0.95), (0.1, 0.95), (0.1, 0.65)], (50, 50, 52))
    elif kind == "pram":
        b.flat([(-0.4, 0.45), (-0.42, 0.95), (-0.1, 1.05), (0.05, 0.75), (0.4, 0.72), (0.38, 0.45)], color)
        for x in (-0.3, 0.32):
            b.flat([(x + 0.13 * c, 0.14 + 0.13 * s) for c, s in _LAMP], (40, 40, 42))
    else:
        fur = dice.vary((110, 84, 58), 0.4)
        b.flat([(-0.4, 0.32), (-0.4, 0.58), (0.3, 0.6), (0.4, 0.78), (0.62, 0.7), (0.6, 0.6), (0.4, 0.5), (0.32, 0.3)], fur)
        for x in (-0.36, -0.24, 0.18, 0.28):
            b.flat([(x - 0.04, 0.34), (x + 0.04, 0.34), (x + 0.03, 0), (x - 0.03, 0)], shade(fur, 0.8))
    return b.build()


def bridge(dice: Dice, half: float, y: float, thick: float) -> Mesh:
    """A bridge across the street (Cityscapes: bridge, not evaluated)."""
    b = Builder()
    color = dice.vary((140, 138, 132), 0.12)
    b.box((-half, half), (y, y + thick), (-4, 4), color)
    b.polygon([(-half, y, -4), (half, y, -4), (half, y, 4), (-half, y, 4)], shade(color, 0.45))
    b.polygon([(-half, y + thick + 0.9, -4), (half, y + thick + 0.9, -4), (half, y + thick, -4), (-half, y + thick, -4)], shade(color, 0.75), NOWHERE)
    return b.build()
