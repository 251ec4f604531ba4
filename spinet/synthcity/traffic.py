"""Place vehicles and people in a SynthCity street, standing and moving."""

from __future__ import annotations

from spinet.synthcity import cycles, furniture, people, vehicles
from spinet.synthcity.dice import turn
from spinet.synthcity.plan import Plan
from spinet.synthcity.scene import (
    BICYCLE,
    BUS,
    CAR,
    DYNAMIC,
    MOTORCYCLE,
    PERSON,
    RIDER,
    TRAIN,
    TRUCK,
    Glow,
    disc,
    oblong,
)


def _vehicle(plan: Plan, label: int, x: float, z: float, yaw: float) -> float:
    """Places a vehicle by the middle of its length; returns that length."""
    dice = plan.dice
    away = abs(yaw) < 1.5708
    if label == TRUCK:
        mesh, length, half, high = vehicles.truck(dice, plan.night, away)
    elif label == BUS:
        mesh, length, half, high = vehicles.bus(dice, plan.night)
    elif label == TRAIN:
        mesh, length, half, high = vehicles.tram(dice, plan.night)
    else:
        mesh, length, half, high = vehicles.car(dice, plan.night)
    plan.add(label, mesh, x, z, yaw, footprint=oblong(half, length), heights=(0.3, high))
    if plan.night and z < 70:
        cos, sin = turn(yaw)
        end = -1.0 if away else 1.0
        color, reach = ((120, 16, 10), 0.5) if away else ((235, 225, 190), 0.8)
        for lamp in (-0.65, 0.65):
            place = (x + lamp * cos + end * sin * length / 2, 0.72, z - lamp * sin + end * cos * length / 2)
            plan.scene.glows.append(Glow(place, reach, color))
    return length


def park(plan: Plan, side: int) -> None:
    """Places a row of parked cars, with some motorcycles and trucks."""
    dice = plan.dice
    if not plan.parking[side]:
        return
    x = plan.lanes_end[side] + side * 1.15
    full = dice.between(0.55, 0.95)
    z = dice.between(5.5, 9)
    while z < 40:
        if not plan.open_at(z - 7, z + 7) or any(abs(z - stop - 1.5) < 5 for stop in plan.zebras):
            z += 2
            continue
        if not dice.chance(full):
            z += dice.between(2, 6)
            continue
        along = 0.0 if side > 0 or dice.chance(0.15) else 3.14159
        yaw = along + dice.between(-0.03, 0.03)
        kind = dice.weighted({CAR: 12, TRUCK: 0.4, MOTORCYCLE: 1.0})
        if kind == MOTORCYCLE:
            for i in range(dice.whole(1, 4)):
                _two_wheeler(plan, MOTORCYCLE, x + dice.between(-0.3, 0.3), z - 1.6 + 0.9 * i, side * 1.1, False)
            z += 5
        elif kind == TRUCK:
            z += _vehicle(plan, TRUCK, x - side * 0.1, z + 2, yaw) + dice.between(2, 3)
        else:
            z += _vehicle(plan, CAR, x + dice.between(-0.12, 0.12), z, yaw) + dice.between(0.6, 1.6)


def drive(plan: Plan) -> None:
    """Places moving traffic: away from the camera, towards it on the left lanes, and across at a crossing."""
    dice = plan.dice
    mix = {CAR: 10, TRUCK: 0.9, BUS: 0.9}
    lanes = [(plan.centre + plan.lane * (i + 0.5), 0.0) for i in range(plan.right_lanes)]
    lanes += [(plan.centre - plan.lane * (i + 0.5), 3.14159) for i in range(plan.left_lanes)]
    jam = dice.chance(0.3)
    for x, yaw in lanes:
        z = dice.between(8, 40) if yaw == 0 else dice.between(8, 26)
        while z < 52:
            kind = dice.weighted(mix)
            half = {CAR: 2.5, TRUCK: 6.2, BUS: 6.2}[kind]
            if z - half < 5:
                z += half
            _vehicle(plan, kind, x + dice.between(-0.3, 0.3), z, yaw + dice.between(-0.02, 0.02))
            z += half + dice.between(3.0, 7) if jam else half + dice.between(10, 40)
    if plan.tram and dice.chance(0.85):
        _vehicle(plan, TRAIN, plan.track, dice.between(20, 42), dice.pick((0.0, 3.14159)))
    if plan.crossing is not None:
        z = plan.crossing + plan.crossing_width * 0.3
        for row, yaw in ((0.0, 1.5708), (plan.crossing_width * 0.42, -1.5708)):
            x = dice.between(-22, -8)
            while x < 20:
                if dice.chance(0.45):
                    _vehicle(
                        plan, dice.weighted({CAR: 8, BUS: 0.6, TRUCK: 0.6}), x, z + row, yaw + dice.between(-0.05, 0.05)
                    )
                x += dice.between(6.5, 12)


