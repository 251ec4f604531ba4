"""Cars, vans, trucks, buses and trams of SynthCity: built once, then scaled and painted for each use in a scene."""

from __future__ import annotations

from functools import lru_cache

from spinet.synthcity.dice import Color, Dice
from spinet.synthcity.mesh import WHEEL, Builder, Mesh, shade

# palette slots of every vehicle
BODY, LOWER, GLASS, TYRE, RIM, HEAD, TAIL, DARK, PLATE, ACCENT, CARGO, SIGN, TRIM, SHEEN = range(14)

CAR_PAINT: tuple[Color, ...] = (
    (22, 24, 28),
    (38, 40, 46),
    (86, 90, 96),
    (150, 154, 158),
    (196, 199, 202),
    (232, 233, 232),
    (150, 22, 26),
    (190, 40, 34),
    (26, 48, 104),
    (52, 96, 160),
    (24, 70, 56),
    (110, 84, 62),
    (196, 172, 128),
    (214, 150, 30),
    (96, 30, 44),
)
BUS_PAINT: tuple[tuple[Color, Color], ...] = (
    ((206, 172, 24), (60, 60, 62)),
    ((188, 32, 36), (230, 228, 224)),
    ((226, 226, 222), (40, 116, 70)),
    ((34, 84, 148), (228, 228, 226)),
    ((222, 120, 34), (236, 234, 226)),
)
TRAM_PAINT: tuple[tuple[Color, Color], ...] = (
    ((232, 228, 214), (184, 30, 36)),
    ((240, 202, 40), (44, 44, 48)),
    ((232, 232, 230), (32, 98, 160)),
    ((66, 128, 84), (236, 232, 220)),
)
CARGO_PAINT: tuple[Color, ...] = (
    (226, 226, 222),
    (206, 206, 200),
    (44, 84, 140),
    (178, 42, 38),
    (214, 172, 52),
    (70, 110, 80),
    (120, 122, 126),
)


def _palette(dice: Dice, body: Color, accent: Color, cargo: Color, night: bool) -> list[tuple[float, ...]]:
    lit = 1.0 if night else 0.0
    head = (255, 248, 222, 1.0) if night or dice.chance(0.3) else (226, 232, 236, 0.25)
    tail = (255, 40, 30, 1.0) if night or dice.chance(0.25) else (168, 20, 22, 0.2)
    glass = dice.between(24, 62)
    rim = dice.between(90, 190)
    colors: list[tuple[float, ...]] = [()] * 14
    colors[BODY] = (*body, 0)
    colors[LOWER] = (*shade(body, 0.62), 0)
    colors[GLASS] = (glass, glass * 1.08, glass * 1.18, 0.1)
    colors[SHEEN] = (glass + 34, glass + 42, glass + 50, 0.1) if not night else (glass + 8, glass + 9, glass + 12, 0.1)
    colors[TYRE] = (24, 24, 26, 0)
    colors[RIM] = (rim, rim, rim * 1.03, 0)
    colors[HEAD] = head
    colors[TAIL] = tail
    colors[DARK] = (30, 31, 34, 0)
    colors[PLATE] = (222, 222, 210, 0.1)
    colors[ACCENT] = (*accent, 0)
    colors[CARGO] = (*cargo, 0)
    colors[SIGN] = (255, 176, 40, 0.8)
    colors[TRIM] = (*shade(body, 0.8), 0)
    if lit:
        colors[PLATE] = (222, 222, 210, 0.4)
    return colors


def _lamps(b: Builder, face: str, at: float, half: float, inner: float, low: float, high: float) -> None:
    for sign in (-1, 1):
        x = sorted((sign * inner, sign * half))
        b.panel(face, at, (x[0], x[1]), (low, high), TAIL if face == "rear" else HEAD)


def _treads(b: Builder, half: float, rear: float, front: float, height: float) -> None:
    for sign in (-1, 1):
        a = (sign * half, sign * (half - 0.24))
        b.panel("rear", rear, (min(a), max(a)), (0.0, height), TYRE)
        b.panel("front", front, (min(a), max(a)), (0.0, height), TYRE)


