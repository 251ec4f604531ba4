"""Bounds of the numbers in the configuration: minimum and maximum of each field, and relations between fields."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

FROM_ZERO = set(
    "freeze_stages coordinate_frequencies head_convs workers warmup seed evaluate_every snapshots min_component_area"
    " small_area semantic_layers".split()
)
"""Integers with minimum 0; all others have minimum 1."""

SHARES = set(
    "bootstrap bootstrap_anneal triplet_ramp focal_alpha flip photo colour_jitter milestones momentum threshold"
    " ap_threshold nms_iou keep mask_threshold overlap agreement fill_threshold stuff_threshold min_stuff_area"
    " dropout keep_boxes nms removal".split()
)
"""Fractions from 0 to 1; all others are at least 0."""

ABOVE_ZERO = set(
    "coordinate_unit bootstrap scale test_scale clip_norm matrix_sigma agreement anchor_scale sigma sizes"
    " radius".split()
)
"""Fractions that must not be 0."""

MOST = {"freeze_stages": 5, "seed": 2**32 - 1}
"""Maximum values, beside 1 for `SHARES`."""


def complaints(config: Any, prefix: str = "") -> list[str]:
    """Lists the numbers outside their bounds in a configuration (nested dataclasses): field, value and bound."""
    found = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found += complaints(value, f"{name}.")
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                found += [f"{name}: {number} {wrong}" for wrong in _wrong(field.name, number)]
    return [*dict.fromkeys(found), *_between(config, prefix)]


def _wrong(name: str, number: int | float) -> list[str]:
    if not math.isfinite(number):
        return ["is not finite"]
    least = 0 if name in FROM_ZERO else 1
    if isinstance(number, int) and name not in SHARES | ABOVE_ZERO and number < least:
        return [f"is below {least}"]
    if number < 0 or (number == 0 and name in ABOVE_ZERO):
        return ["is not above 0" if name in ABOVE_ZERO else "is below 0"]
    most = MOST.get(name, 1 if name in SHARES else math.inf)
    return [f"is above {most}"] if number > most else []


def _between(config: Any, prefix: str) -> list[str]:
    found = []
    scale, milestones = getattr(config, "scale", None), getattr(config, "milestones", ())
    if scale is not None and scale[0] > scale[1]:
        found.append(f"{prefix}scale: {scale[0]} is above {scale[1]}; give the smaller one first")
    if list(milestones) != sorted(milestones):
        found.append(f"{prefix}milestones: {milestones} are not in ascending order")
    for name in ("kernel", "peak"):
        if (side := getattr(config, name, 1)) % 2 == 0:
            found.append(f"{prefix}{name}: {side} is even; choose an odd number")
    return found
