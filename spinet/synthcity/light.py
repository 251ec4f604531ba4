"""Time of day and weather of a SynthCity scene."""

from __future__ import annotations

from dataclasses import dataclass

from spinet.synthcity.dice import Color, Dice, turn


@dataclass(frozen=True)
class Light:
    """Light and weather of a scene. Light colours are gains on a surface's colour; other colours are 0 … 255."""

    ambient: Color
    sun: Color  # zero if the sky is overcast or dark
    direction: tuple[float, float, float]  # towards the sun
    sky_top: Color
    sky_bottom: Color
    clouds: float  # 0 … 1
    fog: float  # extinction, 1/m
    dark: bool  # lamps are on
    wet: float  # how much the road reflects, 0 … 1
    rain: bool
    snow: bool
    cast: Color  # the camera's colour cast, a gain


SKIES: dict[str, tuple[Color, Color, Color, Color]] = {  # ambient, sun, top, bottom
    "clear": ((0.66, 0.70, 0.76), (0.66, 0.62, 0.54), (84, 136, 204), (200, 219, 236)),
    "cloudy": ((0.74, 0.76, 0.79), (0.44, 0.42, 0.38), (122, 154, 194), (216, 224, 232)),
    "overcast": ((1.02, 1.04, 1.06), (0.0, 0.0, 0.0), (190, 196, 203), (228, 230, 232)),
    "golden": ((0.58, 0.55, 0.58), (0.86, 0.62, 0.38), (116, 146, 194), (253, 212, 156)),
    "dusk": ((0.52, 0.47, 0.55), (0.0, 0.0, 0.0), (56, 64, 114), (230, 156, 122)),
    "night": ((0.40, 0.41, 0.49), (0.0, 0.0, 0.0), (12, 14, 30), (52, 50, 64)),
}


def draw_light(dice: Dice) -> Light:
    """Draws one scene's light and weather."""
    sky = dice.weighted({"clear": 3.2, "cloudy": 2.2, "overcast": 2.2, "golden": 1.0, "dusk": 0.7, "night": 0.7})
    ambient, sun, top, bottom = SKIES[sky]
    gain = dice.between(0.88, 1.12)
    elevation = {"clear": dice.between(0.55, 1.05), "golden": dice.between(0.2, 0.4)}.get(sky, dice.between(0.45, 0.9))
    cos, sin = turn(elevation)
    c, s = turn(dice.between(0.0, 6.2831))
    rain = sky in ("overcast", "dusk", "night") and dice.chance(0.3)
    snow = sky in ("overcast", "cloudy") and dice.chance(0.14)
    fog = dice.weighted({0.0014: 5, 0.004: 3, 0.012: 1.0, 0.022: 0.5}) * dice.between(0.7, 1.3)
    return Light(
        ambient=(ambient[0] * gain, ambient[1] * gain, ambient[2] * gain),
        sun=(sun[0] * gain, sun[1] * gain, sun[2] * gain),
        direction=(cos * c, sin, cos * s),
        sky_top=dice.vary(top, 0.12),
        sky_bottom=dice.vary(bottom, 0.06),
        clouds={"clear": dice.between(0.0, 0.5), "cloudy": dice.between(0.6, 1.0), "overcast": 0.5}.get(sky, 0.35),
        fog=fog,
        dark=sky in ("dusk", "night"),
        wet=dice.between(0.3, 0.5) if rain else (dice.between(0.1, 0.22) if dice.chance(0.08) else 0.0),
        rain=rain,
        snow=snow,
        cast=(dice.between(0.96, 1.03), dice.between(0.98, 1.02), dice.between(0.95, 1.04)),
    )
