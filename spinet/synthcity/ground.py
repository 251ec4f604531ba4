"""The ground of a SynthCity street."""

from __future__ import annotations

from spinet.synthcity.dice import Color
from spinet.synthcity.mesh import UP, Builder, shade
from spinet.synthcity.plan import Plan
from spinet.synthcity.scene import PARKING, ROAD, SIDEWALK, TERRAIN, TRACK, Thing


def lay_ground(plan: Plan) -> None:
    """Lays grass, pavements, carriageways, parking lanes, kerbs and asphalt patches, in this order."""
    dice, kerb = plan.dice, plan.kerb
    gray = dice.between(84, 122) * (0.8 if plan.light.wet else 1.0)
    asphalt = (gray, gray * dice.between(0.97, 1.01), gray * dice.between(0.97, 1.05))
    paving = dice.vary(dice.pick(((168, 160, 152), (150, 148, 148), (176, 152, 136), (140, 138, 134))), 0.1)
    grass = dice.vary(dice.pick(((98, 124, 58), (112, 128, 66), (128, 124, 78), (84, 112, 54))), 0.15)
    marking = dice.vary((226, 226, 218), 0.08)
    if plan.light.snow:
        paving, grass = (206, 210, 216), (226, 229, 234)
        asphalt = shade(asphalt, 1.15)
    plan.strip(TERRAIN, grass, -400, 400)
    for side in (-1, 1):
        front = kerb[side] + side * plan.walk[side]
        beyond = {"city": 14.0, "houses": 0.0, "park": 0.0, "works": 0.0}[plan.style[side]]
        plan.strip(SIDEWALK, paving, kerb[side], front + side * beyond)
        if plan.verge[side]:
            plan.strip(TERRAIN, grass, kerb[side] + side * 0.3, kerb[side] + side * 1.5)
    if plan.crossing is not None:
        z0, z1 = plan.crossing, plan.crossing + plan.crossing_width
        for x0, x1 in ((-90.0, kerb[-1]), (kerb[1], 90.0)):
            plan.strip(SIDEWALK, paving, x0, x1, z0 - 2.6, z1 + 2.6)
            plan.strip(ROAD, asphalt, x0, x1, z0, z1)
    plan.strip(ROAD, asphalt, kerb[-1], kerb[1])
    for side in (-1, 1):
        if plan.parking[side] and dice.chance(0.3):
            tint = dice.vary(shade(asphalt, 1.18), 0.08)
            plan.strip(PARKING, tint, kerb[side], plan.lanes_end[side])
        for z0, z1 in plan.gaps():
            plan.strip(SIDEWALK, shade(paving, 1.16), kerb[side], kerb[side] + side * 0.16, z0, z1)
            if plan.parking[side]:
                plan.strip(ROAD, marking, plan.lanes_end[side], plan.lanes_end[side] + side * 0.1, z0, z1)
    for _ in range(dice.whole(2, 5)):  # asphalt patches
        x, z = dice.between(kerb[-1], kerb[1] - 1.5), dice.between(5, 30)
        patch = shade(asphalt, dice.between(0.82, 1.08))
        plan.strip(ROAD, patch, x, min(x + dice.between(0.8, 2.6), kerb[1]), z, z + dice.between(1.5, 9))
    if plan.tram:
        _lay_track(plan, asphalt)
    _mark_lanes(plan, marking)


def _lay_track(plan: Plan, asphalt: Color) -> None:
    """A tram's rails."""
    x = plan.track
    if plan.dice.chance(0.45):
        plan.strip(TRACK, plan.dice.vary(plan.dice.pick(((132, 120, 106), (104, 116, 70))), 0.1), x - 1.5, x + 1.5)
    for rail in (-0.72, 0.72):
        plan.strip(TRACK, shade(asphalt, 0.55), x + rail - 0.09, x + rail + 0.09, 0.6, 140)


def _mark_lanes(plan: Plan, marking: Color) -> None:
    """Lines, zebra crossings and arrows."""
    dice = plan.dice
    inner = plan.lanes_end[-1] + (3.0 if plan.tram else 0.0)
    lines = [plan.centre + plan.lane * i for i in range(1, plan.right_lanes)]
    lines += [plan.centre - plan.lane * i for i in range(1, plan.left_lanes)]
    if plan.tram:
        lines.append(inner)
    solid = dice.chance(0.35)
    for x in [*lines, plan.centre]:
        if solid and x == plan.centre:
            for z0, z1 in plan.gaps():
                plan.strip(ROAD, marking, x - 0.07, x + 0.07, z0, z1)
            continue
        z = dice.between(1.0, 6.0)
        while z < 90:
            if plan.open_at(z, z + 3):
                plan.strip(ROAD, marking, x - 0.07, x + 0.07, z, z + 3)
            z += 7.5
    stops = [] if plan.crossing is None else [plan.crossing - 4.2, plan.crossing + plan.crossing_width + 1.2]
    if plan.crossing is None and dice.chance(0.3):
        stops = [dice.between(9, 30)]
    plan.zebras = stops
    if stops and dice.chance(0.8):
        for z in stops:
            x = plan.kerb[-1] + 0.5
            while x < plan.kerb[1] - 0.6:
                plan.strip(ROAD, marking, x, x + 0.5, z, z + 3.0)
                x += 1.05
        plan.strip(ROAD, marking, plan.centre, plan.lanes_end[1], stops[0] - 1.6, stops[0] - 1.2)
    if dice.chance(0.3):
        z = dice.between(8, 16)
        x = plan.centre + plan.lane / 2
        plan.strip(ROAD, marking, x - 0.08, x + 0.08, z, z + 2.4)
        b = Builder()
        b.polygon([(x - 0.4, 0, z + 2.4), (x, 0, z + 4), (x + 0.4, 0, z + 2.4)], marking, UP)
        plan.scene.ground.append(Thing(ROAD, b.build()))
