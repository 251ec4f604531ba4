"""Place objects beside a SynthCity street."""

from __future__ import annotations

import numpy as np

from spinet.synthcity import buildings, furniture, plants, signs
from spinet.synthcity.mesh import Builder, Mesh
from spinet.synthcity.plan import Plan
from spinet.synthcity.scene import (
    BRIDGE,
    BUILDING,
    FENCE,
    LIGHT,
    POLE,
    SIGN,
    STATIC,
    VEGETATION,
    WALL,
    Glow,
    disc,
    oblong,
)


def line_street(plan: Plan, side: int) -> None:
    """Places buildings, walls, fences and gardens from near to far."""
    dice, style = plan.dice, plan.style[side]
    front = plan.kerb[side] + side * plan.walk[side]
    tall = dice.between(3, 6) if style == "city" else dice.between(1.2, 2.4)
    wall_look = (
        dice.pick(("brick", "concrete")),
        dice.between(1.1, 2.6),
        dice.vary(dice.pick(((150, 84, 66), (168, 164, 156), (134, 130, 124), (186, 172, 146))), 0.15),
    )
    fence_look = (
        dice.pick(("picket", "rail", "mesh")),
        dice.between(1.0, 1.9),
        dice.vary(dice.pick(((214, 212, 204), (46, 54, 50), (120, 86, 60), (126, 132, 134), (52, 92, 66))), 0.15),
    )
    plot = dice.weighted({"wall": 1, "fence": 1.2, "hedge": 0.8, "open": 0.8})
    z = 1.6
    while z < 130:
        length = dice.between(8, 14) if z < 60 else dice.between(14, 24)
        end = z + length
        if not plan.open_at(z - 2, end + 2):
            assert plan.crossing is not None
            if z < plan.crossing - 6:
                end = plan.crossing - 2.5
            else:
                z = plan.crossing + plan.crossing_width + 2.5
                continue
        if style == "city":
            if dice.chance(0.07):
                _barrier(plan, side, front, z, end, "wall" if dice.chance(0.5) else "fence", wall_look, fence_look)
                _grove(plan, side, front + side * 3, z, end, 2)
            else:
                mesh, high = buildings.building(dice, front, side, z, end, plan.night, tall)
                _raise_building(plan, mesh, front, side, z, end, high)
        elif style == "houses":
            back = front + side * dice.between(4, 8)
            if dice.chance(0.75):
                inset = dice.between(0.5, 2.0)
                mesh, high = buildings.building(dice, back, side, z + inset, end - inset, plan.night, tall)
                _raise_building(plan, mesh, back, side, z + inset, end - inset, high)
            else:
                _grove(plan, side, back, z, end, 2)
            if dice.chance(0.5):
                _plant(plan, front + side * dice.between(1.5, 3.5), dice.between(z + 1, end - 1))
            _barrier(plan, side, front, z, end, plot if dice.chance(0.85) else "open", wall_look, fence_look)
        elif style == "park":
            _grove(plan, side, front + side * 2, z, end, 3)
            if dice.chance(0.5):
                _barrier(plan, side, front, z, end, plot, wall_look, fence_look)
        else:
            _barrier(plan, side, front, z, end, "wall" if dice.chance(0.6) else "fence", wall_look, fence_look)
            if dice.chance(0.5):
                mesh, high = buildings.building(dice, front + side * 9, side, z, end, plan.night, 1.6)
                _raise_building(plan, mesh, front + side * 9, side, z, end, high)
            else:
                _grove(plan, side, front + side * 4, z, end, 1)
        z = end + (0.0 if style == "city" and dice.chance(0.85) else dice.between(0.2, 2.0))


def _raise_building(plan: Plan, mesh: Mesh, x: float, side: int, z0: float, z1: float, high: float) -> None:
    """Adds a building, with its footprint for the shadow."""
    footprint = np.array([[x, z0], [x, z1], [x + side * 10, z1], [x + side * 10, z0]])
    plan.add(BUILDING, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))


def _barrier(
    plan: Plan, side: int, x: float, z0: float, z1: float, kind: str, wall_look: tuple, fence_look: tuple
) -> None:
    """Adds a wall, a fence, a hedge, or nothing ("open")."""
    footprint = np.array([[x, z0], [x, z1], [x + side * 0.3, z1], [x + side * 0.3, z0]])
    if kind == "wall":
        mesh, high = buildings.wall(plan.dice, x, side, z0, z1, wall_look), wall_look[1]
        plan.add(WALL, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))
    elif kind == "fence":
        mesh, high = buildings.fence(plan.dice, x, side, z0, z1, fence_look), fence_look[1]
        plan.add(FENCE, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))
    elif kind == "hedge":
        high = 1.4
        mesh = plants.hedge(plan.dice, x, side, z0, z1, high, plan.leaf())
        plan.add(VEGETATION, mesh, 0, 0, key=z1, footprint=footprint, heights=(0.0, high))


def _plant(plan: Plan, x: float, z: float) -> None:
    """Adds a tree."""
    mesh, high, foot, radius = plants.tree(plan.dice, plan.leaf(), z < 45)
    plan.add(VEGETATION, mesh, x, z, footprint=disc(radius * 0.8), heights=(foot, high))


def _grove(plan: Plan, side: int, x: float, z0: float, z1: float, count: int) -> None:
    """Adds trees behind the pavement, sometimes a bush."""
    dice = plan.dice
    for _ in range(count):
        _plant(plan, x + side * dice.between(0, 9), dice.between(max(z0, 5), max(z1, 6)))
    if dice.chance(0.5):
        mesh, r = plants.bush(dice, plan.leaf())
        plan.add(
            VEGETATION,
            mesh,
            x + side * dice.between(-1, 3),
            dice.between(max(z0, 6), max(z1, 7)),
            footprint=disc(r),
        )


