"""Compose one SynthCity scene from its seed, split and index."""

from __future__ import annotations

from spinet.synthcity.dice import Dice
from spinet.synthcity.ground import lay_ground
from spinet.synthcity.plan import Plan
from spinet.synthcity.roadside import backdrop, furnish, line_street, signal
from spinet.synthcity.scene import Scene
from spinet.synthcity.traffic import drive, gather, park, ride, walk_people

SPLITS = ("train", "val")


def compose(seed: int, split: str, index: int) -> Scene:
    """The scene for a data set's seed, split ("train" or "val") and index; independent of the image size."""
    plan = Plan(Dice(seed, SPLITS.index(split), index))
    lay_ground(plan)
    backdrop(plan)
    for side in (-1, 1):
        line_street(plan, side)
        furnish(plan, side)
        park(plan, side)
        walk_people(plan, side)
    signal(plan)
    drive(plan)
    ride(plan)
    gather(plan)
    plan.scene.things.sort(key=lambda thing: -thing.key)
    return plan.scene