def _two_wheeler(plan: Plan, label: int, x: float, z: float, yaw: float, ridden: bool) -> None:
    """Adds a bicycle or motorcycle, with or without its rider; `yaw` as for cars."""
    dice = plan.dice
    heading = yaw - _bearing(x, z)
    face = _bearing(x, z)
    motor = label == MOTORCYCLE
    mesh = cycles.motorcycle(dice, heading, plan.night) if motor else cycles.bicycle(dice, heading)
    plan.add(label, mesh, x, z, face, footprint=oblong(0.2, 1.5), heights=(0.1, 1.0))
    if ridden:
        mesh = people.rider(dice, heading, motor)
        plan.add(RIDER, mesh, x, z, face, key=z - 0.05, footprint=oblong(0.25, 0.6), heights=(0.6, 1.75))


def ride(plan: Plan) -> None:
    """Places riders on the road, sometimes several in a row or one across."""
    dice = plan.dice
    for _ in range(dice.weighted({0: 3, 1: 4, 2: 3, 3: 1.5})):
        label = MOTORCYCLE if dice.chance(0.36) else BICYCLE
        right = dice.chance(0.6)
        x = plan.lanes_end[1] - dice.between(0.2, 0.9) if right else plan.lanes_end[-1] + dice.between(0.3, 0.9)
        if right and plan.right_lanes == 1:
            x = min(x + 0.3, plan.kerb[1] - 0.4)
        z, yaw = dice.between(6, 22), (0.0 if right else 3.14159) + dice.between(-0.35, 0.35)
        for i in range(dice.whole(1, 3) if label == BICYCLE else 1):
            _two_wheeler(plan, label, x + dice.between(-0.5, 0.5), z + 1.4 * i, yaw, True)
    if plan.zebras and dice.chance(0.25):
        z = plan.zebras[0] + dice.between(0.5, 2.5)
        _two_wheeler(plan, BICYCLE, dice.between(plan.kerb[-1], plan.kerb[1]), z, dice.pick((1.57, -1.57)), True)


def _walker(plan: Plan, x: float, z: float, yaw: float, walking: bool) -> None:
    """Adds a pedestrian."""
    face = _bearing(x, z)
    mesh, high = people.person(plan.dice, yaw - face, walking)
    plan.add(PERSON, mesh, x, z, face, footprint=disc(0.22), heights=(0.0, high))


def walk_people(plan: Plan, side: int) -> None:
    """Places people on the pavement, alone and in groups, and racks of bicycles."""
    dice = plan.dice
    kerb, width = plan.kerb[side], plan.walk[side]
    busy = dice.weighted({0: 1, 1: 1.5, 2: 3, 4: 3})
    for _ in range(busy):
        z = dice.between(5.5, 12) if dice.chance(0.55) else dice.between(9, 32)
        if plan.style[side] == "city" and not plan.open_at(z, z):
            continue
        x = kerb + side * dice.between(0.6, max(width - 0.4, 0.8))
        size = dice.weighted({1: 4, 2: 3.5, 3: 2, 5: 1})
        walking = dice.chance(0.75)
        yaw = dice.pick((0.0, 3.14159)) + dice.between(-0.4, 0.4)
        for i in range(size):
            turned = yaw + dice.between(-0.3, 0.3) if walking else dice.between(0, 6.28)
            px = x + side * (0.5 * (i % 3) + dice.between(-0.1, 0.1))
            _walker(plan, px, z + 0.55 * (i // 3) + dice.between(-0.3, 0.3), turned, walking)
        if dice.chance(0.1):
            plan.add(DYNAMIC, furniture.luggage(dice), x - side * 0.5, z - 0.3, _bearing(x, z), footprint=disc(0.25))
    if dice.chance(0.28):
        z, x = dice.between(6.5, 17), kerb + side * dice.between(0.5, 1.0)
        yaw = dice.between(0.9, 1.4) * dice.pick((-1, 1))
        for i in range(dice.whole(2, 7)):
            _two_wheeler(
                plan, BICYCLE, x + dice.between(-0.1, 0.1), z + 0.6 * i, yaw + dice.between(-0.12, 0.12), False
            )


def gather(plan: Plan) -> None:
    """Places people who cross the street or wait, and a far crowd without instances."""
    dice = plan.dice
    for z in plan.zebras:
        if dice.chance(0.75):
            for _ in range(dice.whole(1, 6)):
                x = dice.between(plan.kerb[-1], plan.kerb[1])
                _walker(plan, x, z + dice.between(0.2, 2.8), dice.pick((1.57, -1.57)) + dice.between(-0.3, 0.3), True)
    if dice.chance(0.3):
        side = dice.pick((-1, 1))
        z, x = dice.between(7, 16), plan.kerb[side] + side * 1.2
        for i in range(dice.whole(4, 10)):
            at = x + side * dice.between(0.0, 1.4)
            _walker(plan, at, z + 0.42 * i + dice.between(-0.15, 0.15), dice.between(0, 6.28), False)
    if dice.chance(0.12):
        side = dice.pick((-1, 1))
        z = dice.between(55, 75)
        for i in range(9):
            x = plan.kerb[side] + side * (0.5 + 0.3 * i)
            face = _bearing(x, z)
            mesh, _ = people.person(dice, dice.between(0, 6.28), True)
            plan.add(PERSON, mesh, x, z + dice.between(-1, 1), face, group=True)


def _bearing(x: float, z: float) -> float:
    """Direction from the camera to a location: the angle to the right of straight ahead (rational approximation)."""
    t = x / z
    return t / (1 + 0.28 * t * t)