# z of rear, boot, start of the bonnet and front; z of the cabin: rear bottom, rear top, front top, front bottom;
# heights of deck and roof; half width
CAR_SHAPES: dict[str, tuple[tuple[float, ...], tuple[float, ...], float, float, float]] = {
    "sedan": ((-2.3, -1.75, 0.95, 2.25), (-1.85, -1.05, 0.15, 1.1), 0.95, 1.45, 0.9),
    "hatch": ((-1.95, -1.9, 0.95, 1.95), (-1.92, -1.45, 0.2, 1.15), 0.97, 1.5, 0.87),
    "wagon": ((-2.35, -2.3, 1.0, 2.3), (-2.32, -1.9, 0.2, 1.15), 0.98, 1.5, 0.91),
    "suv": ((-2.25, -2.2, 1.05, 2.25), (-2.22, -1.9, 0.35, 1.2), 1.12, 1.72, 0.95),
    "van": ((-2.55, -2.5, 1.5, 2.4), (-2.54, -2.45, 0.95, 1.75), 1.18, 2.0, 0.97),
}


@lru_cache(maxsize=16)
def _car(kind: str) -> Mesh:
    (rear, tail, hood, nose), (z0, z1, z2, z3), deck, roof, half = CAR_SHAPES[kind]
    b = Builder([(0, 0, 0, 0)] * 14)
    mirror, door = (deck - 0.02, deck + 0.14), (z3 - 0.42, z3 - 0.26)
    mirrors = ((-half - 0.17, -half), (half, half + 0.17))
    _treads(b, half - 0.04, rear + 0.3, nose - 0.3, 0.34)
    for x in mirrors:
        b.panel("rear", door[0], x, mirror, DARK)
    b.prism(
        [
            (rear + 0.06, 0.22),
            (rear, 0.5),
            (rear + 0.05, deck - 0.06),
            (tail, deck),
            (hood, deck),
            (nose - 0.25, deck - 0.16),
            (nose, deck - 0.36),
            (nose - 0.05, 0.22),
        ],
        [half * 0.93, half * 0.96, half * 0.97, half, half, half * 0.95, half * 0.93, half * 0.93],
        [LOWER, BODY, BODY, BODY, BODY, TRIM, LOWER],
        BODY,
    )
    for x in mirrors:
        b.panel("front", door[1], x, mirror, TRIM)
    base, top = half * 0.96, half * 0.76
    b.prism(
        [(z0, deck - 0.02), (z1, roof), (z2, roof + 0.02), (z3, deck - 0.02)],
        [base, top, top, base],
        [BODY, TRIM, BODY],
        BODY,
    )
    rise = roof - deck

    def glass(t: float) -> tuple[float, float]:  # height and half width at a share of the window slope
        return deck + rise * t, base + (top - base) * t + 0.005

    def on_greenhouse(
        points: list[tuple[float, float]],
    ) -> None:  # (z, share of the rise), clockwise, front to the right
        right = [(glass(t)[1], glass(t)[0], z) for z, t in points]
        b.polygon(right, GLASS, (1.0, 0.3, 0.0), solid=True)
        b.polygon([(-x, y, z) for x, y, z in right[::-1]], GLASS, (-1.0, 0.3, 0.0), solid=True)

    def at(z_low: float, z_high: float, t: float) -> float:
        return z_low + (z_high - z_low) * t

    middle = (z1 + z2) / 2 + 0.1
    low, high = 0.1, 0.88
    on_greenhouse(
        [(at(z0, z1, low) + 0.14, low), (at(z0, z1, high) + 0.1, high), (middle - 0.05, high), (middle - 0.05, low)]
    )
    on_greenhouse(
        [(middle + 0.05, low), (middle + 0.05, high), (at(z3, z2, high) - 0.1, high), (at(z3, z2, low) - 0.16, low)]
    )
    (y_low, w_low), (y_high, w_high) = glass(low), glass(high)
    for foot, head, sign in ((z0, z1, -1), (z3, z2, 1)):
        z_low, z_high = at(foot, head, low) + sign * 0.01, at(foot, head, high) + sign * 0.01
        upper, lower = sign * (w_high - 0.1), sign * (w_low - 0.1)
        corners = [(upper, y_high, z_high), (-upper, y_high, z_high), (-lower, y_low, z_low), (lower, y_low, z_low)]
        b.polygon(corners, GLASS, (0.0, 0.4, float(sign)), solid=True)
        (x0, ya, za), _, (_, yb, zb), (x1, _, _) = corners
        gleam = [(x0 * 0.75, ya, za), (x0 * 0.1, ya, za), (x1 * -0.25, yb, zb), (x1 * 0.5, yb, zb)]
        b.polygon(gleam, SHEEN, (0.0, 0.4, float(sign)), solid=True)
    b.panel("front", nose + 0.005, (-half * 0.52, half * 0.52), (deck - 0.52, deck - 0.38), DARK)
    for face, end in (("rear", rear - 0.005), ("front", nose + 0.005)):
        _lamps(b, face, end, half * 0.92, half * 0.56, deck - 0.34, deck - 0.17)
    b.panel("front", nose + 0.01, (-0.26, 0.26), (0.34, 0.45), PLATE)
    b.panel("rear", rear - 0.01, (-0.26, 0.26), (0.56, 0.68), PLATE)
    b.panel("rear", rear + 0.02, (-half * 0.8, half * 0.8), (0.26, 0.4), DARK)
    b.panel("rear", rear - 0.004, (-half * 0.9, half * 0.9), (deck - 0.42, deck - 0.4), LOWER)
    b.panel("front", nose - 0.02, (-half * 0.8, half * 0.8), (0.24, 0.34), DARK)
    b.panel("sides", half + 0.004, (middle - 0.02, middle + 0.02), (0.36, deck - 0.03), LOWER)
    b.panel("sides", half * 0.97 + 0.01, (rear + 0.5, nose - 0.5), (0.2, 0.3), DARK)
    b.panel("sides", half + 0.17, door, mirror, TRIM)
    span = nose - rear
    for z in (rear + span * 0.19, nose - span * 0.185):
        b.on_sides([(z + 0.41 * c, 0.33 + 0.41 * max(s, -0.3)) for c, s in WHEEL], half + 0.005, DARK)
        b.wheel(z, 0.33, half + 0.006, TYRE, RIM)
    return b.build()


