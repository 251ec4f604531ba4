"""What stands along the streets of SynthCity: buildings, walls, fences, plants, lamps, lights and signs.

Facades, walls and fences are made where they stand, in the street's own axes; the rest around its foot.
"""

from __future__ import annotations

import itertools
from functools import cache

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
TREES = 36  # shapes that are drawn
AUTUMN: tuple[Color, ...] = ((176, 116, 40), (156, 82, 36), (190, 150, 56), (110, 112, 46))


def _on_street(x: float, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Rectangles [m, 4, 3] on the plane x, from their [m, 2] heights and [m, 2] depths."""
    corners = np.empty((len(y), 4, 3))
    corners[..., 0] = x
    corners[:, :, 1] = y[:, [1, 1, 0, 0]]
    corners[:, :, 2] = z[:, [0, 1, 1, 0]]
    return corners


def _columns(x: float, rows: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Rectangles [n, m, 4, 3] on the plane x: for each of n spans [n, 2] in depth, rows [m, 2] of heights."""
    corners = np.empty((len(spans), len(rows), 4, 3))
    corners[..., 0] = x
    corners[..., 1] = rows[None][..., [1, 1, 0, 0]]
    corners[..., 2] = spans[:, None][..., [0, 1, 1, 0]]
    return corners


def building(dice: Dice, x: float, outward: int, z0: float, z1: float, night: bool, tall: float) -> tuple[Mesh, float]:
    """A building whose front lies on the plane x between z0 and z1 (m); `outward` is the side away from the street.

    Returns its mesh and its height in metres.
    """
    b = Builder()
    style = dice.weighted({"plain": 5, "classic": 3, "office": 2, "glass": 1})
    modern = style in ("office", "glass")
    color = dice.vary((120, 138, 152), 0.15) if style == "glass" else dice.vary(dice.pick(PLASTER), 0.16)
    storey = dice.between(2.9, 3.6)
    floors = max(1, round(dice.between(0.6, 1.4) * tall))
    ground = storey * dice.between(1.05, 1.3)
    height = ground + floors * storey + 0.4
    street = (-float(outward), 0.0, 0.0)
    facing = (0.0, 0.0, -1.0)
    far = x + outward * 11.0
    b.polygon([(x, height, z0), (far, height, z0), (far, 0, z0), (x, 0, z0)], shade(color, 0.95), facing)
    roof = not modern and dice.chance(0.7)
    if roof:
        _roof(dice, b, x, outward, (z0, z1), height, shade(color, 0.9))

    columns = max(2, round((z1 - z0) / dice.between(2.4, 3.4)))
    edges = np.linspace(z0, z1, columns + 1)
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    pitch = (z1 - z0) / columns
    margin = pitch * (dice.between(0.02, 0.1) if modern else dice.between(0.2, 0.32)) * np.array([1.0, -1.0])
    sill = storey * (0.08 if style == "glass" else dice.between(0.22, 0.34))
    lintel = storey * (0.06 if style == "glass" else dice.between(0.1, 0.2))
    base = ground + storey * np.arange(floors)
    rows = np.stack([base + sill, base + storey - lintel], axis=1)
    glass = (*dice.vary((104, 132, 158) if style == "glass" else (62, 72, 84), 0.3), 0.12)
    frame = shade(color, 1.22) if dice.chance(0.6) else dice.vary((222, 220, 214), 0.1)
    sheen = (glass[0] * 0.6 + 66, glass[1] * 0.6 + 74, glass[2] * 0.6 + 84, 0.12)
    blind = dice.vary(dice.pick(PLASTER), 0.3)
    near, proud = z0 < 50, x - outward * 0.03

    b.many(_columns(x, np.array([[0.0, height]]), spans), color, street)
    if near:
        grown = (0.14, np.array([-0.16, 0.22])) if style == "classic" else (0.07, np.array([-0.1, 0.06]))
        b.many(_columns(x, rows + grown[1], spans + margin - grown[0] * np.array([1.0, -1.0])), frame, street)
    panes = _columns(proud, rows, spans + margin)
    b.many(panes, glass, street)
    if near:  # the upper part of a pane mirrors the sky
        b.many(_columns(proud, rows * [[0.4, 0.0]] + rows[:, 1:] * [[0.6, 1.0]], spans + margin), sheen, street)
    bright = dice.units(columns, floors) < (0.42 if night else 0.02)
    b.many(panes[bright], (255, 214, 140, 0.85), street)
    if near and not modern:
        drawn = (dice.units(columns, floors) < 0.25) & ~bright
        blinds = panes[drawn]
        blinds[:, 2:, 1] = blinds[:, :2, 1] * 0.5 + blinds[:, 2:, 1] * 0.5
        b.many(blinds, blind, street)
        bars = np.array([-0.05, 0.05])
        if style == "plain":
            b.many(_columns(proud, rows, spans.mean(axis=1, keepdims=True) + bars), frame, street)
        if style == "classic" and dice.chance(0.5):  # balconies
            rails = np.stack([base + 0.05, base + 0.95], axis=1)[1:]
            if len(rails):
                iron = shade(color, 0.45)
                b.many(_columns(x - outward * 0.9, rails, spans[1::3] + margin * 0.4), iron, street)
    _ground_floor(dice, b, x, outward, edges.tolist(), ground, color, night)
    span = np.array([[z0, z1]])
    crown = 0.2 if style == "glass" else 0.45
    b.many(_columns(x - outward * 0.2, np.array([[height - crown, height]]), span), shade(color, 1.15), street)
    b.many(_columns(x - outward * 0.1, np.array([[ground - 0.12, ground + 0.12]]), span), shade(color, 0.8), street)
    if z0 > 6:
        left = x + outward * (1.2 + 3.2 * np.arange(3)[:, None])
        corners = np.empty((3, floors, 4, 3))
        corners[..., 2] = z0 - 0.02
        corners[..., 0] = (left + outward * (2.8 if modern else 1.4) * np.array([0, 1, 1, 0]))[:, None]
        corners[..., 1] = rows[:, [1, 1, 0, 0]]
        b.many(corners, glass, facing)
        b.many(corners[dice.units(3, floors) < (0.4 if night else 0.0)], (255, 214, 140, 0.85), facing)
    return b.build(), height


def _roof(dice: Dice, b: Builder, x: float, outward: int, z: tuple[float, float], height: float, gable: Color) -> None:
    """A tiled roof, with a chimney or dormers."""
    z0, z1 = z
    tile, rise = dice.vary(dice.pick(ROOF), 0.15), dice.between(1.6, 3.4)
    eaves, ridge = x - outward * 0.3, x + outward * 4
    slope = (-outward * 0.6, 0.8, 0.0)
    outline = [(eaves, height, z0), (ridge, height + rise, z0), (ridge, height + rise, z1), (eaves, height, z1)]
    b.polygon(outline, tile, slope)
    b.polygon([(x, height, z0), (ridge, height + rise, z0), (x + outward * 11, height, z0)], gable, (0, 0, -1))
    if dice.chance(0.5):
        middles = np.arange(z0 + 2, z1 - 1.5, 3.6)[:, None]
        out = x + outward * 0.5
        b.many(
            _columns(out, np.array([[height + 0.2, height + 1.5]]), middles + np.array([-0.7, 0.7])),
            shade(gable, 1.1),
            slope,
        )
        b.many(
            _columns(out, np.array([[height + 0.4, height + 1.3]]), middles + np.array([-0.45, 0.45])),
            (64, 74, 86, 0.12),
            slope,
        )
    if dice.chance(0.6):
        at = dice.between(z0 + 1, z1 - 1)
        stack = sorted((x + outward * 2.4, x + outward * 3.4))
        b.box((stack[0], stack[1]), (height, height + 3.2), (at, at + 0.8), (132, 88, 70))


def _ground_floor(
    dice: Dice, b: Builder, x: float, outward: int, edges: list[float], ground: float, color: Color, night: bool
) -> None:
    """Doors, shop windows with awnings and signs."""
    street = (-float(outward), 0.0, 0.0)
    shop = dice.chance(0.5)
    out = x - outward * 0.04
    awning = dice.vary(dice.pick(AWNING), 0.15)
    dark = (*dice.vary((54, 62, 70), 0.3), 0.15)
    pane = (250, 224, 170, 0.8) if night and shop else dark
    door = dice.vary((86, 60, 44), 0.4)

    def plate(y0: float, y1: float, z0: float, z1: float, paint: tuple[float, ...]) -> None:
        b.quads(_on_street(out, np.array([[y0, y1]]), np.array([[z0, z1]])), paint, street)

    for i, (a, c) in enumerate(itertools.pairwise(edges)):
        m = (c - a) * 0.12
        if shop:
            if i % 3 == 0:
                awning = dice.vary(dice.pick(AWNING), 0.2)
            plate(0.45, ground - 0.95, a + m, c - m, pane)
            plate(ground - 0.9, ground - 0.3, a, c, (*awning, 0.1))
            if i % 2:
                low, edge = ground - 1.4, x - outward * 1.2
                canvas = [(x, ground - 0.9, a + m), (edge, low, a + m), (edge, low, c - m), (x, ground - 0.9, c - m)]
                b.polygon(canvas, awning, (-outward * 0.4, 0.9, 0.0))
                stripes = [(edge, low, a + m), (edge, low - 0.25, a + m), (edge, low - 0.25, c - m), (edge, low, c - m)]
                b.polygon(stripes, shade(awning, 1.3), street)
        elif i % 3 == 1:
            middle = (a + c) / 2
            plate(0.0, 2.3, middle - 0.6, middle + 0.6, door)
        else:
            plate(1.0, ground - 0.7, a + 2 * m, c - 2 * m, pane)
    plate(0.0, 0.4, edges[0], edges[-1], shade(color, 0.7))


def wall(dice: Dice, x: float, outward: int, z0: float, z1: float, look: tuple[str, float, Color]) -> Mesh:
    """A free-standing wall along the street; `look` is its kind ("brick" or "concrete"), height (m) and colour."""
    kind, height, color = look
    b = Builder()
    street = (-float(outward), 0.0, 0.0)
    span = np.array([[z0, z1]])
    b.polygon(
        [(x, height, z0), (x + outward * 0.4, height, z0), (x + outward * 0.4, 0, z0), (x, 0, z0)], color, (0, 0, -1)
    )
    b.quads(_on_street(x, np.array([[0.0, height]]), span), color, street)
    if z0 < 40:
        if kind == "brick":
            low = np.arange(0.12, height - 0.1, 0.24)[:, None]
            b.quads(
                _on_street(x, low + np.array([0.0, 0.035]), np.repeat(span, len(low), 0)), shade(color, 1.25), street
            )
        else:
            at = np.arange(z0 + 0.5, z1, 2.0)[:, None]
            rows = np.repeat(np.array([[0.0, height]]), len(at), 0)
            b.quads(_on_street(x, rows, at + np.array([0.0, 0.06])), shade(color, 0.7), street)
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
    b.quads(_on_street(x, rows, at + np.array([0.0, thick])), color, street)
    shares = (0.25, 0.8) if kind != "mesh" else (0.1, 0.3, 0.5, 0.7, 0.92)
    width = 0.09 if kind != "mesh" else 0.04
    low = height * np.array(shares)[:, None]
    b.quads(
        _on_street(x - outward * 0.03, low + np.array([0.0, width]), np.repeat(span, len(low), 0)),
        shade(color, 0.85),
        street,
    )
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
    b.polygon(
        [(x, float(tops[0]), z0), (x + outward * 0.9, float(tops[0]), z0), (x + outward * 0.9, 0, z0), (x, 0, z0)],
        shade(leaf, 0.9),
        (0, 0, -1),
    )
    return b.build()


def blob(dice: Dice, b: Builder, x: float, y: float, rx: float, ry: float, color: Color, depth: float = 0.0) -> None:
    """A clump of leaves with a ragged outline."""
    reach = (0.84 + 0.32 * dice.units(len(_LEAVES)))[:, None]
    outline = np.zeros((len(_LEAVES), 3))
    outline[:, :2] = _LEAVES * reach * [[rx, ry]] + [[x, y]]
    outline[:, 2] = depth
    b.polygon(outline, color)


_LEAVES = circle(20)


def tree(dice: Dice, leaf: Color, detailed: bool) -> tuple[Mesh, float, float, float]:
    """A tree: its mesh, total height, height of the crown's foot and radius of the crown, in metres."""
    mesh, paint, foot, radius = _tree(dice.whole(0, TREES - 1), detailed)
    height, wide = dice.between(5.0, 10.5), dice.between(0.85, 1.15) * dice.pick((-1, 1))
    palette = np.zeros((len(paint), 4))
    palette[:, :3] = paint[:, :1] * np.array(leaf) + paint[:, 1:] * np.array(dice.vary((88, 70, 54), 0.25))
    return mesh.painted(palette, (height * wide, height, 1)), height, foot * height, radius * height


@cache
def _tree(variant: int, detailed: bool) -> tuple[Mesh, np.ndarray, float, float]:
    """A tree one metre tall: its mesh, shares of leaf and bark in each colour, the crown's foot and radius."""
    dice = Dice(21, variant)
    b = Builder()
    kind = "conifer" if variant % 6 == 0 else "tall" if variant % 6 == 1 else "round"
    trunk = 0.028
    if kind == "conifer":
        foot, radius, layers = 0.1, 0.2, 6 if detailed else 4
        b.flat([(-trunk, 0), (-trunk, 0.25), (trunk, 0.25), (trunk, 0)], (0, 1, 0))
        for i in range(layers):
            y, w = foot + 0.81 * i / layers, radius * (1 - i / layers) + 0.02
            ragged = [(-w + 2 * w * k / 8, y + (0.0 if k % 2 else 0.04 * dice.unit())) for k in range(9)]
            b.flat([*ragged, (0, min(1.0, y + 2.0 / layers))], (0.58 + 0.23 * i / layers, 0, 0))
    else:
        foot = 0.28 if kind == "round" else 0.16
        radius = dice.between(0.26, 0.36) if kind == "round" else dice.between(0.13, 0.18)
        lean = dice.between(-0.04, 0.04)
        b.flat([(-trunk, 0), (lean - trunk * 0.6, foot + 0.2), (lean + trunk * 0.6, foot + 0.2), (trunk, 0)], (0, 1, 0))
        b.flat([(0, 0), (lean, foot + 0.2), (lean + trunk * 0.6, foot + 0.2), (trunk, 0)], (0, 0.75, 0))
        middle, half = (1 + foot) / 2, (1 - foot) / 2
        count = 16 if detailed else 8
        blob(dice, b, lean, middle - 0.1 * half, radius * 0.86, half * 0.86, (0.66, 0, 0))
        for i in range(count):  # clumps on a spiral from the foot, dark, to the top, light
            cos, sin = turn(2.4 * i)
            share = (i + 0.5) / count
            r = (1 - (2 * share - 1) ** 2) ** 0.5 * 0.62 + 0.06
            x, y = lean + radius * r * cos, middle + half * (1.5 * share - 0.75) + 0.1 * half * sin
            size = radius * dice.between(0.32, 0.5)
            gain = 0.7 + 0.46 * share - 0.12 * (cos + 0.4) + dice.between(-0.06, 0.06)
            blob(dice, b, x, y, size, size * half / radius * (0.8 if kind == "round" else 0.55), (gain, 0, 0))
    return b.build(), np.array(b.palette)[:, :2], foot, radius


def bush(dice: Dice, leaf: Color) -> tuple[Mesh, float]:
    """A bush, and its radius in metres."""
    b = Builder()
    r = dice.between(0.5, 1.2)
    for i in range(5):
        x = r * (i - 2) * 0.38
        size = r * dice.between(0.45, 0.62)
        blob(dice, b, x, size * 0.8, size, size, shade(leaf, 0.75 + 0.12 * (i % 3)))
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
    b.flat(
        [(x0, at - 0.05), (x1, at - 0.05), (x1, at - 0.13), (x0, at - 0.13)],
        (255, 230, 170, 1.0) if night else (214, 214, 206),
    )
    return b.build()


def traffic_light(dice: Dice, x: float, y: float, back: bool = False) -> Mesh:
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
    """A large direction board whose middle is at (x, y)."""
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


def clutter(dice: Dice) -> Mesh:
    """Street furniture that Cityscapes leaves unlabelled: a bin, a bench, a planter, a cabinet."""
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
