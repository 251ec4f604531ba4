"""Noise for SynthCity's surfaces: periodic tiles, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spinet.synthcity.dice import Dice

TILE = 512  # pixels


@dataclass(frozen=True)
class Grain:
    """Noise, periodic in both directions: [TILE, TILE], or [2, TILE, TILE] for the two kinds of ground."""

    white: np.ndarray  # int16, mean about 0
    leaves: np.ndarray  # uint16, a gain in units of 1/128
    plaster: np.ndarray  # uint16, a gain in units of 1/128
    clouds: np.ndarray  # int16, mean about 0
    ground: np.ndarray  # int16, mean about 0: asphalt, and slabs with joints


@lru_cache(maxsize=1)
def grains() -> Grain:
    dice = Dice(20240518)
    white = np.floor((dice.units(TILE, TILE) + dice.units(TILE, TILE) + dice.units(TILE, TILE)) * 85 - 127.5)
    white = white.astype(np.int64)

    def smooth(cells: int) -> np.ndarray:
        """Value noise, -128 … 127, with `cells` cells per period."""
        step = TILE // cells
        grid = np.floor(dice.units(cells, cells) * 256).astype(np.int64)
        for axis in (0, 1):
            weight = np.arange(step).reshape((1, step, 1) if axis == 0 else (1, 1, step))
            low, high = np.expand_dims(grid, axis + 1), np.expand_dims(np.roll(grid, -1, axis), axis + 1)
            grid = ((low * (step - weight) + high * weight) // step).reshape((TILE, -1) if axis == 0 else (TILE, TILE))
        return grid - 128

    leaves = (smooth(256) * 3 + smooth(128) * 3 + smooth(64) * 2) // 12 + white // 8
    clouds = (smooth(8) * 8 + smooth(16) * 5 + smooth(32) * 3 + smooth(64) * 2 + smooth(128)) // 12
    asphalt = white // 3 + (smooth(128) + smooth(32)) // 6
    joint = (np.arange(TILE) % 12 == 0)[:, None] | (np.arange(TILE) % 8 == 0)[None]
    slab = np.repeat(np.repeat(white[:43, :64], 12, 0)[:TILE], 8, 1) // 4
    paving = white // 5 + slab - 26 * joint
    return Grain(
        white=white.astype(np.int16),
        leaves=(128 + leaves).astype(np.uint16),
        plaster=(128 + white // 12).astype(np.uint16),
        clouds=clouds.astype(np.int16),
        ground=np.stack([asphalt, paving]).astype(np.int16),
    )


@lru_cache(maxsize=8)
def _sheet(kind: str, h: int, w: int) -> np.ndarray:
    """Repeats a kind of noise, so that [h, w] can be cut out at any offset up to TILE."""
    tile = getattr(grains(), kind)
    return np.ascontiguousarray(np.tile(tile, (h // TILE + 2, w // TILE + 2))[: h + TILE, : w + TILE])


def cut(kind: str, offset: tuple[int, int], h: int, w: int) -> np.ndarray:
    return _sheet(kind, h, w)[offset[0] : offset[0] + h, offset[1] : offset[1] + w]
