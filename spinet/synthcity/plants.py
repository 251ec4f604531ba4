"""Trees, bushes and hedges of SynthCity: clumps of leaves with ragged outlines."""

from __future__ import annotations

from functools import cache

import numpy as np

from spinet.synthcity.dice import Color, Dice, circle, turn
from spinet.synthcity.mesh import UP, Builder, Mesh, shade

LEAF: tuple[Color, ...] = ((62, 96, 40), (78, 110, 46), (50, 84, 44), (96, 118, 52), (70, 102, 62))
AUTUMN: tuple[Color, ...] = ((176, 116, 40), (156, 82, 36), (190, 150, 56), (110, 112, 46))
TREES = 36  # number of tree shapes


def blob(dice: Dice, b: Builder, x: float, y: float, rx: float, ry: float, color: Color, depth: float = 0.0) -> None:
    """A clump of leaves with a ragged outline."""
    reach = (0.84 + 0.32 * dice.units(len(_LEAVES)))[:, None]
    outline = np.zeros((len(_LEAVES), 3))
    outline[:, :2] = _LEAVES * reach * [[rx, ry]] + [[x, y]]
    outline[:, 2] = depth
    b.polygon(outline, color)


_LEAVES = circle(20)


def tree(dice: Dice, leaf: Color, detailed: bool) -> tuple[Mesh, float, float, float]:
    """A tree: its mesh, total height, height of the bottom of the crown and radius of the crown, in metres."""
    mesh, paint, foot, radius = _tree(dice.whole(0, TREES - 1), detailed)
    height, wide = dice.between(5.0, 10.5), dice.between(0.85, 1.15) * dice.pick((-1, 1))
    palette = np.zeros((len(paint), 4))
    palette[:, :3] = paint[:, :1] * np.array(leaf) + paint[:, 1:] * np.array(dice.vary((88, 70, 54), 0.25))
    return mesh.painted(palette, (height * wide, height, 1)), height, foot * height, radius * height


@cache
def _tree(variant: int, detailed: bool) -> tuple[Mesh, np.ndarray, float, float]:
    """A tree one metre tall: its mesh, shares of leaf and bark in each colour, bottom and radius of the crown."""
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
        for i in range(count):  # clumps on a spiral from the dark bottom to the light top
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
