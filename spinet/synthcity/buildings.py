"""Buildings, walls and fences of SynthCity, in street coordinates: `x` is the plane of their front, z their depth.

`outward` is the direction away from the street: 1 on its right, -1 on its left.
"""

from __future__ import annotations

import itertools

import numpy as np

from spinet.synthcity.dice import Color, Dice
from spinet.synthcity.mesh import Builder, Mesh, shade

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
    """A building whose front lies on the plane x between z0 and z1 (m); `outward` points away from the street.

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
    if near:  # the upper part of a pane reflects the sky
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

    if edges[0] > 55:
        band = np.array([[0.45, ground - 0.95]] if shop else [[1.0, ground - 0.7]])
        inset = (edges[1] - edges[0]) * (0.12 if shop else 0.24) * np.array([1.0, -1.0])
        b.many(_columns(out, band, np.stack([edges[:-1], edges[1:]], axis=1) + inset), pane, street)
        return

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
