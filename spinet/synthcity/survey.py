"""Count the contents of SynthCity's images: objects, small objects, touching objects of a class, class frequencies."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

SMALL = 32 * 32 / (512 * 1024)  # area of 32 x 32 pixels in an image of 512 x 1024, as a share of the image


@dataclass
class Survey:
    """Counts over scenes; `labels` are Cityscapes' label ids."""

    scenes: int = 0
    instances: Counter[int] = field(default_factory=Counter)  # by label
    small: Counter[int] = field(default_factory=Counter)  # by label: area below `SMALL`
    touching: Counter[int] = field(default_factory=Counter)  # by label: 8-neighbours of another of their class
    groups: int = 0  # regions of a thing class without instances
    presence: Counter[int] = field(default_factory=Counter)  # scenes in which a label occurs
    coverage: defaultdict[int, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # share of the image, summed over scenes

    def add(self, labels: np.ndarray, instances: np.ndarray) -> None:
        """Counts one scene: label ids, uint8 [H, W], and instance ids, uint16 [H, W]."""
        self.scenes += 1
        values, areas = np.unique(labels, return_counts=True)
        for label, area in zip(values.tolist(), areas.tolist(), strict=True):
            self.presence[label] += 1
            self.coverage[label] += area / labels.size
        values, areas = np.unique(instances, return_counts=True)
        self.groups += int(((values >= 24) & (values < 1000)).sum())
        touching = touching_instances(instances)
        for value, area in zip(values.tolist(), areas.tolist(), strict=True):
            if value >= 1000:
                label = value // 1000
                self.instances[label] += 1
                self.small[label] += area < SMALL * labels.size
                self.touching[label] += value in touching

    def share_small(self) -> float:
        return self.small.total() / max(self.instances.total(), 1)

    def share_touching(self) -> float:
        return self.touching.total() / max(self.instances.total(), 1)


def touching_instances(ids: np.ndarray) -> set[int]:
    """Instances in a map of instance ids [H, W] that are 8-neighbours of another instance of their class."""
    ids = ids.astype(np.int32)
    found: set[int] = set()
    for here, there in (
        (ids[:, :-1], ids[:, 1:]),
        (ids[:-1], ids[1:]),
        (ids[:-1, :-1], ids[1:, 1:]),
        (ids[:-1, 1:], ids[1:, :-1]),
    ):
        meets = (here != there) & (here >= 1000) & (here // 1000 == there // 1000)
        found.update(np.unique(here[meets]).tolist(), np.unique(there[meets]).tolist())
    return found
