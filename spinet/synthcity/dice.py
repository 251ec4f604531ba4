"""Random numbers for SynthCity: the same draws on every machine and with every version of NumPy.

It uses only raw words of PCG64, whose stream NumPy guarantees, and arithmetic that IEEE 754 fixes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.random import PCG64, SeedSequence

T = TypeVar("T")
Color = tuple[float, float, float]


class Dice:
    """Random draws, seeded by integers ≥ 0."""

    def __init__(self, *seed: int):
        self._bits = PCG64(SeedSequence(seed))
        self._stock: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1)."""
        if not self._stock:
            self._stock = ((self._bits.random_raw(512) >> np.uint64(11)) * 2.0**-53).tolist()
        return self._stock.pop()

    def units(self, *shape: int) -> np.ndarray:
        """Numbers in [0, 1), float64 of the given shape."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(11)
        return (raw * 2.0**-53).reshape(shape)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        """A key, drawn with a probability proportional to its value."""
        left = self.unit() * sum(options.values())
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return next(reversed(options))

    def vary(self, color: Color, amount: float) -> Color:
        """A random colour near the given one: brightness ± `amount` (a share), each channel ± a quarter of it."""
        gain, tint = 1 + amount * self.between(-1, 1), 0.25 * amount
        r, g, b = color
        return (
            r * (gain + tint * self.between(-1, 1)),
            g * (gain + tint * self.between(-1, 1)),
            b * (gain + tint * self.between(-1, 1)),
        )


def turn(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in radians, rounded to 2^-16, so that all mathematics libraries agree."""
    return round(math.cos(angle) * 65536) / 65536, round(math.sin(angle) * 65536) / 65536


def circle(n: int) -> np.ndarray:
    """n points of the unit circle, float64 [n, 2], clockwise on a screen whose y points up."""
    return np.array([turn(-2 * math.pi * i / n) for i in range(n)])