@lru_cache(maxsize=8)
def _truck(kind: str, rear_view: bool) -> Mesh:
    b = Builder([(0, 0, 0, 0)] * 14)
    length = {"box": 7.6, "semi": 12.0, "tipper": 7.0}[kind]
    rear, nose = -length / 2, length / 2
    top = {"box": 3.4, "semi": 3.9, "tipper": 2.7}[kind]
    cab = nose - 2.1

    def cabin() -> None:
        b.prism(
            [(cab, 0.5), (cab, 2.7), (nose - 0.35, 2.78), (nose - 0.02, 1.55), (nose, 0.4)],
            [1.16, 1.12, 1.12, 1.18, 1.18],
            [BODY, TRIM, GLASS, BODY],
            BODY,
        )
        b.on_sides([(cab + 0.85, 1.55), (cab + 0.85, 2.4), (nose - 0.4, 2.4), (nose - 0.18, 1.55)], 1.185, GLASS)
        b.panel("front", nose + 0.01, (-0.9, 0.9), (0.95, 1.3), DARK)
        _lamps(b, "front", nose + 0.01, 1.1, 0.72, 0.62, 0.85)
        b.panel("front", nose + 0.012, (-0.28, 0.28), (0.45, 0.57), PLATE)

    def cargo() -> None:
        b.box((-1.1, 1.1), (0.55, 1.0), (rear + 0.1, cab), DARK)
        b.box((-1.25, 1.25), (0.95, top), (rear, cab - 0.15), CARGO)
        if kind == "tipper":
            for i in range(5):
                z = rear + 0.4 + i * (cab - rear - 0.8) / 4
                b.panel("sides", 1.26, (z - 0.06, z + 0.06), (1.0, top), TRIM)
        else:
            z0, z1 = rear + 0.5, cab - 0.6
            b.panel("sides", 1.255, (z0, z1), (1.5, 1.5 + (top - 1.5) * 0.5), ACCENT)
        b.panel("rear", rear - 0.01, (-0.03, 0.03), (1.0, top - 0.1), DARK)
        b.panel("rear", rear - 0.01, (-1.2, 1.2), (0.6, 0.95), DARK)
        _lamps(b, "rear", rear - 0.02, 1.12, 0.75, 0.66, 0.86)
        b.panel("rear", rear - 0.02, (-0.27, 0.27), (0.7, 0.82), PLATE)

    _treads(b, 1.15, rear + 0.5, nose - 0.6, 0.9)
    for part in (cabin, cargo) if rear_view else (cargo, cabin):
        part()
    wheels = {"box": (rear + 1.5, nose - 1.1), "semi": (rear + 1.1, rear + 2.2, rear + 3.3, cab - 0.5, nose - 1.1)}
    for z in wheels.get(kind, (rear + 1.0, rear + 2.1, nose - 1.1)):
        b.wheel(z, 0.5, 1.27, TYRE, RIM)
    return b.build()