def furnish(plan: Plan, side: int) -> None:
    """Places trees, lamps, signs and clutter on the pavement."""
    dice, kerb = plan.dice, plan.kerb[side]
    x = kerb + side * 0.8
    trees = dice.chance(0.55)
    step = dice.between(9, 16)
    z = dice.between(7, 7 + step)
    while trees and z < 80:
        if plan.open_at(z - 3, z + 3) and dice.chance(0.85):
            _plant(plan, x, z)
        z += step * dice.between(0.9, 1.1)
    z = dice.between(8, 26)
    steel = dice.vary(dice.pick(((110, 112, 116), (70, 74, 72), (140, 142, 144))), 0.15)
    while z < 90:
        if plan.open_at(z - 1, z + 1):
            high = dice.between(6.0, 8.0)
            arm = -side * 1.8
            plan.add(
                POLE,
                furniture.pole(high, 0.075, steel, arm, high),
                x - side * 0.3,
                z,
                footprint=disc(0.1),
                heights=(0, high),
            )
            plan.add(
                STATIC if dice.chance(0.3) else POLE,
                furniture.lamp_head(arm, high, plan.night),
                x - side * 0.3,
                z,
                key=z - 0.01,
            )
            if plan.night and z < 60:
                at = x - side * 0.3 + arm * 1.14
                plan.scene.glows.append(Glow((at, high - 0.09, z), 1.0, (255, 200, 120)))
                plan.scene.glows.append(Glow((at, 0.0, z), 4.0, (96, 76, 48)))
        z += dice.between(24, 32)
    for _ in range(dice.whole(1, 4)):
        z = dice.between(7, 45)
        if not plan.open_at(z, z):
            continue
        sx = kerb + side * dice.between(0.3, 0.7)
        high = dice.between(2.5, 3.2)
        plan.add(
            POLE, furniture.pole(high + 0.3, 0.045, (138, 140, 142)), sx, z, footprint=disc(0.06), heights=(0, high)
        )
        plan.add(SIGN, signs.sign(dice, high), sx, z, key=z - 0.02)
    if dice.chance(0.14):  # a railing at the kerb
        look = ("rail", dice.between(0.9, 1.15), dice.vary((146, 150, 152), 0.3))
        z = dice.between(6, 14)
        while z < 30 and plan.open_at(z, z + 4):
            _barrier(plan, side, kerb + side * 0.25, z, z + 4, "fence", look, look)
            z += 4
    for _ in range(dice.whole(0, 2)):
        z = dice.between(7, 30)
        plan.add(
            STATIC,
            furniture.clutter(dice),
            kerb + side * dice.between(0.6, plan.walk[side] * 0.9),
            z,
            footprint=oblong(0.35, 0.6),
            heights=(0, 0.9),
        )


def signal(plan: Plan) -> None:
    """Places traffic lights before a crossing, and sometimes a direction board and a bridge."""
    dice = plan.dice
    for z in plan.zebras:
        if not dice.chance(0.75):
            continue
        for side in (-1, 1):
            x = plan.kerb[side] + side * 0.4
            reach = dice.chance(0.4) and side > 0
            high = 5.2 if reach else 3.1
            steel = (92, 96, 96)
            arm = -3.6 if reach else 0.0
            back = side < 0 and dice.chance(0.5)
            plan.add(
                POLE, furniture.pole(high, 0.07, steel, arm, high - 0.1), x, z, footprint=disc(0.1), heights=(0, high)
            )
            plan.add(LIGHT, signs.traffic_light(dice, 0.0, 2.6, back), x, z, key=z - 0.03)
            if reach:
                plan.add(LIGHT, signs.traffic_light(dice, -3.4, 4.6), x, z, key=z - 0.03)
    if dice.chance(0.16):
        z, x = dice.between(16, 40), plan.kerb[1] + 0.6
        plan.add(
            POLE, furniture.pole(6.2, 0.11, (126, 130, 132), -3.4, 6.0), x, z, footprint=disc(0.12), heights=(0, 6)
        )
        plan.add(SIGN, signs.gantry(dice, -2.6, 5.6), x, z, key=z - 0.02)
    if dice.chance(0.06):
        z = dice.between(45, 80)
        plan.add(BRIDGE, furniture.bridge(dice, 60, dice.between(5.0, 6.0), dice.between(1.0, 1.8)), 0, z)


def backdrop(plan: Plan) -> None:
    """Paints the far end of the street: roofs and tree tops in haze."""
    dice, air = plan.dice, np.array(plan.light.sky_bottom) * 0.4
    gray = dice.vary((150, 146, 144), 0.12)
    b = Builder()
    x = -190.0
    while x < 190:
        wide, top = dice.between(9, 22), dice.between(5, 24)
        r, g, blue = dice.vary(gray, 0.1) if plan.night else (np.array(dice.vary(gray, 0.1)) * 0.6 + air).tolist()
        b.flat([(x, top), (x + wide, top), (x + wide, 0), (x, 0)], (r, g, blue))
        x += wide
    plan.add(BUILDING, b.build(), 0, 200.0)
    b = Builder()
    leaf = plan.leaf()
    x = -190.0
    while x < 190:
        wide, top = dice.between(5, 12), dice.between(3, 11)
        if dice.chance(0.75):
            plants.blob(dice, b, x + wide / 2, top * 0.45, wide * 0.7, top * 0.55, dice.vary(leaf, 0.12))
            b.flat([(x - 1, top * 0.4), (x + wide + 1, top * 0.4), (x + wide + 1, 0), (x - 1, 0)], leaf)
        x += wide
    plan.add(VEGETATION, b.build(), 0, 170.0)