@lru_cache(maxsize=4)
def _bus(length: float) -> Mesh:
    b = Builder([(0, 0, 0, 0)] * 14)
    rear, nose, half, top = -length / 2, length / 2, 1.27, 3.1
    _treads(b, 1.2, rear + 0.6, nose - 0.6, 0.5)
    b.prism(
        [(rear, 0.32), (rear, top - 0.15), (rear + 0.15, top), (nose - 0.2, top), (nose, top - 0.25), (nose, 0.32)],
        [half, half, half - 0.08, half - 0.08, half, half],
        [BODY, BODY, TRIM, BODY, BODY],
        BODY,
    )
    b.panel("sides", half + 0.004, (rear, nose), (0.32, 0.95), ACCENT)
    b.panel("rear", rear - 0.004, (-half, half), (0.32, 0.95), ACCENT)
    b.panel("front", nose + 0.004, (-half, half), (0.32, 0.95), ACCENT)
    b.panel("sides", half + 0.008, (rear + 0.35, nose - 0.1), (1.3, 2.55), GLASS)
    step = (length - 0.9) / round(length / 1.6)
    z = rear + 0.35 + step
    while z < nose - 0.6:
        b.panel("sides", half + 0.012, (z - 0.05, z + 0.05), (1.3, 2.55), BODY)
        z += step
    for z in (nose - 1.3, 0.3):
        b.panel("sides", half + 0.014, (z - 0.55, z + 0.55), (0.4, 2.5), DARK)
        b.panel("sides", half + 0.016, (z - 0.48, z - 0.04), (0.55, 2.42), GLASS)
        b.panel("sides", half + 0.016, (z + 0.04, z + 0.48), (0.55, 2.42), GLASS)
    b.panel("front", nose + 0.01, (-1.14, 1.14), (1.0, 2.45), GLASS)
    b.panel("front", nose + 0.012, (-0.9, 0.9), (2.55, 2.82), DARK)
    b.panel("front", nose + 0.014, (-0.6, 0.6), (2.6, 2.77), SIGN)
    b.panel("rear", rear - 0.01, (-1.0, 1.0), (1.6, 2.5), GLASS)
    b.panel("rear", rear - 0.012, (-0.8, 0.8), (0.55, 1.35), TRIM)
    for face, end in (("rear", rear - 0.014), ("front", nose + 0.014)):
        _lamps(b, face, end, 1.18, 0.82, 0.6, 0.86)
    b.panel("front", nose + 0.014, (-0.27, 0.27), (0.42, 0.54), PLATE)
    for z in (rear + 2.9, nose - 2.7):
        b.wheel(z, 0.48, half + 0.018, TYRE, RIM)
    return b.build()


@lru_cache(maxsize=4)
def _tram(cars: int) -> Mesh:
    b = Builder([(0, 0, 0, 0)] * 14)
    length, half, top = 8.5 * cars, 1.25, 3.35
    rear, nose = -length / 2, length / 2
    b.prism(
        [
            (rear + 0.1, 0.22),
            (rear, 1.1),
            (rear + 0.7, top - 0.2),
            (rear + 1.2, top),
            (nose - 1.2, top),
            (nose - 0.7, top - 0.2),
            (nose, 1.1),
            (nose - 0.1, 0.22),
        ],
        [half * 0.8, half * 0.84, half * 0.84, half, half, half * 0.84, half * 0.84, half * 0.8],
        [ACCENT, GLASS, BODY, TRIM, BODY, GLASS, ACCENT],
        BODY,
    )
    b.on_sides([(rear + 0.1, 0.22), (rear + 0.02, 1.05), (nose - 0.02, 1.05), (nose - 0.1, 0.22)], half + 0.004, ACCENT)
    b.panel("sides", half + 0.008, (rear + 1.0, nose - 1.0), (1.4, 2.65), GLASS)
    for i in range(cars):
        start = rear + 8.5 * i
        for z in (start + 2.2, start + 6.3):
            b.panel("sides", half + 0.012, (z - 0.6, z + 0.6), (0.4, 2.6), BODY)
            b.panel("sides", half + 0.014, (z - 0.5, z - 0.03), (0.6, 2.5), GLASS)
            b.panel("sides", half + 0.014, (z + 0.03, z + 0.5), (0.6, 2.5), GLASS)
        b.panel("sides", half + 0.012, (start + 4.1, start + 4.25), (1.4, 2.65), BODY)
        if i:
            b.panel("sides", half + 0.016, (start - 0.3, start + 0.3), (0.3, top), DARK)
    b.box((-0.8, 0.8), (top, top + 0.3), (-2.0, 1.0), TRIM)
    for x in (-0.6, 0.6):
        b.polygon([(x, top + 0.3, 0.4), (x + 0.05, top + 0.3, 0.4), (x * 0.9, 4.7, -0.6), (x * 0.9, 4.6, -0.6)], DARK)
    b.polygon([(-0.7, 4.74, -0.6), (0.7, 4.74, -0.6), (0.7, 4.64, -0.6), (-0.7, 4.64, -0.6)], DARK)
    for end, axis in ((rear - 0.02, "rear"), (nose + 0.02, "front")):
        b.panel(axis, end, (-0.62, 0.62), (2.86, 3.08), SIGN)
        b.panel(axis, end, (-half * 0.84, half * 0.84), (0.95, 1.12), BODY)
        _lamps(b, axis, end, half * 0.74, half * 0.42, 0.62, 0.86)
    return b.build()


def car(dice: Dice, night: bool) -> tuple[Mesh, float, float, float]:
    """A car or van: its mesh, length, half width and height in metres."""
    kind = dice.weighted({"sedan": 3, "hatch": 3, "wagon": 2, "suv": 2.5, "van": 1})
    paint = dice.vary(dice.pick(CAR_PAINT), 0.2)
    size = dice.between(0.93, 1.07)
    (rear, _, _, nose), _, _, roof, half = CAR_SHAPES[kind]
    high = dice.between(0.96, 1.05)
    mesh = _car(kind).painted(_palette(dice, paint, paint, paint, night), (dice.between(0.97, 1.04), high, size))
    return mesh, (nose - rear) * size, half, roof * high


def truck(dice: Dice, night: bool, rear_view: bool) -> tuple[Mesh, float, float, float]:
    """A truck, seen from the rear or the front: its mesh, length, half width and height in metres."""
    kind = dice.weighted({"box": 4, "semi": 2, "tipper": 2})
    cab = dice.vary(dice.pick(CAR_PAINT[4:]), 0.2)
    cargo = dice.vary(dice.pick(CARGO_PAINT), 0.12)
    accent = dice.vary(dice.pick(CARGO_PAINT), 0.2)
    length, high = {"box": (7.6, 3.4), "semi": (12.0, 3.9), "tipper": (7.0, 2.7)}[kind]
    return _truck(kind, rear_view).painted(_palette(dice, cab, accent, cargo, night)), length, 1.26, high


def bus(dice: Dice, night: bool) -> tuple[Mesh, float, float, float]:
    """A city bus: its mesh, length, half width and height in metres."""
    length = dice.pick((10.5, 12.0))
    body, accent = dice.pick(BUS_PAINT)
    palette = _palette(dice, dice.vary(body, 0.12), dice.vary(accent, 0.12), body, night)
    if night:
        palette[GLASS] = (226, 206, 150, 0.75)
    return _bus(length).painted(palette), length, 1.28, 3.1


def tram(dice: Dice, night: bool) -> tuple[Mesh, float, float, float]:
    """A tram, the class that Cityscapes calls train: its mesh, length, half width and height in metres."""
    cars = dice.whole(2, 3)
    body, accent = dice.pick(TRAM_PAINT)
    palette = _palette(dice, dice.vary(body, 0.08), dice.vary(accent, 0.12), body, night)
    if night:
        palette[GLASS] = (230, 212, 160, 0.75)
    return _tram(cars).painted(palette), 8.5 * cars, 1.25, 3.4
